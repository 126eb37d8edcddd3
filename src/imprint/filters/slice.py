"""A part of a storage as a storage of its own: a file inside an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import TruncatedImageError
from imprint.filters.readonly import ReadOnlyStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage, Traits
    from imprint.core.extent import Extent


class SliceStorage(ReadOnlyStorage):
    """The bytes ``[offset, offset + length)`` of another storage; for reading only.

    As thread-safe as the storage, which it owns: closing the slice closes it. Its extents
    lead to the storage itself.
    """

    def __init__(self, storage: Storage, offset: int, length: int, *, name: str) -> None:
        """``name`` is what errors call it.

        Raises:
            TruncatedImageError: if the range is not wholly inside the storage.
        """
        if offset < 0 or length < 0 or offset + length > storage.size:
            raise TruncatedImageError(
                f"expected the range {offset} + {length} inside the file, "
                f"found a file of {storage.size} bytes",
                name=name,
                offset=offset,
                length=length,
            )
        self._storage = storage
        self._offset = offset
        self._size = length
        self._name = name

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def traits(self) -> Traits:
        """Of the storage."""
        return self._storage.traits

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        if offset < 0 or offset + len(buffer) > self._size:
            raise TruncatedImageError(
                f"expected {len(buffer)} bytes at 0x{offset:x}, found the end at 0x{self._size:x}",
                name=self._name,
                offset=offset,
                length=len(buffer),
            )
        self._storage.readinto(buffer, self._offset + offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the storage, counted from the slice's start."""
        for extent in self._storage.extents(self._offset + offset, length):
            yield extent._replace(offset=extent.offset - self._offset)

    def close(self) -> None:
        """Of the storage."""
        self._storage.close()
