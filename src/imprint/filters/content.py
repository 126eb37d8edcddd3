"""A source as a storage: a file in the file system of a disk, which may be an image itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.extent import Extent, Kind
from imprint.filters.over import OverSource
from imprint.filters.readonly import ReadOnlyStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source

_NOTHING = (Kind.HOLE, Kind.ZERO, Kind.UNUSED)


class ContentStorage(OverSource, ReadOnlyStorage):
    """The bytes of a source; for reading only. As thread-safe as the source, which it owns."""

    def __init__(self, source: Source, *, name: str, on_close: Callable[[], None]) -> None:
        """``name`` is what errors call it; ``on_close`` closes what the source is read from."""
        super().__init__(source)
        self._name = name
        self._on_close = on_close

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def stored_size(self) -> int:
        """What is no hole."""
        found = self.extents(0, self.size)
        return sum(item.length for item in found if item.kind is Kind.DATA)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._source.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data, which leads to this storage, and holes."""
        for item in self._source.extents(offset, length):
            if item.kind in _NOTHING:
                yield Extent(item.offset, item.length, Kind.HOLE)
            else:
                yield Extent(item.offset, item.length, Kind.DATA, self, item.offset)

    def close(self) -> None:
        """Close the source, and what it is read from."""
        self._source.close()
        self._on_close()
