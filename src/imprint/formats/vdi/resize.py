"""Changing the size of a VDI's disk.

The header is one sector and says where everything is, so it is written last and decides
between old and new. A map that outgrows its place moves: the first slots are evicted to the
end of the file, and the new map is written where they were; the old one stays until then.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.units import align_up, div_up
from imprint.formats.vdi.blockmap import BlockMap
from imprint.formats.vdi.layout import (
    BLOCK_ABSENT,
    BLOCK_COUNT_MAX,
    BLOCK_ZERO,
    HEADER_SIZE_OFFSET,
    SECTOR_BYTES,
    TYPE_FIXED,
    Header,
)

if TYPE_CHECKING:
    from imprint.formats.vdi.writer import WritableVdiLayer

_OFFSET_MAX: Final = 0xFFFFFFFF  # of map and data: the header has 32 bits for them


def check_size(size: int, block_size: int) -> None:
    """Refuse a disk that VDI cannot hold.

    Raises:
        UsageError: if it cannot.
    """
    if size % SECTOR_BYTES:
        raise UsageError(
            f"vdi: expected a size in whole sectors of 512 bytes, found {size}",
            advice=f"pad the disk with zeros first, to {align_up(size, SECTOR_BYTES)} bytes",
        )
    if div_up(size, block_size) > BLOCK_COUNT_MAX:
        raise UsageError(
            f"vdi: expected at most {BLOCK_COUNT_MAX * block_size} bytes "
            f"in blocks of {block_size}, found {size}"
        )


def resize(layer: WritableVdiLayer, size: int) -> None:
    """Make the disk ``size`` bytes long; durable when this returns.

    A fixed image stays fixed. Slots that become free are filled by the layer's next flush.

    Raises:
        UsageError: if VDI cannot hold a disk of that size.
    """
    check_size(size, layer.header.block_size)
    layer.flush()
    if size < layer.header.disk_size:
        _shrink(layer, size)
    elif size > layer.header.disk_size:
        _grow(layer, size)


def _shrink(layer: WritableVdiLayer, size: int) -> None:
    """The header first: blocks behind the end may go only when it no longer counts them."""
    count = div_up(size, layer.header.block_size)
    blocks = BlockMap(layer.blocks.entries[:count])
    header = layer.header.replace(disk_size=size, block_count=count)
    layer.switch(header, blocks, next_slot=layer.next_slot)


def _grow(layer: WritableVdiLayer, size: int) -> None:
    _clear_tail(layer)
    old_count = div_up(layer.header.disk_size, layer.header.block_size)
    count = div_up(size, layer.header.block_size)
    map_offset, evicted = _find_room(layer.header, count)
    if evicted:
        _evict(layer, evicted)
    # A map may have more entries than the disk has blocks; they are forgotten here.
    slots = layer.blocks.entries[:old_count]
    next_slot = layer.next_slot
    if layer.header.image_type == TYPE_FIXED:
        first, next_slot = next_slot, next_slot + count - old_count
        slots.extend(range(first, next_slot))
        # Cut off first: what lay behind the last slot is not known to be zero.
        layer.storage.resize(layer.header.slot_offset(first))
        layer.storage.resize(layer.header.slot_offset(next_slot))
    else:
        fresh = BLOCK_ZERO if layer.header.has_parent else BLOCK_ABSENT
        slots.extend(array("I", [fresh]) * (count - old_count))
    if evicted:
        slots = array("I", (slot - evicted if slot < BLOCK_ZERO else slot for slot in slots))
    # In its old place the map changes only behind what the old header counts.
    start = old_count if map_offset == layer.header.map_offset else 0
    blocks = BlockMap(slots)
    blocks.write_all(layer.storage, map_offset, start=start)
    layer.storage.flush()
    header = layer.header.replace(
        disk_size=size,
        block_count=count,
        map_offset=map_offset,
        data_offset=layer.header.slot_offset(evicted),
    )
    layer.switch(header, blocks, next_slot=max(0, next_slot - evicted))


def _clear_tail(layer: WritableVdiLayer) -> None:
    """Zero what the last block has behind the disk's end: it becomes part of the disk."""
    header = layer.header
    index, within = divmod(header.disk_size, header.block_size)
    if within and layer.blocks.entries[index] < BLOCK_ZERO:
        start = header.slot_offset(layer.blocks.entries[index]) + header.block_extra
        layer.storage.zero(start + within, header.block_size - within)


def _find_room(header: Header, count: int) -> tuple[int, int]:
    """Where a map of ``count`` entries goes, and how many slots have to be evicted for it."""
    length = 4 * count
    if header.map_offset + length <= header.data_offset:
        return header.map_offset, 0
    before = align_up(HEADER_SIZE_OFFSET + header.header_size, SECTOR_BYTES)
    if before + length <= header.map_offset:  # the map has moved before
        return before, 0
    start = align_up(header.data_offset, SECTOR_BYTES)
    evicted = div_up(start + length - header.data_offset, header.stride)
    if header.slot_offset(evicted) > _OFFSET_MAX:
        raise UsageError("vdi: the block map would have to lie beyond 4 GiB of the file")
    return start, evicted


def _evict(layer: WritableVdiLayer, count: int) -> None:
    """Move what is in the first ``count`` slots to the end of the file, durably."""
    indexes = array("I", (index for index, slot in layer.blocks.used_slots() if slot < count))
    # Not into the first slots either, where the file has fewer than these.
    first = max(count, layer.next_slot)
    layer.move(indexes, array("I", range(first, first + len(indexes))))
    layer.flush_tables()
