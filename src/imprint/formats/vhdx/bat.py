"""The block allocation table: which place of the file holds each block of the disk.

It is read once, whole; lookups touch no storage. Behind the entries of each chunk of payload
blocks stands one for the chunk's sector bitmap, used or not.

Source: [MS-VHDX] section 2.5.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
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

DATA_RUN_MAX: Final = 4096
"""Entries that a lookup compares one by one: 0.3 ms."""


class Bat:
    """The entries, as they are in the file or will be after the next flush.

    Attributes:
        region: where the table is.
        ratio: payload blocks of a chunk.
        dirty: numbers of the pages that have changed.
    """

    def __init__(self, entries: array[int], region: Region, metadata: Metadata) -> None:
        self.region = region
        self.ratio = metadata.chunk_ratio
        self.dirty: set[int] = set()
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
        count = align_up(metadata.entry_count, PAGE_ENTRIES)
        if 8 * metadata.entry_count > region.length:
            raise CorruptImageError(
                f"BAT: expected {metadata.entry_count} entries, "
                f"found a region of {region.length} bytes",
                name=storage.name,
                offset=region.offset,
            )
        check_count(metadata)
        entries = array("Q", [0]) * count
        if count:
            storage.readinto(memoryview(entries).cast("B"), region.offset)
        if sys.byteorder == "big":
            entries.byteswap()
        return cls(entries, region, metadata)

    def __len__(self) -> int:
        return len(self._entries)

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
        slot = self.slot(block)
        self._entries[slot] = entry
        self.dirty.add(slot // PAGE_ENTRIES)

    def clear_bitmap(self, slot: int) -> None:
        """Forget a sector bitmap."""
        self._entries[slot] = 0
        self.dirty.add(slot // PAGE_ENTRIES)

    def fill(self, block: int, count: int, entry: int) -> None:
        """Change the entries of payload blocks to the same value."""
        while count:
            step = min(count, self.ratio - block % self.ratio)
            slot = self.slot(block)
            self._entries[slot : slot + step] = array("Q", [entry]) * step
            self.dirty.update(range(slot // PAGE_ENTRIES, (slot + step - 1) // PAGE_ENTRIES + 1))
            block, count = block + step, count - step

    def run(self, block: int, limit: int) -> int:
        """How many blocks, at most ``limit``, go on as the first one begins.

        That is: lie one behind the other in the file, or have the same entry. Ends with the
        chunk, which is 4 GiB of the disk at least.
        """
        slot = self.slot(block)
        limit = min(limit, self.ratio - block % self.ratio)
        entry, run = self._entries[slot], 1
        if entry & STATE_MASK not in STORED:
            return self._constant_run(slot, limit, entry)
        if entry & STATE_MASK != FULLY_PRESENT:
            return 1
        limit = min(limit, DATA_RUN_MAX)
        while run < limit and self._entries[slot + run] == entry + run * self._block_size:
            run += 1
        return run

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
            self.region.offset + SECTOR_BYTES * page: self._page(page)
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

    def to_disk(self) -> memoryview:
        """All entries as they stand in the file."""
        entries = self._entries
        if sys.byteorder == "big":
            entries = entries[:]
            entries.byteswap()
        return memoryview(entries).cast("B")

    def _page(self, page: int) -> bytes:
        piece = self._entries[page * PAGE_ENTRIES : (page + 1) * PAGE_ENTRIES]
        if sys.byteorder == "big":
            piece.byteswap()
        return piece.tobytes()

    def _constant_run(self, slot: int, limit: int, entry: int) -> int:
        """By whole pages: an empty disk of 64 TiB would take seconds entry by entry."""
        view = memoryview(self._entries).cast("B")
        pattern, run = entry.to_bytes(8, sys.byteorder) * PAGE_ENTRIES, 1
        while run < limit:
            step = min(PAGE_ENTRIES, limit - run)
            start = 8 * (slot + run)
            # ``startswith`` is memcmp; comparing views goes entry by entry.
            if not pattern.startswith(view[start : start + 8 * step]):
                break
            run += step
        stop = min(limit, run + PAGE_ENTRIES)
        while run < stop and self._entries[slot + run] == entry:
            run += 1
        return run


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
