"""The block map: which slot of the file holds each block of the disk.

It is read once, whole; lookups touch no storage. Changes are written back by page.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final, Self

from imprint.formats.vdi.layout import BLOCK_ABSENT, BLOCK_ZERO

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Storage
    from imprint.formats.vdi.layout import Header

PAGE_ENTRIES: Final = 1024
"""What is written at a time: 4 KiB, a page of most file systems."""

DATA_RUN_MAX: Final = 4096
"""Entries that a lookup compares one by one: 0.3 ms, and 4 GiB of disk."""

WRITE_PAGES_MAX: Final = 256
"""Pages in one write: 1 MiB, which is copied for it."""

_PATTERNS: Final = {
    value: value.to_bytes(4, sys.byteorder) * PAGE_ENTRIES for value in (BLOCK_ABSENT, BLOCK_ZERO)
}


class BlockMap:
    """One entry for each block: a slot, ``BLOCK_ABSENT`` or ``BLOCK_ZERO``.

    Attributes:
        slots: the entries. To change one, use :meth:`set`.
    """

    def __init__(self, slots: array[int]) -> None:
        self.slots = slots
        self._dirty: set[int] = set()

    @classmethod
    def load(cls, storage: Storage, header: Header) -> Self:
        """Read the map that a checked header describes."""
        slots = array("I", [0]) * header.block_count
        assert slots.itemsize == 4
        storage.readinto(memoryview(slots).cast("B"), header.map_offset)
        if sys.byteorder == "big":
            slots.byteswap()
        return cls(slots)

    @classmethod
    def absent(cls, count: int) -> Self:
        """The map of an empty disk."""
        return cls(array("I", [BLOCK_ABSENT]) * count)

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to write back."""
        return bool(self._dirty)

    def set(self, index: int, slot: int) -> None:
        """Change one entry."""
        self.slots[index] = slot
        self._dirty.add(index // PAGE_ENTRIES)

    def run(self, index: int, limit: int) -> int:
        """How many entries from ``index`` on, at most ``limit``, go on as the first begins.

        That is: lie in consecutive slots, or are all absent, or all zero.
        """
        slot = self.slots[index]
        if slot >= BLOCK_ZERO:
            return self._constant_run(index, limit, slot)
        slots, run = self.slots, 1
        limit = min(limit, DATA_RUN_MAX)
        while run < limit and slots[index + run] == slot + run:
            run += 1
        return run

    def used_slots(self) -> Iterable[tuple[int, int]]:
        """Index and slot of all blocks that have one, in the disk's order."""
        return ((index, slot) for index, slot in enumerate(self.slots) if slot < BLOCK_ZERO)

    def write_back(self, storage: Storage, offset: int) -> None:
        """Write what has changed; not durable until the storage is flushed."""
        pages = sorted(self._dirty)
        while pages:
            first = pages[0]
            run = 1
            limit = min(len(pages), WRITE_PAGES_MAX)
            while run < limit and pages[run] == first + run:
                run += 1
            start = first * PAGE_ENTRIES
            piece = self.slots[start : (first + run) * PAGE_ENTRIES]
            storage.write(to_disk(piece), offset + 4 * start)
            self._dirty.difference_update(pages[:run])
            del pages[:run]

    def _constant_run(self, index: int, limit: int, slot: int) -> int:
        """By whole pages: an empty disk of 32 TiB would take seconds entry by entry."""
        view = memoryview(self.slots).cast("B")
        pattern, run = _PATTERNS[slot], 1
        while run < limit:
            step = min(PAGE_ENTRIES, limit - run)
            start = 4 * (index + run)
            # ``startswith`` is memcmp; comparing views goes entry by entry.
            if not pattern.startswith(view[start : start + 4 * step]):
                break
            run += step
        stop = min(limit, run + PAGE_ENTRIES)
        while run < stop and self.slots[index + run] == slot:
            run += 1
        return run


def to_disk(slots: array[int]) -> memoryview:
    """Entries as they stand in the file."""
    if sys.byteorder == "big":
        slots = slots[:]
        slots.byteswap()
    return memoryview(slots).cast("B")
