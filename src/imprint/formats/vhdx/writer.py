"""Writing a VHDX: places for new blocks, and the order in which its tables change.

What is on the disk is old or new at any moment: data first, then the BAT through the log
(:mod:`~imprint.formats.vhdx.journal`). A place that the BAT no longer names is used again
only when that is durable. Blocks are always written whole, so that none that we write is here
in part; one that is gets a new place with all its bytes when it is written to.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.units import MIB, div_up
from imprint.formats.vhdx.bat import Bat, place_of
from imprint.formats.vhdx.header import Regions, write_regions
from imprint.formats.vhdx.journal import HeaderPair, Journal, replay_to_file
from imprint.formats.vhdx.layer import Tables, VhdxLayer, read_tables
from imprint.formats.vhdx.layout import (
    FULLY_PRESENT,
    NOT_PRESENT,
    STATE_MASK,
    STORED,
    ZERO,
)
from imprint.formats.vhdx.space import Space, occupied

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vhdx.metadata import Metadata


class WritableVhdxLayer(VhdxLayer):
    """A VHDX opened for writing; see :class:`~imprint.core.contracts.WritableLayer`."""

    def __init__(self, tables: Tables, bat: Bat, *, is_fresh: bool = False) -> None:
        """``is_fresh``: nobody has seen it yet, so that its GUIDs are new already.

        Raises:
            CorruptImageError: if two blocks share a place, or one lies behind the file's end.
        """
        super().__init__(tables, bat)
        self.regions = tables.regions
        self.space: Space = occupied(tables.storage, tables, bat)
        self.headers = HeaderPair(tables.storage, tables.headers)
        self.journal = Journal(tables.storage, self.headers)
        self._is_fresh = self._is_marked = is_fresh
        self._freed: list[tuple[int, int]] = []
        self._has_moved = False

    @property
    def storage(self) -> Storage:
        """The file."""
        return self._storage

    @property
    def bat(self) -> Bat:
        """The table, as it will be after the next flush."""
        return self._bat

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten; they may lie in more than one block."""
        block, within = divmod(offset, self._metadata.block_size)
        if self._bat.payload(block) & STATE_MASK != FULLY_PRESENT:
            return None
        self.mark_changed()
        return self._place(offset, length, block, within)

    def allocate(self, offset: int, length: int) -> Extent:
        """A run for blocks that have no place; where blocks were freed, or at the file's end."""
        size = self._metadata.block_size
        block = offset // size
        limit = min(div_up(length, size), self._metadata.block_count - block)
        count = 1
        while count < limit and self._bat.payload(block + count) & STATE_MASK != FULLY_PRESENT:
            count += 1
        position = self.space.take(count * size)
        return Extent(offset, min(length, count * size), Kind.DATA, self._storage, position)

    def link(self, extent: Extent) -> None:
        """Enter places into the BAT."""
        self.mark_changed()
        size = self._metadata.block_size
        first = extent.offset // size
        for step in range(div_up(extent.length, size)):
            self.set_entry(first + step, extent.storage_offset + step * size | FULLY_PRESENT)

    def zero(self, offset: int, length: int) -> None:
        """Take blocks out of the BAT; a fixed image keeps their places and punches holes."""
        size = self._metadata.block_size
        block, end = offset // size, div_up(offset + length, size)
        while block < end:
            entry = self._bat.payload(block)
            state = entry & STATE_MASK
            if state not in STORED:
                run = self._bat.run(block, end - block)
                if state == NOT_PRESENT and self._metadata.has_parent:
                    self.mark_changed()
                    self._bat.fill(block, run, ZERO)
                block += run
                continue
            self.mark_changed()
            if self._metadata.is_fixed and state == FULLY_PRESENT:
                inside = min(size, offset + length - block * size)
                self._storage.zero(place_of(entry), inside)
            else:
                self.set_entry(block, ZERO)
            block += 1

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros.

        Raises:
            UsageError: if VHDX cannot hold a disk of that size.
        """
        from imprint.formats.vhdx.resize import resize  # rarely needed

        resize(self, size)

    def flush(self) -> None:
        """Make data durable, then the BAT, then use freed places again."""
        self._write_regions()
        self.complete_file()
        if self._bat.dirty:
            self.journal.commit(self._bat.changed_pages())
            self._bat.dirty.clear()
        else:
            self.journal.finish()
            self._storage.flush()
        self._release()

    def finish(self) -> None:
        """Let a new image not show when its tables were written: the log and header numbers.

        See :class:`~imprint.core.contracts.Finishing`. Of an image that was there before,
        nothing is changed that has no reason.
        """
        if self._is_fresh:
            self.journal.clear()

    def set_entry(self, block: int, entry: int) -> None:
        """Change a block's entry; a place that it had is free after the next flush."""
        old = self._bat.payload(block)
        if old & STATE_MASK in STORED:
            self.give_up(place_of(old), self._metadata.block_size)
        self._bat.set_payload(block, entry)

    def give_up(self, offset: int, length: int) -> None:
        """A place that is free after the next flush."""
        self._freed.append((offset, length))

    def complete_file(self) -> None:
        """Let the file reach its last block's end: a disk's last one may be written in part."""
        if self._storage.size < self.space.end * MIB:
            self._storage.resize(self.space.end * MIB)

    def mark_changed(self) -> None:
        """Say in the header that the disk's content is another one: children see it there."""
        if not self._is_marked:
            self.journal.finish()
            self.headers.update(
                file_write_guid=uuid.uuid4().bytes_le, data_write_guid=uuid.uuid4().bytes_le
            )
            self._is_marked = True

    def switch(self, metadata: Metadata, bat: Bat) -> None:
        """Let another disk size and table take over; they are in the file already."""
        self._metadata = metadata
        self._bat = bat
        self._bits = (-1, b"")

    def move_bat(self, regions: Regions) -> None:
        """Let the region tables name another place for the BAT, which is durable there."""
        self.regions = regions
        self._has_moved = True
        self._write_regions()

    def _write_regions(self) -> None:
        """Again if an error has left the two tables different: the BAT is where both say."""
        if self._has_moved:
            write_regions(self._storage, self.regions.entries, self.regions.valid)
            self._has_moved = False

    def _release(self) -> None:
        """What the BAT no longer names is free; the file gives up its room."""
        while self._freed:
            offset, length = self._freed.pop()
            self.space.give_back(offset, length)
            if offset < self.space.end * MIB:
                self._storage.zero(offset, length)
        if self._is_marked and self._storage.size > self.space.end * MIB:
            self._storage.resize(self.space.end * MIB)


def edit_layer(storage: Storage, *, is_fresh: bool = False) -> WritableVhdxLayer:
    """Open for writing: the log is replayed on the file, and every entry of the BAT checked.

    ``is_fresh``: it is one that was begun and not committed yet.

    Raises:
        CorruptImageError: also if two blocks share a place, or one is not in the file.
        UnsupportedFeatureError: for what is required and not known.
    """
    tables = read_tables(storage)
    if tables.headers.is_dirty:
        replay_to_file(storage, tables.headers)
        tables = read_tables(storage)
    if not all(tables.regions.valid):
        write_regions(storage, tables.regions.entries, tables.regions.valid)
    if tables.metadata.is_fixed and tables.metadata.has_parent:
        raise UnsupportedFeatureError("a fixed vhdx with a parent", name=storage.name)
    bat = Bat.load(storage, tables.regions.bat, tables.metadata)
    return WritableVhdxLayer(tables, bat, is_fresh=is_fresh)
