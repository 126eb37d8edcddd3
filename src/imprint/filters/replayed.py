"""A volume as it is once its journal is replayed: nothing is written, and little is kept."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from imprint.core.extent import Extent, Kind, check_range, coalesce
from imprint.core.units import div_up
from imprint.filters.over import OverSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imprint.core.contracts import Source


class Replayed(OverSource):
    """Reads a block from elsewhere where the journal has it otherwise than the disk.

    It does not own the source. As thread-safe as it is, since the blocks never change. Of a block
    that the journal has, what lies in its place on the disk is never read.
    """

    def __init__(
        self,
        source: Source,
        unit: int,
        *,
        moved: Mapping[int, int] | None = None,
        begun: Mapping[int, bytes] | None = None,
        held: Mapping[int, bytes] | None = None,
    ) -> None:
        """Blocks are counted in ``unit`` bytes from the start of the source, and all inside of it.

        Args:
            source: the volume.
            unit: of a block, in bytes.
            moved: where in the source the copy of a block begins, in bytes.
            begun: how some of these begin, in place of what the copy begins with.
            held: blocks that are in memory; they count before ``moved``.
        """
        super().__init__(source)
        self._unit = unit
        self._begun = begun or {}
        self._held = held or {}
        # Two numbers a block: there may be half a million of them.
        places = moved or {}
        self._blocks = array("Q", sorted(places.keys() | self._held.keys()))
        self._places = array("Q", (places.get(block, 0) for block in self._blocks))

    @property
    def source(self) -> Source:
        """The volume as it is on the disk."""
        return self._source

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        end = offset + len(buffer)
        check_range(offset, len(buffer), size=self.size, name=self.name)
        position = offset
        for index in self._within(offset, end):
            first = self._blocks[index] * self._unit
            start, stop = max(offset, first), min(end, first + self._unit)
            if start > position:
                self._source.readinto(buffer[position - offset : start - offset], position)
            self._fill(buffer[start - offset : stop - offset], index, start - first)
            position = stop
        if position < end:
            self._source.readinto(buffer[position - offset :], position)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source; what the journal has is to be read from here."""
        return coalesce(self._extents(offset, offset + length))

    def close(self) -> None:
        """The source belongs to somebody else."""

    def _within(self, offset: int, end: int) -> range:
        """Indices of the blocks that touch a range."""
        first = bisect_left(self._blocks, offset // self._unit)
        return range(first, bisect_left(self._blocks, div_up(end, self._unit), first))

    def _fill(self, buffer: memoryview, index: int, skipped: int) -> None:
        """With what a block has behind so many bytes."""
        block = self._blocks[index]
        held = self._held.get(block)
        if held is not None:
            buffer[:] = held[skipped : skipped + len(buffer)]
            return
        self._source.readinto(buffer, self._places[index] + skipped)
        begin = self._begun.get(block, b"")[skipped : skipped + len(buffer)]
        buffer[: len(begin)] = begin

    def _extents(self, offset: int, end: int) -> Iterator[Extent]:
        position = offset
        for index in self._within(offset, end):
            first = self._blocks[index] * self._unit
            start, stop = max(offset, first), min(end, first + self._unit)
            if start > position:
                yield from self._source.extents(position, start - position)
            yield Extent(start, stop - start, Kind.ENCODED)
            position = stop
        if position < end:
            yield from self._source.extents(position, end - position)
