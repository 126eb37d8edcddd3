"""Changing the size of a hosted sparse extent.

The header is one sector and says where the directories are, so it is written last and decides
between old and new. Directories that have no room for more tables are written anew behind all
data; so are the tables that are added.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.units import div_up
from imprint.formats.vmdk.layout import GTE_ABSENT, GTE_DATA, GTE_ZERO, SECTOR
from imprint.formats.vmdk.sparse_writer import to_disk

if TYPE_CHECKING:
    from imprint.formats.vmdk.sparse_writer import WritableSparsePart

_WRITE_ENTRIES: Final = 1 << 18


def shrink(part: WritableSparsePart, size: int) -> None:
    """The header first: grains behind the end may go only when it no longer counts them."""
    geometry = part.geometry
    count = div_up(size, geometry.grain)
    tables = div_up(count, geometry.entries_per_table)
    behind = part.grains_behind(count)
    redundant = None if part.redundant is None else part.redundant[:tables]
    header = part.header.replace(capacity=size // SECTOR)
    part.switch(header, size, part.directory[:tables], redundant)
    part.clear(count, tables * geometry.entries_per_table - count, GTE_ABSENT)
    part.free(behind)
    part.flush()


def grow(part: WritableSparsePart, size: int) -> None:
    """Add tables if need be.

    Raises:
        UnsupportedFeatureError: over a parent, if the extent cannot mark grains as zero.
    """
    geometry = part.geometry
    if part.has_parent and not geometry.has_zeroed:
        raise UnsupportedFeatureError(
            "cannot grow over its parent: it was made without zeroed_grain",
            name=part.storage.name,
        )
    entry = GTE_ZERO if part.has_parent else GTE_ABSENT
    _clear_tail(part)
    old, per_table = geometry.table_count, geometry.entries_per_table
    # Not known to be empty: a crash may have come between a shrink and its tables.
    part.clear(geometry.grain_count, old * per_table - geometry.grain_count, entry)
    part.flush()
    tables = div_up(div_up(size, geometry.grain), per_table)
    header = part.header.replace(capacity=size // SECTOR)
    if tables == old:
        part.switch(header, size, part.directory, part.redundant)
        return
    copies = [part.directory] + ([part.redundant] if part.redundant is not None else [])
    table_sectors = div_up(4 * per_table, SECTOR)
    directory_sectors = div_up(4 * tables, SECTOR)
    sectors = len(copies) * (directory_sectors + (tables - old) * table_sectors)
    place = part.slots.append(div_up(sectors, geometry.grain_sectors))
    part.storage.resize(part.slots.end)
    made: list[array[int]] = []
    places: list[int] = []
    for copy in copies:
        first = place + directory_sectors
        added = array("I", range(first, first + (tables - old) * table_sectors, table_sectors))
        directory = copy + added
        part.storage.write(to_disk(directory), place * SECTOR)
        if entry:
            _fill(part, first * SECTOR, (tables - old) * per_table, entry)
        made.append(directory)
        places.append(place)
        place = first + (tables - old) * table_sectors
    part.storage.flush()
    header = header.replace(directory_offset=places[0])
    if len(made) > 1:
        header = header.replace(redundant_offset=places[1])
    part.switch(header, size, made[0], made[1] if len(made) > 1 else None)


def _fill(part: WritableSparsePart, start: int, count: int, entry: int) -> None:
    for at in range(0, count, _WRITE_ENTRIES):
        piece = array("I", [entry]) * min(_WRITE_ENTRIES, count - at)
        part.storage.write(to_disk(piece), start + 4 * at)


def _clear_tail(part: WritableSparsePart) -> None:
    """Zero what the last grain has behind the disk's end: it becomes part of the disk."""
    geometry = part.geometry
    index, within = divmod(geometry.size, geometry.grain)
    if not within:
        return
    table = part.table(index // geometry.entries_per_table)
    entry = 0 if table is None else table[index % geometry.entries_per_table]
    if entry >= GTE_DATA:
        part.storage.zero(entry * SECTOR + within, geometry.grain - within)
