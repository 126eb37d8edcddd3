"""Unions of very many sets, with a bound on the time and memory that they take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import runs_of_bits
from imprint.core.runs import Runs
from imprint.filesystems.clusters import folded, is_zero

if TYPE_CHECKING:
    from imprint.core.bitmap import Buffer

RUN_COUNT_MAX: Final = 1 << 20
"""Of a map. Beyond, small gaps are kept, so that memory is bounded: 16 MiB, more for a union."""

_WORD_BYTES: Final = 8
_REVERSED: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_SET: Final = re.compile(rb"[^\0]+")


class CollectedRuns:
    """A union of sets that keeps its number of runs bounded, by closing small gaps if it must."""

    def __init__(self) -> None:
        self._parts: list[Runs] = []
        self._count = 0
        self._unit = 1

    @property
    def is_coarse(self) -> bool:
        """Whether small gaps are closed by now."""
        return self._unit > 1

    def add(self, runs: Runs) -> None:
        """Add a set."""
        self._parts.append(runs.widened(self._unit) if self._unit > 1 else runs)
        self._count += len(self._parts[-1])
        if self._count > RUN_COUNT_MAX:
            self._close_gaps()

    def add_bits(self, bits: Buffer, first: int, bit_count: int, *, lsb_first: bool = True) -> None:
        """Add what is set of the first bits; ``first`` is what bit 0 means.

        If these were too many runs, all of 64 bits is added where one is set: bits at random
        would take half a minute for each TiB.
        """
        if is_zero(bytes(bits)):
            return
        if not lsb_first:
            bits = bytes(bits).translate(_REVERSED)
        number = int.from_bytes(bits, "little")
        if self._count + (number & ~(number << 1)).bit_count() <= RUN_COUNT_MAX:
            runs = Runs.of(runs_of_bits(bits, 0, bit_count))
        else:
            words = folded(*(bytes(bits[at::_WORD_BYTES]) for at in range(_WORD_BYTES)))
            spans = (match.span() for match in _SET.finditer(words))
            runs = Runs.of((start, end - start) for start, end in spans)
            runs = runs.scaled(8 * _WORD_BYTES).clip(0, bit_count)
        self.add(runs.shifted(first))

    def _close_gaps(self) -> None:
        """Make one set of all, with half as many runs as there may be, so that it lasts."""
        united = Runs.union(self._parts)
        while len(united) > max(1, RUN_COUNT_MAX // 2):
            self._unit *= 4
            united = united.widened(self._unit)
        self._parts, self._count = [united], len(united)

    def runs(self) -> Runs:
        """All that was added, and perhaps more."""
        return Runs.union(self._parts)
