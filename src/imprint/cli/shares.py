"""How much of each part of a disk is data, zeros, unused or unreadable."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint.core.extent import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.extent import Extent


@dataclass(frozen=True)
class Share:
    """What a part of a disk is made of, in bytes; the rest of ``length`` is holes."""

    length: int
    data: int
    zero: int
    bad: int
    unused: int = 0

    @property
    def hole(self) -> int:
        """The rest."""
        return self.length - self.data - self.zero - self.bad - self.unused


class Shares:
    """Sums over a disk's extents between places that are known beforehand.

    The extents are read once and not kept: a disk may have millions.
    """

    def __init__(self, borders: Iterable[int], extents: Iterable[Extent]) -> None:
        """``borders`` are the offsets between which sums will be asked for."""
        self._borders = sorted(set(borders))
        segments = max(0, len(self._borders) - 1)
        counts = {kind: [0] * segments for kind in (Kind.DATA, Kind.ZERO, Kind.BAD, Kind.UNUSED)}
        counts[Kind.ENCODED] = counts[Kind.DATA]
        for extent in extents:
            sums = counts.get(extent.kind)
            if sums is not None:
                self._add(sums, extent.offset, extent.end)
        self._sums = {
            kind: list(itertools.accumulate(sums, initial=0)) for kind, sums in counts.items()
        }

    def between(self, start: int, end: int) -> Share:
        """Of ``[start, end)``; both have to be borders."""
        first = bisect.bisect_left(self._borders, start)
        last = bisect.bisect_left(self._borders, end)
        data, zero, bad, unused = (
            self._sums[kind][last] - self._sums[kind][first]
            for kind in (Kind.DATA, Kind.ZERO, Kind.BAD, Kind.UNUSED)
        )
        return Share(end - start, data, zero, bad, unused)

    def _add(self, counts: list[int], start: int, end: int) -> None:
        index = max(0, bisect.bisect_right(self._borders, start) - 1)
        while index < len(counts) and self._borders[index] < end:
            first = max(start, self._borders[index])
            last = min(end, self._borders[index + 1])
            counts[index] += max(0, last - first)
            index += 1
