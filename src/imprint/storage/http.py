"""Objects on web servers, read by ranges: nothing is downloaded that is not asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from imprint.core.contracts import Traits
from imprint.core.errors import TruncatedImageError
from imprint.filters.block_cache import BLOCK_BYTES, BlockCache
from imprint.filters.readonly import ReadOnlyStorage
from imprint.storage.http_address import Address
from imprint.storage.http_ranges import RangeReader

if TYPE_CHECKING:
    import ssl

    from imprint.storage.http_ranges import HttpPolicy


class HttpStorage(ReadOnlyStorage):
    """An object behind an HTTP or HTTPS URL; read-only.

    Reads of a block and more go straight to the server, smaller ones through a cache. Each
    reading thread has a connection to itself, which is kept for the next read.
    """

    def __init__(self, reader: RangeReader, size: int) -> None:
        """Takes over ``reader``; use :meth:`open`."""
        self._reader = reader
        self._size = size
        self._cache = BlockCache(reader.readinto, size)

    @classmethod
    def open(
        cls, url: str, *, policy: HttpPolicy | None = None, tls: ssl.SSLContext | None = None
    ) -> Self:
        """Find the object, and see that the server gives parts of it.

        Args:
            url: may hold user and password, which then are sent, but never shown.
            policy: how patient to be.
            tls: whom to trust; ``None``: whom the system trusts.

        Raises:
            UsageError: if ``url`` is none.
            NetworkError: if the server does not answer, has no such object, or sends it
                only whole.
        """
        reader = RangeReader(Address.parse(url), policy=policy, tls=tls)
        try:
            size, first = reader.probe(BLOCK_BYTES)
        except BaseException:
            reader.close()
            raise
        storage = cls(reader, size)
        if first:
            storage._cache.put(0, first)
        return storage

    @property
    def name(self) -> str:
        """The URL, without password and query."""
        return self._reader.name

    @property
    def size(self) -> int:
        """Of the object, in bytes."""
        return self._size

    @property
    def traits(self) -> Traits:
        """A server does not tell of blocks."""
        return Traits(grain=4096)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            NetworkError: if the server fails, or the object has changed.
        """
        length = len(buffer)
        end = offset + length
        if end > self._size:
            raise TruncatedImageError(
                f"expected {length} bytes at 0x{offset:x}, found a size of {self._size}",
                name=self.name,
                offset=offset,
                length=length,
            )
        self._cache.readinto(buffer, offset)

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
