"""What has been tried of a medium, byte by byte, as the runs that this makes."""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from imprint.core.runs import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator


class State(enum.Enum):
    """How far the rescue of an area is; the values are those of map files.

    Source: the GNU ddrescue manual, chapter "Mapfile structure".
    """

    UNTRIED = "?"
    """Not read yet."""
    UNTRIMMED = "*"
    """A read of more than a sector failed: its edges have not been looked for."""
    UNSCRAPED = "/"
    """Lies between two bad sectors: its sectors have not been tried one by one."""
    BAD = "-"
    """A read of this sector alone failed."""
    GOOD = "+"
    """Read, and stored."""


class Areas:
    """The state of each byte of a medium. For one thread.

    Neighbours of the same state are one run. Finding and changing take the logarithm of the
    number of runs, and moving the tables by one.
    """

    def __init__(self, size: int) -> None:
        """Nothing of ``size`` bytes has been tried."""
        self._size = size
        self._starts = [0] if size else []
        self._states = [State.UNTRIED] if size else []
        self._totals = dict.fromkeys(State, 0)
        self._totals[State.UNTRIED] = size

    @property
    def size(self) -> int:
        """Of the medium, in bytes."""
        return self._size

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int, State]]:
        """``(start, length, state)`` of each run, ascending."""
        for index, (start, state) in enumerate(zip(self._starts, self._states, strict=True)):
            yield start, self._end(index) - start, state

    def total(self, *states: State) -> int:
        """How many bytes are in any of these states."""
        return sum(self._totals[state] for state in states)

    def runs(self, *states: State) -> Runs:
        """Which bytes are in any of these states."""
        return Runs.of((start, length) for start, length, state in self if state in states)

    def set(self, start: int, end: int, state: State) -> None:
        """Change the state of ``[start, end)``, which has to lie inside the medium."""
        if start >= end:
            return
        assert 0 <= start < end <= self._size
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, end)
        for index in range(first, last):
            changed = min(end, self._end(index)) - max(start, self._starts[index])
            self._totals[self._states[index]] -= changed
        self._totals[state] += end - start
        after = self._states[last - 1] if self._end(last - 1) > end else None
        pieces = []
        if self._starts[first] < start:
            pieces.append((self._starts[first], self._states[first]))
        elif first:
            first -= 1
            pieces.append((self._starts[first], self._states[first]))
        if not pieces or pieces[-1][1] is not state:
            pieces.append((start, state))
        if after is not None:
            if after is not state:
                pieces.append((end, after))
        elif last < len(self._starts) and self._states[last] is state:
            last += 1
        self._starts[first:last] = [piece[0] for piece in pieces]
        self._states[first:last] = [piece[1] for piece in pieces]

    def within(self, start: int, end: int) -> list[tuple[int, int, State]]:
        """``(start, end, state)`` of what ``[start, end)`` is made of."""
        first = max(0, bisect_right(self._starts, start) - 1)
        last = bisect_left(self._starts, end)
        return [
            (max(start, self._starts[index]), min(end, self._end(index)), self._states[index])
            for index in range(first, last)
        ]

    def next(self, state: State, start: int, end: int) -> tuple[int, int] | None:
        """The first part of ``[start, end)`` in a state, as ``(start, end)``."""
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self._starts) and self._starts[index] < end:
            if self._states[index] is state:
                return max(start, self._starts[index]), min(end, self._end(index))
            index += 1
        return None

    def previous(self, state: State, start: int, end: int) -> tuple[int, int] | None:
        """The last part of ``[start, end)`` in a state, as ``(start, end)``."""
        index = bisect_left(self._starts, end) - 1
        while index >= 0 and self._end(index) > start:
            if self._states[index] is state:
                return max(start, self._starts[index]), min(end, self._end(index))
            index -= 1
        return None

    def _end(self, index: int) -> int:
        return self._starts[index + 1] if index + 1 < len(self._starts) else self._size


def find(
    areas: Areas, state: State, domain: Runs, position: int, *, forward: bool
) -> tuple[int, int] | None:
    """The next part of ``domain`` in a state, from ``position`` on, as ``(start, end)``.

    Args:
        areas: of the medium.
        state: that is looked for.
        domain: what counts.
        position: where to begin: forward the first byte, backward the first one behind.
        forward: the direction.
    """
    if forward:
        for index in range(bisect_right(domain.ends, position), len(domain)):
            start = max(position, domain.starts[index])
            found = areas.next(state, start, domain.ends[index])
            if found is not None:
                return found
        return None
    for index in range(bisect_left(domain.starts, position) - 1, -1, -1):
        end = min(position, domain.ends[index])
        found = areas.previous(state, domain.starts[index], end)
        if found is not None:
            return found
    return None
