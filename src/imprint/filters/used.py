"""A disk of which only a part counts: the rest reads as zeros, whatever is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from imprint.core.buffers import fill_zero
from imprint.core.extent import Extent, Kind
from imprint.filters.over import OverSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs


class UsedOnly(OverSource):
    """A source that reads as zeros where nothing is used: stale bytes there are never read.

    As thread-safe as the source, which it owns: closing it closes the source.
    """

    def __init__(self, source: Source, used: Runs) -> None:
        """``used`` is what counts, in bytes of the source."""
        super().__init__(source)
        self._used = used

    @property
    def source(self) -> Source:
        """The disk with all of its bytes."""
        return self._source

    @property
    def used(self) -> Runs:
        """What counts."""
        return self._used

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        position, end = offset, offset + len(buffer)
        for start, length in self._used.clip(offset, end):
            fill_zero(buffer[position - offset : start - offset])
            position = start + length
            self._source.readinto(buffer[start - offset : position - offset], start)
        fill_zero(buffer[position - offset :])

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source where it is used, ``UNUSED`` between."""
        position, end = offset, offset + length
        for start, run_length in self._used.clip(offset, end):
            if start > position:
                yield Extent(position, start - position, Kind.UNUSED)
            yield from self._source.extents(start, run_length)
            position = start + run_length
        if end > position:
            yield Extent(position, end - position, Kind.UNUSED)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
