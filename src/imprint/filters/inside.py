"""A volume inside of a disk, which it keeps open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.filters.over import OverSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent


class Inside(OverSource):
    """A source that is read from a disk through others, and owns the disk: closing closes it.

    As thread-safe as the volume.
    """

    def __init__(self, volume: Source, disk: Source, *, name: str) -> None:
        """``name`` is what errors call it."""
        super().__init__(volume)
        self._disk = disk
        self._name = name

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def source(self) -> Source:
        """The disk that the volume is on."""
        return self._disk

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._source.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the volume."""
        return self._source.extents(offset, length)

    def close(self) -> None:
        """Close the disk."""
        self._disk.close()
