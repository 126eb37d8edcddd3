"""A disk whose chunks are taken from several others in turn: striped volumes, RAID 0."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from imprint.core.extent import check_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source, Traits
    from imprint.core.extent import Extent


class Stripes:
    """A source over columns that it does not own. Thread-safe as they."""

    def __init__(self, name: str, columns: Sequence[Source], chunk: int) -> None:
        """``columns`` are equally long, whole chunks of ``chunk`` bytes."""
        assert chunk > 0
        assert len({column.size for column in columns}) == 1
        assert columns[0].size % chunk == 0
        self._name = name
        self._columns = tuple(columns)
        self._chunk = chunk

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._columns[0].size * len(self._columns)

    @property
    def traits(self) -> Traits:
        """Of the first column, the grain no coarser than a chunk."""
        traits = self._columns[0].traits
        return replace(traits, grain=math.gcd(traits.grain, self._chunk))

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        for start, length, column, place in self._within(offset, len(buffer)):
            part = buffer[start - offset : start - offset + length]
            self._columns[column].readinto(part, place)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the columns."""
        for start, part_length, column, place in self._within(offset, length):
            for extent in self._columns[column].extents(place, part_length):
                yield extent._replace(offset=extent.offset - place + start)

    def close(self) -> None:
        """The columns belong to somebody else."""

    def _within(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Start, length, column and place in it of what a range is made of."""
        end = offset + length
        check_range(offset, length, size=self.size, name=self._name)
        while offset < end:
            index, inside = divmod(offset, self._chunk)
            row, column = divmod(index, len(self._columns))
            part_length = min(self._chunk - inside, end - offset)
            yield offset, part_length, column, row * self._chunk + inside
            offset += part_length
