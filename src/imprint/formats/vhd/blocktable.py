"""The block table: at which sector of the file each block begins.

It is read once, whole; lookups touch no storage. Changes are written back by page.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Self

from imprint.core.tables import PagedTable, read_table
from imprint.formats.vhd.layout import BLOCK_ABSENT, SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Storage
    from imprint.formats.vhd.layout import Header


class BlockTable(PagedTable):
    """One entry for each block: a sector number or ``BLOCK_ABSENT``."""

    def __init__(self, sectors: array[int]) -> None:
        super().__init__(sectors, "big")

    @classmethod
    def load(cls, storage: Storage, header: Header) -> Self:
        """Read the table that a checked header describes."""
        return cls(read_table(storage, header.table_offset, header.table_entries, "I", "big"))

    @classmethod
    def absent(cls, count: int) -> Self:
        """The table of an empty disk."""
        return cls(array("I", [BLOCK_ABSENT]) * count)

    def start(self, index: int) -> int | None:
        """Where a block begins in the file, in bytes; ``None`` if it is absent."""
        sector = self.entries[index]
        return None if sector == BLOCK_ABSENT else sector * SECTOR_BYTES

    def set_start(self, index: int, start: int | None) -> None:
        """Change one entry; ``start`` is in bytes."""
        self.set(index, BLOCK_ABSENT if start is None else start // SECTOR_BYTES)

    def used(self) -> Iterable[tuple[int, int]]:
        """Index and start in the file, in bytes, of all blocks that are present."""
        return (
            (index, sector * SECTOR_BYTES)
            for index, sector in enumerate(self.entries)
            if sector != BLOCK_ABSENT
        )
