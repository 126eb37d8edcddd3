"""Sets of bytes of a disk, as the runs that they are made of.

What file systems use of a disk is such a set: a terabyte may have millions of runs. They are
kept as two arrays, and united, cut and complemented by functions that loop in C.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from itertools import chain, compress, islice
from operator import gt, sub
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Runs:
    """A set of whole numbers from 0 on, usually offsets in bytes; it is never changed.

    Its runs are ascending, and there is room between each two: what touches is one run.

    Attributes:
        starts: the first number of each run.
        ends: the first number behind each run.

    >>> used = Runs.of([(4, 4), (0, 2), (6, 4)])
    >>> list(used)
    [(0, 2), (4, 6)]
    >>> list(used.complement(12))
    [(2, 2), (10, 2)]
    """

    __slots__ = ("ends", "starts")

    def __init__(self, starts: array[int], ends: array[int]) -> None:
        """Take arrays of type ``Q`` that hold what the class promises: see :meth:`of`."""
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int]]) -> Runs:
        """The union of ``(start, length)``, in any order; they may overlap, or be empty."""
        pairs = [run for run in runs if run[1] > 0]
        return _united([run[0] for run in pairs], [run[0] + run[1] for run in pairs])

    @classmethod
    def whole(cls, size: int) -> Runs:
        """All from 0 up to ``size``."""
        return cls.of([(0, size)])

    @classmethod
    def union(cls, sets: Iterable[Runs]) -> Runs:
        """What is in any of them."""
        sets = list(sets)
        return _united(
            list(chain.from_iterable(item.starts for item in sets)),
            list(chain.from_iterable(item.ends for item in sets)),
        )

    @property
    def total(self) -> int:
        """How many numbers there are in the set."""
        return sum(map(sub, self.ends, self.starts))

    @property
    def end(self) -> int:
        """The first number behind the last run; 0 if there is none."""
        return self.ends[-1] if self.ends else 0

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """``(start, length)`` of each run, ascending."""
        return zip(self.starts, map(sub, self.ends, self.starts), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return self.starts == other.starts and self.ends == other.ends

    def __hash__(self) -> int:
        return hash((self.starts.tobytes(), self.ends.tobytes()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{start}+{length}" for start, length in islice(self, 4))
        more = f", … {len(self)} in all" if len(self) > 4 else ""  # noqa: PLR2004 - for people
        return f"Runs({shown}{more})"

    def __or__(self, other: Runs) -> Runs:
        return Runs.union((self, other))

    def __and__(self, other: Runs) -> Runs:
        size = max(self.end, other.end)
        return (self.complement(size) | other.complement(size)).complement(size)

    def __sub__(self, other: Runs) -> Runs:
        return self & other.complement(max(self.end, other.end))

    def digest(self) -> str:
        """The same for the same set, and in practice for no other."""
        state = hashlib.sha256(self.starts.tobytes())
        state.update(self.ends.tobytes())
        return state.hexdigest()

    def covers(self, start: int, length: int) -> bool:
        """Whether all of ``[start, start + length)`` is in the set."""
        if length <= 0:
            return True
        index = bisect_right(self.starts, start) - 1
        return index >= 0 and start + length <= self.ends[index]

    def complement(self, size: int) -> Runs:
        """What is not in the set, below ``size``."""
        inside = self.clip(0, size)
        starts = array("Q", [0]) + inside.ends
        ends = inside.starts + array("Q", [size])
        first = 1 if ends[0] == 0 else 0
        last = len(ends) - 1 if starts[-1] >= size else len(ends)
        return Runs(starts[first:last], ends[first:last])

    def clip(self, start: int, end: int) -> Runs:
        """What is in ``[start, end)``."""
        first = bisect_right(self.ends, start)
        last = bisect_left(self.starts, end)
        if first >= last:
            return Runs(array("Q"), array("Q"))
        starts, ends = self.starts[first:last], self.ends[first:last]
        starts[0] = max(starts[0], start)
        ends[-1] = min(ends[-1], end)
        return Runs(starts, ends)

    def scaled(self, unit: int) -> Runs:
        """With a run of ``unit`` numbers for each number: blocks become bytes."""
        return Runs(
            array("Q", map(unit.__mul__, self.starts)), array("Q", map(unit.__mul__, self.ends))
        )

    def shifted(self, distance: int) -> Runs:
        """Each number plus ``distance``, which may be negative if all stay 0 or above."""
        return Runs(
            array("Q", map(distance.__add__, self.starts)),
            array("Q", map(distance.__add__, self.ends)),
        )

    def widened(self, unit: int) -> Runs:
        """All whole units, counted from 0, of which any part is in the set."""
        return _united(
            [start - start % unit for start in self.starts],
            [end + -end % unit for end in self.ends],
        )

    def narrowed(self, unit: int) -> Runs:
        """All whole units, counted from 0, that are in the set as a whole."""
        pairs = (
            (start + -start % unit, end - end % unit)
            for start, end in zip(self.starts, self.ends, strict=True)
        )
        return Runs.of((start, end - start) for start, end in pairs)


def _united(starts: list[int], ends: list[int]) -> Runs:
    """The union of runs whose starts and ends are given in any order.

    Sorted, each on its own, the starts and ends tell where no run is open: before the start
    with index i if, and only if, all i runs before it have ended. Lists that are ascending in
    parts, as those of several sets are, sort in linear time.
    """
    if not starts:
        return Runs(array("Q"), array("Q"))
    starts.sort()
    ends.sort()
    is_gap = list(map(gt, islice(starts, 1, None), ends))
    first = array("Q", starts[:1])
    first.extend(compress(islice(starts, 1, None), is_gap))
    last = array("Q", compress(ends, is_gap))
    last.append(ends[-1])
    return Runs(first, last)
