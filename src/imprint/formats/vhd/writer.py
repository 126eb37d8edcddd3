"""Writing a VHD: where new blocks go, and the order in which its tables change.

New blocks go behind the last one, over the footer there, or into gaps. So the footer's copy at
the file's start is made sound first, and is what a reader finds after a crash.

What is on the disk is old or new at any moment:

1. New data, the bitmaps of new blocks, and the footer behind them all; flush.
2. The block table, and the bitmaps of blocks that were there before; flush. Each entry and each
   bit is old or new, and both are right.
3. What the table no longer names is free from now on: the file is cut off, or gets a hole.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TargetError
from imprint.core.extent import Extent, Kind
from imprint.core.limits import DIRTY_TABLE_BYTES_MAX
from imprint.core.units import MIB, align_up, div_up
from imprint.formats.vhd import bitmaps
from imprint.formats.vhd.layer import MADE, State, VhdLayer, read_state
from imprint.formats.vhd.layout import (
    BLOCK_ABSENT,
    SECTOR_BYTES,
    Footer,
    Footers,
    Header,
)
from imprint.formats.vhd.room import find_room, metadata_end

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vhd.blocktable import BlockTable

DATA_ALIGNMENT: Final = 4096
"""Of the data of large blocks, so that the system can share or copy it without us."""


class WritableVhdLayer(VhdLayer):
    """A VHD opened for writing; see :class:`~imprint.core.contracts.WritableLayer`."""

    def __init__(
        self,
        storage: Storage,
        state: State,
        *,
        parent_size: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Take over an image.

        Args:
            storage: its file.
            state: what was read of it, or has been written.
            parent_size: of the parent's disk; ``None``: not known.
            notes: for the user.

        Raises:
            CorruptImageError: if two blocks overlap, or one lies behind the file's end.
        """
        super().__init__(storage, state, notes=notes)
        self.parent_size = parent_size
        self._is_changed = False
        self._stored_head: Footer | None = state.footers.head
        self._stored_header: Header | None = state.header
        self._stored_tail: Footer | None = state.footers.tail
        self._tail_at = state.footers.tail_offset
        self._changed_bitmaps: dict[int, bytearray] = {}  # of blocks in the stored table
        self._fresh_bitmaps: dict[int, bytearray] = {}  # of blocks that it does not have yet
        self._reserved: dict[int, int] = {}
        self._freed: list[int] = []
        self._free: list[int] = []
        self._end = self._tail_at
        if state.header is not None:
            self._free, self._end = find_room(storage, state)
            heapify(self._free)

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten: what the block, or its bitmap, has."""
        header = self._state.header
        if header is None:
            return Extent(offset, length, Kind.DATA, self._storage, offset)
        index, within = divmod(offset, header.block_size)
        start = self._state.table.start(index)
        if start is None:
            return None
        length = min(length, header.block_size - within)
        if self.footer.has_parent:
            length, is_own = self._own_run(index, within, length)
            if not is_own:
                return None
        position = start + header.bitmap_bytes + within
        return Extent(offset, length, Kind.DATA, self._storage, position)

    def allocate(self, offset: int, length: int) -> Extent:
        """Room for a block, or for sectors of one; some of them may be its own already."""
        header = self.header
        index, within = divmod(offset, header.block_size)
        length = min(length, header.block_size - within)
        start = self._state.table.start(index)
        if start is None:
            start = self._reserved.get(index)
        if start is None:
            start = self._reserved[index] = self._take()
        position = start + header.bitmap_bytes + within
        return Extent(offset, length, Kind.DATA, self._storage, position)

    def link(self, extent: Extent) -> None:
        """Enter a block into the table, or sectors into its bitmap."""
        header = self.header
        index, within = divmod(extent.offset, header.block_size)
        bits = self._own_bitmap(index)
        if self._state.table.start(index) is None:
            self._state.table.set_start(index, self._reserved.pop(index))
            if not self.footer.has_parent:
                bitmaps.mark(bits, 0, header.block_size // SECTOR_BYTES)
        if self.footer.has_parent:
            first = within // SECTOR_BYTES
            bitmaps.mark(bits, first, div_up(within + extent.length, SECTOR_BYTES) - first)
        self._is_changed = True
        waiting = len(self._changed_bitmaps) + len(self._fresh_bitmaps)
        if waiting * header.bitmap_bytes >= DIRTY_TABLE_BYTES_MAX:
            self.flush()

    def zero(self, offset: int, length: int) -> None:
        """Take whole blocks out of the table; where that would show a parent, store zeros."""
        header = self._state.header
        if header is None:
            self._storage.zero(offset, length)
            return
        position, end = offset, offset + length
        while position < end:
            index, within = divmod(position, header.block_size)
            step = min(end - position, header.block_size - within)
            start = self._state.table.start(index)
            if self.footer.has_parent:
                step = self._store_zeros(position, step)
            elif start is None:
                limit = min(
                    len(self._state.table) - index,
                    div_up(end - index * header.block_size, header.block_size),
                )
                run = self._state.table.run(index, limit)
                step = min(end, (index + run) * header.block_size) - position
            else:
                self.free_block(index)
            position += step

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros.

        Raises:
            UsageError: if VHD cannot hold a disk of that size.
        """
        from imprint.formats.vhd.resize import resize  # rarely needed

        resize(self, size)

    def flush(self) -> None:
        """Write back tables and footer in the order that the module describes."""
        if self._state.header is None:
            self._storage.flush()
            return
        self._restore()
        if self._is_changed:
            for index, bits in self._fresh_bitmaps.items():
                start = self._state.table.start(index)
                assert start is not None
                self._storage.write(self._stored_bitmap(bits), start)
            self._write_tail()
        self._storage.flush()
        if not self._is_changed:
            return
        self._write_tables()
        self._storage.flush()
        self._fresh_bitmaps.clear()
        self._changed_bitmaps.clear()
        self._give_back()
        self._is_changed = False

    @property
    def header(self) -> Header:
        """Of an image that has one."""
        assert self._state.header is not None
        return self._state.header

    @property
    def table(self) -> BlockTable:
        """The block table, for :mod:`~imprint.formats.vhd.resize`."""
        return self._state.table

    @property
    def storage(self) -> Storage:
        """The file, likewise."""
        return self._storage

    @property
    def state(self) -> State:
        """All that is known of it, likewise."""
        return self._state

    @property
    def end(self) -> int:
        """Where the footer goes: behind all that is in use."""
        return self._end

    def reserve(self, length: int) -> int:
        """Room for tables, in whole sectors behind all blocks: never given to anything else."""
        self.secure_head()
        start = align_up(self._end, SECTOR_BYTES)
        self._end = start + align_up(length, SECTOR_BYTES)
        self._is_changed = True
        return start

    def free_block(self, index: int) -> None:
        """Take a block out of the table; its room is free after the next flush."""
        start = self._state.table.start(index)
        assert start is not None
        self._freed.append(start)
        self._state.table.set_start(index, None)
        self._fresh_bitmaps.pop(index, None)
        self._changed_bitmaps.pop(index, None)
        self._bitmaps.forget(index)
        self._is_changed = True

    def touch(self) -> None:
        """Let the next flush write what it would not otherwise: a footer that is missing."""
        self._is_changed = True

    def secure_head(self) -> None:
        """Make the copy of the footer durable that will be found if the other one is not."""
        if self._stored_head != self.footer.sealed():
            self._write_head(self.footer.sealed())
            self._storage.flush()

    def switch_footer(self, footer: Footer, *, size: int) -> None:
        """Let another footer take over: one sector at the file's start, durable on return.

        The one at the end follows with the next flush.
        """
        sealed = footer.sealed()
        self._write_head(sealed)
        # Before the flush, which may fail: the head says what holds from now on.
        self._state.footers = Footers(sealed, sealed, None, self._tail_at)
        self._state.size, self._state.is_chs, self._state.reason = size, False, MADE
        self._storage.flush()

    def move_footer(self, footer: Footer, at: int, *, size: int) -> None:
        """Let a fixed image's footer be this one, at ``at``; durable on return."""
        sealed = footer.sealed()
        self._storage.write(memoryview(sealed.pack()), at)
        # Before the flush, which may fail: what is written may hold from now on.
        self._state.footers = Footers(sealed, None, sealed, at)
        self._state.size, self._state.is_chs, self._state.reason = size, False, MADE
        self._storage.flush()

    def switch_parent(self, footer: Footer, header: Header) -> None:
        """Let a footer take over that names a header elsewhere, which is durable already."""
        sealed = footer.sealed()
        self._write_head(sealed)
        self._state.footers = Footers(sealed, sealed, None, self._tail_at)
        self._state.header = self._stored_header = header
        self._storage.flush()
        self.flush()

    def switch_header(self, header: Header) -> None:
        """Let another header take over in the same place, by its first sector."""
        self._write_header(header.sealed())
        self._state.header = header.sealed()
        self._storage.flush()

    def _take(self) -> int:
        """Room for a block: a gap, or the file's end."""
        self.secure_head()
        self._is_changed = True
        if self._free:
            return heappop(self._free)
        header = self.header
        alignment = DATA_ALIGNMENT if header.block_size >= MIB else SECTOR_BYTES
        start = align_up(self._end + header.bitmap_bytes, alignment) - header.bitmap_bytes
        if start // SECTOR_BYTES >= BLOCK_ABSENT:
            raise TargetError("has no sector number left", name=self._storage.name)
        self._end = start + header.stride
        return start

    def _store_zeros(self, offset: int, length: int) -> int:
        """Make sectors of one block zero and its own; how many bytes that were."""
        place = self.place(offset, length)
        is_new = place is None
        if place is None:
            place = self.allocate(offset, length)
        self._storage.zero(place.storage_offset, place.length)
        if is_new:
            self.link(place)
        return place.length

    def _own_bitmap(self, index: int) -> bytearray:
        """A block's bitmap, to be changed."""
        found = self._fresh_bitmaps.get(index)
        if found is None:
            found = self._changed_bitmaps.get(index)
        if found is not None:
            return found
        if self._state.table.start(index) is None:
            size = div_up(self.header.block_size // SECTOR_BYTES, 8)
            return self._fresh_bitmaps.setdefault(index, bytearray(size))
        found = self._changed_bitmaps[index] = bytearray(self._bitmaps.get(index))
        self._bitmaps.forget(index)
        return found

    def _bitmap(self, index: int) -> bytes | bytearray:
        found = self._fresh_bitmaps.get(index) or self._changed_bitmaps.get(index)
        return found if found is not None else super()._bitmap(index)

    def _stored_bitmap(self, bits: bytearray) -> memoryview:
        """With the rest of its last sector, which new blocks must not have garbage in."""
        return memoryview(bytes(bits).ljust(self.header.bitmap_bytes, b"\0"))

    def _write_tables(self) -> None:
        self._state.table.write_back(self._storage, self.header.table_offset)
        for index, bits in self._changed_bitmaps.items():
            start = self._state.table.start(index)
            assert start is not None
            self._storage.write(self._stored_bitmap(bits), start)

    def _give_back(self) -> None:
        """What was freed, now that no table names it any more: as a hole, or cut off."""
        stride = self.header.stride
        if any(start + stride >= self._end for start in self._freed):
            used = max((start + stride for _, start in self._state.table.used()), default=0)
            taken = max((start + stride for start in self._reserved.values()), default=0)
            self._end = max(used, taken, metadata_end(self._storage, self._state))
            self._free = [start for start in self._free if start + stride <= self._end]
            heapify(self._free)
        while self._freed:
            start = self._freed[-1]
            if start + stride <= self._end:
                self._storage.zero(start, stride)
                heappush(self._free, start)
            self._freed.pop()
        if self._tail_at != self._end:
            self._write_tail()
            self._storage.flush()
        if self._storage.size > self._end + Footer.SIZE:
            self._storage.resize(self._end + Footer.SIZE)

    def _restore(self) -> None:
        """After a write that failed: let the file say again what we believe."""
        header = self.header
        if self._stored_header != header:
            self._write_header(header)
            self._storage.flush()
        if self._stored_head is None and self._is_changed:
            self._write_head(self.footer.sealed())

    def _write_header(self, header: Header) -> None:
        self._stored_header = None
        data = memoryview(header.pack())[:SECTOR_BYTES]
        self._storage.write(data, self.footer.data_offset)
        self._stored_header = header

    def _write_head(self, footer: Footer) -> None:
        self._stored_head = None
        self._is_changed = True
        self._storage.write(memoryview(footer.pack()), 0)
        self._stored_head = footer

    def _write_tail(self) -> None:
        footer = self.footer.sealed()
        if self._stored_tail != footer or self._tail_at != self._end:
            self._stored_tail = None
            self._storage.write(memoryview(footer.pack()), self._end)
            self._stored_tail, self._tail_at = footer, self._end


def edit_layer(
    storage: Storage, *, parent_size: int | None = None, notes: tuple[str, ...] = ()
) -> WritableVhdLayer:
    """The same for writing: every entry of the table is checked.

    Raises:
        CorruptImageError: also if two blocks overlap, or one is not in the file.
    """
    return WritableVhdLayer(storage, read_state(storage), parent_size=parent_size, notes=notes)
