"""Objects on web servers, read by ranges: nothing is downloaded that is not asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, Self

from imprint.core.contracts import Traits
from imprint.core.errors import TruncatedImageError
from imprint.core.units import KIB, MIB
from imprint.filters.readonly import ReadOnlyStorage
from imprint.storage.http_address import Address
from imprint.storage.http_ranges import RangeReader

if TYPE_CHECKING:
    import ssl

    from imprint.storage.http_ranges import HttpPolicy

BLOCK_BYTES: Final = 256 * KIB
"""What a small read fetches: a request costs as much time as some 100 KiB do."""

CACHE_BYTES: Final = 16 * MIB
"""Blocks that are kept: tables of images are read in small steps, and again."""


class HttpStorage(ReadOnlyStorage):
    """An object behind an HTTP or HTTPS URL; read-only.

    Reads of a block and more go straight to the server, smaller ones through a cache. Each
    reading thread has a connection to itself, which is kept for the next read.
    """

    def __init__(self, reader: RangeReader, size: int) -> None:
        """Takes over ``reader``; use :meth:`open`."""
        self._reader = reader
        self._size = size
        self._cache = _BlockCache()

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
            future, _ = storage._cache.claim(0)
            future.set_result(first)
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
        if length >= BLOCK_BYTES:
            self._reader.readinto(buffer, offset)
            return
        position = offset
        while position < end:
            index, within = divmod(position, BLOCK_BYTES)
            part = self._block(index)[within : within + end - position]
            buffer[position - offset : position - offset + len(part)] = part
            position += len(part)

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()

    def _block(self, index: int) -> memoryview:
        future, is_ours = self._cache.claim(index)
        if is_ours:
            start = index * BLOCK_BYTES
            block = bytearray(min(BLOCK_BYTES, self._size - start))
            try:
                self._reader.readinto(memoryview(block), start)
            except BaseException as error:
                self._cache.forget(index)
                future.set_exception(error)
                raise
            future.set_result(bytes(block))
        return memoryview(future.result())


class _BlockCache:
    """Blocks by their index; of threads that want the same one, one fetches it."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def claim(self, index: int) -> tuple[Future[bytes], bool]:
        """The block's future, and whether the caller has to fulfil it."""
        with self._lock:
            future = self._blocks.get(index)
            if future is not None:
                self._blocks.move_to_end(index)
                return future, False
            future = self._blocks[index] = Future()
            while len(self._blocks) > CACHE_BYTES // BLOCK_BYTES:
                self._blocks.popitem(last=False)
            return future, True

    def forget(self, index: int) -> None:
        """Let the next one try again."""
        with self._lock:
            self._blocks.pop(index, None)
