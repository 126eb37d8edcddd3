"""Writing a VDI: new slots at the file's end, and the order in which its tables change.

Slots in use are always the first ones of the file, without a gap: VirtualBox and QEMU take
slot ``blocks_allocated`` for a new block without looking whether somebody has it. So a freed
slot is filled with the last one when the layer is flushed, never left behind.

What is on the disk is old or new at any moment:

1. New data, and a header that already counts the new slots; flush. A crash now wastes slots.
2. The map; flush. Each entry is old or new, and both are right.
3. Slots that the map no longer names are free from now on: the last blocks are copied into
   them; flush, map, flush, a header that counts fewer slots; flush; the file is cut off.
"""

from __future__ import annotations

import uuid
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TargetError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.units import div_up
from imprint.formats.vdi.blockmap import BlockMap
from imprint.formats.vdi.layer import VdiLayer
from imprint.formats.vdi.layout import (
    BLOCK_ABSENT,
    BLOCK_COUNT_MAX,
    BLOCK_ZERO,
    TYPE_FIXED,
    Header,
    read_header,
)

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

SLOT_COUNT_MAX: Final = BLOCK_COUNT_MAX
"""Slots that may be told apart when writing, at a byte each. There are more only in a file that
wastes some, and holds 32 TiB in blocks of 1 MiB."""


class WritableVdiLayer(VdiLayer):
    """A VDI opened for writing; see :class:`~imprint.core.contracts.WritableLayer`."""

    def __init__(
        self,
        storage: Storage,
        header: Header,
        blocks: BlockMap,
        *,
        notes: tuple[str, ...] = (),
        is_fresh: bool = False,
    ) -> None:
        """``is_fresh``: it was just created, so that its modification UUID is new already.

        Raises:
            CorruptImageError: if two blocks share a slot, or one lies behind the file's end.
        """
        super().__init__(storage, header, blocks, notes=notes)
        self._used, self._next_slot = _count_slots(storage, header, blocks)
        self._stored: Header | None = header  # None: unknown, a write of it has failed
        self._modify_uuid = header.modify_uuid if is_fresh else uuid.uuid4().bytes_le
        self._is_changed = False

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten; they may lie in more than one block."""
        index, within = divmod(offset, self._header.block_size)
        if self._blocks.entries[index] >= BLOCK_ZERO:
            return None
        self._is_changed = True
        return self._place(offset, length, index, within)

    def allocate(self, offset: int, length: int) -> Extent:
        """Slots behind the last one, for blocks that have none."""
        size = self._header.block_size
        index = offset // size
        run = min(div_up(length, size), len(self._blocks.entries) - index)
        if self._header.block_extra:
            run = 1
        count = 1
        while count < run and self._blocks.entries[index + count] >= BLOCK_ZERO:
            count += 1
        if self._next_slot + count > BLOCK_ZERO:
            raise TargetError("has no slot number left", name=self._storage.name)
        position = self._position(self._next_slot)
        self._next_slot += count
        return Extent(offset, min(length, count * size), Kind.DATA, self._storage, position)

    def link(self, extent: Extent) -> None:
        """Enter slots into the map."""
        header = self._header
        first = extent.offset // header.block_size
        slot = (extent.storage_offset - self._position(0)) // header.stride
        for step in range(div_up(extent.length, header.block_size)):
            self._blocks.set(first + step, slot + step)
            self._used += 1
        self._is_changed = True

    def zero(self, offset: int, length: int) -> None:
        """Take blocks out of the map; a fixed image keeps its slots and punches holes."""
        size = self._header.block_size
        index, end = offset // size, div_up(offset + length, size)
        while index < end:
            slot = self._blocks.entries[index]
            if slot >= BLOCK_ZERO:
                run = self._blocks.alike(index, end - index)
                if slot == BLOCK_ABSENT and self._header.has_parent:
                    self._set_all(index, run, BLOCK_ZERO)
                index += run
                continue
            if self._header.image_type == TYPE_FIXED:
                self._storage.zero(self._position(slot), min(size, offset + length - index * size))
                self._is_changed = True
            else:
                self._set_all(index, 1, self._empty)
                self._used -= 1
            index += 1

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros.

        Raises:
            UsageError: if VDI cannot hold a disk of that size.
        """
        from imprint.formats.vdi.resize import resize  # rarely needed

        resize(self, size)

    def flush(self) -> None:
        """Write back header and map in the order that the module describes."""
        self.flush_tables()
        if self._next_slot != self._used:
            self._fill_gaps()

    def flush_tables(self) -> None:
        """The same, but freed slots stay where they are."""
        self._write_header(self._header)
        if self._is_changed:
            self._complete_last_slot()
            allocated = max(self._header.blocks_allocated, self._next_slot)
            self._write_header(self._marked(self._header.replace(blocks_allocated=allocated)))
        self._storage.flush()
        if self._blocks.dirty:
            self._blocks.write_back(self._storage, self._header.map_offset)
            self._storage.flush()
        if self._is_changed and self._header.blocks_allocated != self._next_slot:
            self._write_header(self._header.replace(blocks_allocated=self._next_slot))
            self._storage.flush()
        self._is_changed = False

    @property
    def blocks(self) -> BlockMap:
        """The map, for :mod:`~imprint.formats.vdi.resize`."""
        return self._blocks

    @property
    def storage(self) -> Storage:
        """The file, likewise."""
        return self._storage

    @property
    def next_slot(self) -> int:
        """The slot that is allocated next, likewise."""
        return self._next_slot

    def switch(self, header: Header, blocks: BlockMap, *, next_slot: int) -> None:
        """Let another header, and the map that is durable where it says, take over.

        The header is one sector, so that a crash leaves the old state or the new one.
        """
        self._write_header(self._marked(header.replace(blocks_allocated=next_slot)))
        # Before the flush, which may fail: the header says where all is from now on.
        self._blocks = blocks
        self._next_slot = next_slot
        self._used = sum(1 for _ in blocks.used_slots())
        self._storage.flush()

    def move(self, indexes: array[int], slots: array[int]) -> None:
        """Copy blocks into other slots, durably, and enter these into the map."""
        header = self._header
        for index, slot in zip(indexes, slots, strict=True):
            old = header.slot_offset(self._blocks.entries[index])
            new = header.slot_offset(slot)
            self._storage.copy_range(self._storage, old, new, header.stride)
            self._next_slot = max(self._next_slot, slot + 1)
        self._storage.flush()
        for index, slot in zip(indexes, slots, strict=True):
            self._blocks.set(index, slot)
        self._is_changed = True

    @property
    def _empty(self) -> int:
        """The entry of a block that reads as zeros."""
        return BLOCK_ZERO if self._header.has_parent else BLOCK_ABSENT

    def _set_all(self, index: int, count: int, slot: int) -> None:
        for each in range(index, index + count):
            self._blocks.set(each, slot)
        self._is_changed = True

    def _fill_gaps(self) -> None:
        """Move the last blocks into free slots, then cut off the file."""
        taken = bytearray(self._used)
        movers = array("I")
        for index, slot in self._blocks.used_slots():
            if slot < self._used:
                taken[slot] = 1
            else:
                movers.append(index)
        gaps, gap = array("I"), -1
        for _ in movers:
            gap = taken.find(0, gap + 1)
            gaps.append(gap)
        self.move(movers, gaps)
        self._blocks.write_back(self._storage, self._header.map_offset)
        self._storage.flush()
        self._next_slot = self._used
        self._is_changed = True
        self.flush_tables()
        self._storage.resize(self._header.slot_offset(self._used))

    def _complete_last_slot(self) -> None:
        """Let the file reach the last slot's end: a disk's last block may be written in part."""
        end = self._header.slot_offset(self._next_slot)
        if self._storage.size < end:
            self._storage.resize(end)

    def _marked(self, header: Header) -> Header:
        """With a new modification UUID: children see by it that their parent has changed."""
        return header.replace(modify_uuid=self._modify_uuid)

    def _write_header(self, header: Header) -> None:
        """Write what is known of it; bytes behind, of a longer header, stay."""
        if header != self._stored:
            self._stored = None
            self._storage.write(memoryview(header.pack()), 0)
            self._stored = self._header = header


