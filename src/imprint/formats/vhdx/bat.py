"""The block allocation table: which place of the file holds each block of the disk.

It is read once, whole; lookups touch no storage. Behind the entries of each chunk of payload
blocks stands one for the chunk's sector bitmap, used or not.

Source: [MS-VHDX] section 2.5.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.tables import PagedTable, read_table
from imprint.core.units import align_up
from imprint.filters.overlay import SECTOR_BYTES
from imprint.formats.vhdx.layout import (
    ENTRY_COUNT_MAX,
    FULLY_PRESENT,
    OFFSET_MASK,
    STATE_MASK,
    STORED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.vhdx.header import Region
    from imprint.formats.vhdx.metadata import Metadata

PAGE_ENTRIES: Final = SECTOR_BYTES // 8
"""What the log takes at a time."""


class Bat:
    """The entries, as they are in the file or will be after the next flush.

    Attributes:
        region: where the table is.
        ratio: payload blocks of a chunk.
    """

    def __init__(self, entries: array[int], region: Region, metadata: Metadata) -> None:
        self.region = region
        self.ratio = metadata.chunk_ratio
        self._table = PagedTable(entries, "little")
        self._block_size = metadata.block_size
        self._count = metadata.entry_count
        self._entries = entries

    @classmethod
    def load(cls, storage: Storage, region: Region, metadata: Metadata) -> Self:
        """Read the entries of a disk.

        Raises:
            CorruptImageError: if the region is too small for them.
            UnsupportedFeatureError: if there are more than ``ENTRY_COUNT_MAX``.
        """
        if 8 * metadata.entry_count > region.length:
            raise CorruptImageError(
                f"BAT: expected {metadata.entry_count} entries, "
                f"found a region of {region.length} bytes",
                name=storage.name,
                offset=region.offset,
            )
        check_count(metadata)
        count = align_up(metadata.entry_count, PAGE_ENTRIES)
        return cls(read_table(storage, region.offset, count, "Q", "little"), region, metadata)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def dirty(self) -> set[int]:
        """Numbers of the pages that have changed."""
        return self._table.dirty

    def slot(self, block: int) -> int:
        """Which entry is that of a payload block."""
        return block + block // self.ratio

    def bitmap_slot(self, block: int) -> int:
        """Which entry is that of the sector bitmap for a payload block."""
        return (block // self.ratio + 1) * (self.ratio + 1) - 1

    def payload(self, block: int) -> int:
        """The entry of a payload block."""
        return self._entries[block + block // self.ratio]

    def bitmap(self, block: int) -> int:
        """The entry of the sector bitmap for a payload block."""
        slot = self.bitmap_slot(block)
        return self._entries[slot] if slot < len(self._entries) else 0

    def set_payload(self, block: int, entry: int) -> None:
        """Change the entry of a payload block."""
        self._table.set(self.slot(block), entry)

    def clear_bitmap(self, slot: int) -> None:
        """Forget a sector bitmap."""
        self._table.set(slot, 0)

    def fill(self, block: int, count: int, entry: int) -> None:
        """Change the entries of payload blocks to the same value."""
        while count:
            step = min(count, self.ratio - block % self.ratio)
            self._table.fill(self.slot(block), step, entry)
            block, count = block + step, count - step

    def run(self, block: int, limit: int) -> int:
        """How many blocks, at most ``limit``, go on as the first one begins.

        That is: lie one behind the other in the file, or have the same entry. Ends with the
        chunk, which is 4 GiB of the disk at least.
        """
        slot = self.slot(block)
        limit = min(limit, self.ratio - block % self.ratio)
        entry = self._entries[slot]
        if entry & STATE_MASK not in STORED:
            return self._table.run(slot, limit)
        if entry & STATE_MASK != FULLY_PRESENT:
            return 1
        return self._table.run(slot, limit, step=self._block_size)

    def stored(self, blocks: int) -> Iterator[tuple[int, int]]:
        """Block and entry of all payload blocks with a place, in the disk's order."""
        block = 0
        while block < blocks:
            entry = self.payload(block)
            if entry & STATE_MASK in STORED:
                yield block, entry
                block += 1
            else:
                block += self.run(block, blocks - block)

    def bitmaps(self, blocks: int) -> Iterator[tuple[int, int]]:
        """Slot and entry of all sector bitmaps with a place."""
        for first in range(0, blocks, self.ratio):
            entry = self.bitmap(first)
            if entry & STATE_MASK == FULLY_PRESENT:
                yield self.bitmap_slot(first), entry

    def changed_pages(self) -> dict[int, bytes]:
        """What has changed, by its offset in the file."""
        return {
            self.region.offset + SECTOR_BYTES * page: bytes(self._table.page(page))
            for page in sorted(self.dirty)
        }

    def resized(self, region: Region, metadata: Metadata) -> Bat:
        """A copy for a disk of another size; new entries are 0, and count as changed."""
        count = align_up(metadata.entry_count, PAGE_ENTRIES)
        kept = min(len(self._entries), self._count, metadata.entry_count)
        entries = self._entries[:kept]
        entries.extend(array("Q", [0]) * (count - kept))
        table = Bat(entries, region, metadata)
        if metadata.entry_count > kept:
            table.dirty.update(range(kept // PAGE_ENTRIES, count // PAGE_ENTRIES))
        return table

    def write_all(self, storage: Storage) -> None:
        """Write all entries to their region, past the log."""
        self._table.write_all(storage, self.region.offset)


def check_count(metadata: Metadata) -> None:
    """Refuse a disk with more blocks than we keep a table of.

    Raises:
        UnsupportedFeatureError: if it is so.
    """
    if metadata.entry_count > ENTRY_COUNT_MAX:
        raise UnsupportedFeatureError(
            f"BAT: expected at most {ENTRY_COUNT_MAX} entries, found {metadata.entry_count}",
            advice="larger blocks need fewer of them",
        )


def place_of(entry: int) -> int:
    """Where in the file an entry's block begins."""
    return entry & OFFSET_MASK
