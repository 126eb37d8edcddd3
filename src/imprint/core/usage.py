"""What checks of image files have in common: places that are used twice, and long lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.events import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Storage

FINDINGS_MAX: Final = 1000
"""Errors that are named one by one; a table of garbage would name millions."""

UNITS_MAX: Final = 1 << 27
"""Units of a file that are told apart, a byte for each: 128 MiB; 8 TiB in clusters of 64 KiB."""


class Usage:
    """Which units of a file are in use, so that none is given away twice."""

    def __init__(self, storage: Storage, unit: int) -> None:
        """``unit``, in bytes, is what the file is given away by.

        Raises:
            UnsupportedFeatureError: if the file has more than ``UNITS_MAX`` of them.
        """
        self._unit = unit
        self._size = storage.size
        count = -(-storage.size // unit)
        if count > UNITS_MAX:
            raise UnsupportedFeatureError(
                f"is too large to be checked: expected at most {UNITS_MAX} units, found {count}",
                name=storage.name,
            )
        self._units = bytearray(count)
        self._from = 0  # nothing is free before it

    @property
    def free(self) -> int:
        """How many units nothing uses."""
        return self._units.count(0)

    @property
    def end(self) -> int:
        """Where the last unit ends that is in use, in bytes."""
        return (self._units.rfind(1) + 1) * self._unit

    def take(self, offset: int, length: int, *, whole: bool = False) -> str | None:
        """Use a range of the file; what is wrong with it, if anything is.

        Its first unit has to be in the file, with ``whole`` all of it has.
        """
        unit = self._unit
        if offset % unit:
            return f"expected an offset in whole units of {unit} bytes, found 0x{offset:x}"
        if offset + (length if whole else 1) > self._size:
            return f"expected a place inside the file, found 0x{offset:x}"
        first = offset // unit
        last = min(first - (-length // unit), len(self._units))
        is_free = self._units.find(1, first, last) < 0
        self._units[first:last] = b"\1" * (last - first)
        if is_free:
            return None
        return f"expected a place of its own, found 0x{offset:x}, which is used twice"

    def reserve(self, count: int, *, whole: bool = False) -> tuple[int, int]:
        """Use free units in a row: the first one's offset, and how many they are.

        They are at most ``count``; with ``whole`` exactly so many.
        """
        units = self._units
        first = units.find(bytes(count) if whole else 0, self._from)
        if first < 0:
            first = units.rfind(1) + 1
        last = min(first + count, len(units))
        taken = units.find(1, first, last)
        run = count if taken < 0 else taken - first
        units[first : first + run] = b"\1" * run
        if not whole:
            self._from = first + run
        return first * self._unit, run

    def release(self, offsets: list[int]) -> list[int]:
        """Free units; those of them that still lie before the last one that is in use."""
        for offset in offsets:
            self._units[offset // self._unit] = 0
            self._from = min(self._from, offset // self._unit)
        end = self.end
        return [offset for offset in offsets if offset < end]


def findings(problems: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Errors, as where and what; beyond ``FINDINGS_MAX`` they are only counted."""
    count = 0
    for where, what in problems:
        count += 1
        if count <= FINDINGS_MAX:
            yield Finding(Severity.ERROR, where, what)
    if count > FINDINGS_MAX:
        yield Finding(Severity.ERROR, "in all", f"and {count - FINDINGS_MAX} more of the kind")