def edit_layer(storage: Storage, *, notes: tuple[str, ...] = ()) -> WritableVdiLayer:
    """The same for writing: every entry of the map is checked.

    Raises:
        CorruptImageError: also if two blocks share a slot, or one is not in the file.
        UnsupportedFeatureError: also if the file is far longer than its map needs.
    """
    header = read_header(storage)
    return WritableVdiLayer(storage, header, BlockMap.load(storage, header), notes=notes)


def _count_slots(storage: Storage, header: Header, blocks: BlockMap) -> tuple[int, int]:
    """How many slots are in use, and the first one behind them all."""
    in_file = max(0, div_up(storage.size - header.data_offset, header.stride))
    limit = min(in_file, SLOT_COUNT_MAX)
    taken = bytearray(limit)
    for index, slot in blocks.used_slots():
        if slot < limit and not taken[slot]:
            taken[slot] = 1
            continue
        where = f"block {index}: expected"
        if limit <= slot < in_file:
            raise UnsupportedFeatureError(
                f"{where} a slot below 0x{limit:x}, found 0x{slot:x}", name=storage.name
            )
        what = "a slot of its own" if slot < limit else f"one of the file's {in_file} slots"
        raise CorruptImageError(
            f"{where} {what}, found 0x{slot:x}",
            name=storage.name,
            offset=header.map_offset + 4 * index,
            advice="it can be read, and copied into a new image",
        )
    return taken.count(1), taken.rfind(1) + 1
