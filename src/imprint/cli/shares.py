"""How much of each part of a disk is data, zeros or unreadable."""

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


class Shares:
    """Sums over a disk's extents between places that are known beforehand.

    The extents are read once and not kept: a disk may have millions.
    """

    def __init__(self, borders: Iterable[int], extents: Iterable[Extent]) -> None:
        """``borders`` are the offsets between which sums will be asked for."""
        self._borders = sorted(set(borders))
        segments = max(0, len(self._borders) - 1)
        data, zero, bad = [0] * segments, [0] * segments, [0] * segments
        sums = {Kind.DATA: data, Kind.ENCODED: data, Kind.ZERO: zero, Kind.BAD: bad}
        for extent in extents:
            counts = sums.get(extent.kind)
            if counts is not None:
                self._add(counts, extent.offset, extent.end)
        self._data, self._zero, self._bad = (
            list(itertools.accumulate(counts, initial=0)) for counts in (data, zero, bad)
        )

    def between(self, start: int, end: int) -> Share:
        """Of ``[start, end)``; both have to be borders."""
        first = bisect.bisect_left(self._borders, start)
        last = bisect.bisect_left(self._borders, end)
        return Share(
            end - start,
            self._data[last] - self._data[first],
            self._zero[last] - self._zero[first],
            self._bad[last] - self._bad[first],
        )

    def _add(self, counts: list[int], start: int, end: int) -> None:
        index = max(0, bisect.bisect_right(self._borders, start) - 1)
        while index < len(counts) and self._borders[index] < end:
            first = max(start, self._borders[index])
            last = min(end, self._borders[index + 1])
            counts[index] += max(0, last - first)
            index += 1
