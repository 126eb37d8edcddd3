"""Changing the disk's size, and other metadata, through the log.

Growing: new entries of the BAT first, which nobody reads as long as the disk is short; then
the size. Shrinking the other way round. A BAT that outgrows its region is written anew at the
end of the file, and the region tables are changed, which may name the old or the new one:
both are right for the old size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imprint.core.units import MIB, div_up
from imprint.filters.overlay import SECTOR_BYTES
from imprint.formats.vhdx.bat import check_count, place_of
from imprint.formats.vhdx.create import bat_bytes, check_size
from imprint.formats.vhdx.header import Region, read
from imprint.formats.vhdx.layout import (
    FULLY_PRESENT,
    NOT_PRESENT,
    REGION_BAT,
    STATE_MASK,
    STORED,
    ZERO,
)
from imprint.formats.vhdx.locator import pack_locator
from imprint.formats.vhdx.metadata import Metadata, pack_metadata, read_others

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vhdx.bat import Bat
    from imprint.formats.vhdx.writer import WritableVhdxLayer


def resize(layer: WritableVhdxLayer, size: int) -> None:
    """Make the disk ``size`` bytes long; durable when this returns. A fixed one stays fixed.

    Raises:
        UsageError: if VHDX cannot hold a disk of that size.
    """
    check_size(size, layer.metadata.logical_sector)
    check_count(layer.metadata.resized(size))
    layer.flush()
    if size != layer.size:
        layer.mark_changed()
    if size < layer.size:
        _shrink(layer, size)
    elif size > layer.size:
        _grow(layer, size)


def metadata_sectors(storage: Storage, region: Region, metadata: Metadata) -> dict[int, bytes]:
    """Sectors of the metadata region that have to change, by their offset in the file."""
    locator = None if metadata.locator is None else pack_locator(metadata.locator)
    packed = pack_metadata(metadata, locator, read_others(storage, region))
    packed += bytes(-len(packed) % SECTOR_BYTES)
    before = read(storage, region.offset, len(packed))
    return {
        region.offset + at: packed[at : at + SECTOR_BYTES]
        for at in range(0, len(packed), SECTOR_BYTES)
        if packed[at : at + SECTOR_BYTES] != before[at : at + SECTOR_BYTES]
    }


def _shrink(layer: WritableVhdxLayer, size: int) -> None:
    """The size first: blocks behind the end may go only when nobody reads them."""
    old, metadata = layer.metadata, layer.metadata.resized(size)
    behind = [
        (block, place_of(entry))
        for block, entry in layer.bat.stored(old.block_count)
        if block >= metadata.block_count
    ]
    _write_metadata(layer, metadata)
    # The old table is longer; its rest is cleared, for whoever counts entries behind the end.
    bat = layer.bat
    bat.fill(metadata.block_count, old.block_count - metadata.block_count, NOT_PRESENT)
    for _, position in behind:
        layer.give_up(position, old.block_size)
    for slot, entry in list(bat.bitmaps(old.block_count)):
        if slot >= metadata.entry_count:
            bat.clear_bitmap(slot)
            layer.give_up(place_of(entry), MIB)
    layer.switch(metadata, bat)
    layer.flush()
    layer.switch(metadata, bat.resized(bat.region, metadata))


def _grow(layer: WritableVhdxLayer, size: int) -> None:
    _clear_tail(layer)
    old, metadata = layer.metadata, layer.metadata.resized(size)
    first, count = old.block_count, metadata.block_count - old.block_count
    if 8 * metadata.entry_count > layer.bat.region.length:
        move_bat(layer, metadata)
    bat = layer.bat.resized(layer.bat.region, metadata)
    if old.is_fixed:
        position = layer.space.take(count * old.block_size) if count else 0
        for block in range(first, metadata.block_count):
            bat.set_payload(block, position | FULLY_PRESENT)
            position += old.block_size
        _blank(layer, position - count * old.block_size, count * old.block_size)
    else:
        # Whatever stood there: it is not in the file's old table, or was never cleared.
        bat.fill(first, count, ZERO if old.has_parent else NOT_PRESENT)
    layer.complete_file()
    if bat.dirty:
        layer.journal.commit(bat.changed_pages())
        bat.dirty.clear()
    _write_metadata(layer, metadata)
    layer.switch(metadata, bat)


def _blank(layer: WritableVhdxLayer, offset: int, length: int) -> None:
    """Make a new place read as zeros; mostly it lies behind the file's end and does already."""
    inside = min(length, layer.storage.size - offset)
    if inside > 0:
        layer.storage.zero(offset, inside)
    layer.complete_file()


def _write_metadata(layer: WritableVhdxLayer, metadata: Metadata) -> None:
    layer.journal.commit(metadata_sectors(layer.storage, layer.regions.metadata, metadata))


def _clear_tail(layer: WritableVhdxLayer) -> None:
    """Zero what the last block has behind the disk's end: it becomes part of the disk."""
    block, within = divmod(layer.size, layer.metadata.block_size)
    if within:
        entry = layer.bat.payload(block)
        if entry & STATE_MASK in STORED:
            rest = layer.metadata.block_size - within
            layer.storage.zero(place_of(entry) + within, rest)


def move_bat(layer: WritableVhdxLayer, metadata: Metadata) -> None:
    """Write the table, for the present size, into a larger region, and let it count."""
    old = layer.bat.region
    length = bat_bytes(metadata)
    region = Region(layer.space.take(length), length)
    bat: Bat = layer.bat.resized(region, layer.metadata)
    _blank(layer, region.offset, length)
    bat.write_all(layer.storage)
    layer.storage.flush()
    entries = tuple(
        entry.replace(offset=region.offset, length=region.length)
        if entry.guid == REGION_BAT
        else entry
        for entry in layer.regions.entries
    )
    bat.dirty.clear()
    layer.switch(layer.metadata, bat)
    layer.move_bat(replace(layer.regions, entries=entries, bat=region))
    layer.give_up(old.offset, old.length)
    assert div_up(8 * metadata.entry_count, MIB) * MIB <= length
