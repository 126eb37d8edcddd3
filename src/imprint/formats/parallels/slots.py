"""Slots: the places for clusters behind the table, and which of them are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.units import div_up
from imprint.formats.parallels.layout import BAT_ENTRIES_MAX

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.parallels.layout import Header

SLOT_COUNT_MAX: Final = BAT_ENTRIES_MAX
"""Slots that may be told apart, at a byte each."""


class Slots:
    """Which slots of a file are taken.

    Attributes:
        base: where slot 0 begins in the file, in bytes.
        taken: a byte for each slot, 0 for a free one.
    """

    def __init__(self, storage: Storage, header: Header) -> None:
        self.base = header.data_offset
        self._size = header.cluster_size
        self._unit_bytes = header.unit_bytes
        in_file = max(0, div_up(storage.size - self.base, self._size))
        self.taken = bytearray(min(in_file, SLOT_COUNT_MAX))

    def position(self, slot: int) -> int:
        """Where a slot begins in the file, in bytes."""
        return self.base + slot * self._size

    def entry(self, slot: int) -> int:
        """What the table has for a cluster in this slot."""
        return self.position(slot) // self._unit_bytes

    def slot(self, entry: int) -> int:
        """The slot of an entry that :meth:`take` has let pass."""
        return (entry * self._unit_bytes - self.base) // self._size

    @property
    def end(self) -> int:
        """Where the last slot ends in the file."""
        return self.position(len(self.taken))

    def take(self, entry: int) -> str | None:
        """Mark an entry's slot as taken; what is wrong with it, or ``None``."""
        slot, rest = divmod(entry * self._unit_bytes - self.base, self._size)
        where = f"0x{entry * self._unit_bytes:x}"
        if slot < 0:
            return f"expected a cluster behind 0x{self.base:x}, found {where}"
        if slot >= len(self.taken):
            return f"expected a cluster inside the file, found {where}"
        if rest:
            return f"expected whole clusters from 0x{self.base:x} on, found {where}"
        if self.taken[slot]:
            return f"expected a place of its own, found {where}, which another cluster has"
        self.taken[slot] = 1
        return None

    def take_all(self, bat: array[int]) -> Iterator[tuple[int, str]]:
        """Take what a table names: index and problem of each entry that has one."""
        for index, entry in enumerate(bat):
            if entry:
                problem = self.take(entry)
                if problem is not None:
                    yield index, problem

    def reserve(self, count: int) -> tuple[int, int]:
        """The first of at most ``count`` free slots in a row, and how many they are."""
        first = self.taken.find(0)
        if first < 0:
            first = len(self.taken)
            self.taken.extend(bytes(count))
        run = 1
        while run < count and first + run < len(self.taken) and not self.taken[first + run]:
            run += 1
        self.taken[first : first + run] = b"\1" * run
        return first, run

    def release(self, slots: list[int]) -> list[int]:
        """Free slots; those of them that still lie before the last one that is taken."""
        for slot in slots:
            self.taken[slot] = 0
        del self.taken[self.taken.rfind(1) + 1 :]
        return [slot for slot in slots if slot < len(self.taken)]


def table_room(base: int, header_size: int) -> int:
    """How many entries fit in front of slot 0."""
    return (base - header_size) // 4
