"""A partial copy of a medium, with the knowledge of what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.buffers import fill_zero
from imprint.core.extent import Extent, Kind
from imprint.filters.over import OverSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs


class Mapped(OverSource):
    """A source of which parts are ``BAD``; also :class:`~imprint.core.contracts.Salvage`.

    As thread-safe as the source, which it owns.
    """

    def __init__(
        self,
        source: Source,
        missing: Runs,
        *,
        untried: Runs | None = None,
        is_filled: bool = False,
        size: int | None = None,
    ) -> None:
        """Args as follows.

        Args:
            source: the copy.
            missing: what it lacks, in its bytes.
            untried: of it, what nobody has tried to read: a hole, and not bad.
            is_filled: what lies in its place is wanted, and not zeros.
            size: of the medium, if the copy ends before it: the rest is ``missing`` as well.
        """
        super().__init__(source)
        self._missing = missing
        self._untried = untried
        self._is_filled = is_filled
        self._size = source.size if size is None else size

    @property
    def size(self) -> int:
        """Of the medium."""
        return self._size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        if self._is_filled:
            self._source.readinto(buffer, offset)
            return
        position, end = offset, offset + len(buffer)
        for start, length in self._missing.clip(offset, end):
            if start > position:
                self._source.readinto(buffer[position - offset : start - offset], position)
            position = start + length
            fill_zero(buffer[start - offset : position - offset])
        if end > position:
            self._source.readinto(buffer[position - offset :], position)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source where it has something, ``BAD`` where it lacks something."""
        if self._is_filled:
            yield from self._source.extents(offset, length)
            return
        position, end = offset, offset + length
        for start, run_length in self._missing.clip(offset, end):
            if start > position:
                yield from self._source.extents(position, start - position)
            position = start + run_length
            yield from self._lacking(start, position)
        if end > position:
            yield from self._source.extents(position, end - position)

    def bad_extents(self) -> list[Extent]:
        """What it lacks, tried or not."""
        return [Extent(start, length, Kind.BAD) for start, length in self._missing]

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _lacking(self, start: int, end: int) -> Iterator[Extent]:
        position = start
        for first, length in () if self._untried is None else self._untried.clip(start, end):
            if first > position:
                yield Extent(position, first - position, Kind.BAD)
            position = first + length
            yield Extent(first, length, Kind.HOLE)
        if end > position:
            yield Extent(position, end - position, Kind.BAD)
