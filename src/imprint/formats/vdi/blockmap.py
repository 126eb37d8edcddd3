"""The block map: which slot of the file holds each block of the disk.

It is read once, whole; lookups touch no storage. Changes are written back by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from imprint.core.tables import PagedTable, read_table
from imprint.formats.vdi.layout import BLOCK_ZERO

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from imprint.core.contracts import Storage
    from imprint.formats.vdi.layout import Header


class BlockMap(PagedTable):
    """One entry for each block: a slot, ``BLOCK_ABSENT`` or ``BLOCK_ZERO``."""

    def __init__(self, slots: array[int]) -> None:
        super().__init__(slots, "little")

    @classmethod
    def load(cls, storage: Storage, header: Header) -> Self:
        """Read the map that a checked header describes."""
        return cls(read_table(storage, header.map_offset, header.block_count, "I", "little"))

    def alike(self, index: int, limit: int) -> int:
        """How many entries from ``index`` on, at most ``limit``, go on as the first begins.

        That is: lie in consecutive slots, or are all absent, or all zero.
        """
        return self.run(index, limit, step=1 if self.entries[index] < BLOCK_ZERO else 0)

    def used_slots(self) -> Iterable[tuple[int, int]]:
        """Index and slot of all blocks that have one, in the disk's order."""
        return ((index, slot) for index, slot in enumerate(self.entries) if slot < BLOCK_ZERO)
