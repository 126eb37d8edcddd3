"""Changing the size of a VHD's disk.

The footer's copy at the file's start is one sector and is written last: it decides between old
and new. A table that outgrows its place moves to the end of the file before that. A fixed image
has no copy: there, it is the footer at the end.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from imprint.core.errors import UsageError
from imprint.core.units import align_up, div_up
from imprint.formats.vhd import geometry
from imprint.formats.vhd.layout import (
    BLOCK_ABSENT,
    BLOCK_COUNT_MAX,
    CHS_CREATORS,
    DISK_SIZE_MAX,
    SECTOR_BYTES,
    Footer,
    read_footers,
)
from imprint.formats.vhd.room import metadata

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vhd.writer import WritableVhdLayer

CREATOR_CURRENT = b"qem2"
"""The name by which programs that know both ways take the size from its field."""
CREATOR_CHS = b"qemu"
"""The name by which they take it from the geometry."""


def check_size(size: int, block_size: int | None) -> None:
    """Refuse a disk that VHD cannot hold.

    Raises:
        UsageError: if it cannot.
    """
    if size % SECTOR_BYTES:
        raise UsageError(
            f"vhd: expected a size in whole sectors of 512 bytes, found {size}",
            advice=f"the next one is {align_up(size, SECTOR_BYTES)}",
        )
    if size > DISK_SIZE_MAX:
        raise UsageError(f"vhd: expected at most 2040 GiB, found {size} bytes", advice="use vhdx")
    if block_size is not None and div_up(size, block_size) > BLOCK_COUNT_MAX:
        raise UsageError(
            f"vhd: expected at most {BLOCK_COUNT_MAX * block_size} bytes "
            f"in blocks of {block_size}, found {size}"
        )


def resized(footer: Footer, size: int) -> Footer:
    """The footer of a disk whose size is that of its field, whoever made it."""
    found = geometry.exact(size)
    creator = footer.creator_app
    if creator in CHS_CREATORS and found.size != size:
        creator = CREATOR_CURRENT
    return footer.replace(
        current_size=size,
        creator_app=creator,
        cylinders=found.cylinders,
        heads=found.heads,
        sectors=found.sectors,
    )


def resize(layer: WritableVhdLayer, size: int) -> None:
    """Make the disk ``size`` bytes long; durable when this returns.

    Raises:
        UsageError: if VHD cannot hold a disk of that size.
    """
    if layer.footer.is_fixed:
        check_size(size, None)
        _resize_fixed(layer, size)
        return
    check_size(size, layer.header.block_size)
    layer.flush()
    if size > layer.size:
        _grow(layer, size)
    elif size < layer.size:
        layer.switch_footer(resized(layer.footer, size), size=size)
        _forget_behind(layer, size)
    layer.flush()


def _resize_fixed(layer: WritableVhdLayer, size: int) -> None:
    """Move the footer of a fixed image; nothing but one sector decides between old and new.

    A footer may say that the disk is shorter than what lies before it. So one that still says
    the old size goes to the file's new end first, if that is behind the old one; what is to
    become part of the disk is cleared; and the same sector is written again, with the new
    size. If the file is too long then, a footer goes to where it shall end, into what is no
    part of the disk any more, and the rest is cut off.
    """
    storage, old = layer.storage, layer.footer.settled()
    found = read_footers(storage)  # an attempt that has failed may have moved it already
    length, place = storage.size, max(size, found.tail_offset)
    if place % SECTOR_BYTES:
        place = align_up(max(size, length), SECTOR_BYTES)
    new = resized(old, size).sealed()
    if place != found.tail_offset:
        _write_footer(storage, old.waiting(), place)
    stale = min(length, size)
    if stale > layer.size:
        storage.zero(layer.size, stale - layer.size)
        storage.flush()
    layer.move_footer(new if place == size else new.waiting(), place, size=size)
    if place != size:
        _write_footer(storage, new, size)
        storage.resize(size + Footer.SIZE)
        storage.flush()
        layer.move_footer(new, size, size=size)


def _write_footer(storage: Storage, footer: Footer, at: int) -> None:
    storage.write(memoryview(footer.pack()), at)
    storage.flush()


def _grow(layer: WritableVhdLayer, size: int) -> None:
    block_size, old = layer.header.block_size, layer.size
    _forget_behind(layer, old)
    count = div_up(size, block_size)
    if count > len(layer.table):
        _enlarge_table(layer, count)
    index, within = divmod(old, block_size)
    start = layer.table.start(index) if within else None
    if start is not None:
        # What the last block has behind the disk's end becomes part of it.
        position = start + layer.header.bitmap_bytes + within
        layer.storage.zero(position, block_size - within)
    if layer.footer.has_parent:
        end = size if layer.parent_size is None else min(size, layer.parent_size)
        if end > old:
            layer.zero(old, end - old)
    layer.flush()
    layer.switch_footer(resized(layer.footer, size), size=size)


def _forget_behind(layer: WritableVhdLayer, size: int) -> None:
    """Free the blocks that lie wholly behind the disk's end."""
    first = div_up(size, layer.header.block_size)
    for index in range(first, len(layer.table)):
        if layer.table.start(index) is not None:
            layer.free_block(index)


def _enlarge_table(layer: WritableVhdLayer, count: int) -> None:
    """Give the table ``count`` entries, where it is if nothing stands behind it."""
    header, length = layer.header, 4 * count
    layer.flush()
    if header.table_offset + length <= _next_use(layer):
        layer.table.resize(count, BLOCK_ABSENT)
        layer.table.write_back(layer.storage, header.table_offset)
        layer.storage.flush()
        layer.switch_header(header.replace(table_entries=count))
        return
    place = layer.reserve(length)
    layer.table.resize(count, BLOCK_ABSENT)
    layer.table.write_all(layer.storage, place)
    layer.storage.flush()
    layer.switch_header(header.replace(table_offset=place, table_entries=count))


def _next_use(layer: WritableVhdLayer) -> int:
    """Where something else begins behind the table: another one, a block, or the footer."""
    table = layer.header.table_offset
    starts = sorted(start for start, _ in metadata(layer.storage, layer.state))
    starts += [start for _, start in layer.table.used() if start > table]
    starts.append(layer.end)
    starts.sort()
    return starts[bisect.bisect_right(starts, table)]
