"""FAT12, FAT16 and FAT32: what they use, told by the file allocation table.

The count of free clusters in FAT32's information sector is not looked at: it is often wrong.
A file system that was not unmounted says so; its tree is walked then, and believed if every
chain that a directory names is marked as used. ``docs/filesystems/fat.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    Chains,
    doubts_of_dirty,
    entries_of,
    taken_clusters,
)
from imprint.filesystems.fat.geometry import Geometry, read_geometry
from imprint.filesystems.fat.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

_MASKS: Final = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}

# What entry 1 has, if the last system that wrote has finished, and met no bad sector.
_CLEAN_BITS: Final = {12: 0, 16: 0xC000, 32: 0x0C000000}


class Fat:
    """FAT12, FAT16, FAT32."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        tables = [_table(reader, place, number) for number in range(place.fat_count)]
        taken = Runs.union(
            taken_clusters(table, place.bits, place.cluster_count) for table in tables
        )
        used = Runs.union(
            [
                taken.shifted(-FIRST_CLUSTER).scaled(place.cluster_size).shifted(place.data_at),
                Runs.of(_outside(place, reader.size)),
            ]
        )
        doubts = []
        if any(table != tables[0] for table in tables):
            doubts.append("the copies of its allocation table differ")
        notes = []
        if _is_dirty(place, tables[0]):
            notes.append("it was not unmounted")
            doubts += doubts_of_dirty(_reached(reader, place, tables[0]), used)
        return Allocation(place.cluster_size, used, tuple(doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        return _reached(reader, place, _table(reader, place, 0))


def _table(reader: VolumeReader, place: Geometry, number: int) -> bytearray:
    """One copy of the FAT, as far as it has entries for clusters."""
    size = -(-(place.cluster_count + FIRST_CLUSTER) * place.bits // 8)
    if place.bits == 12:
        size = min(-(-size // 3) * 3, place.fat_size)
    return reader.read(place.fat_at + number * place.fat_size, size, "allocation table")


def _outside(place: Geometry, volume_size: int) -> Iterator[tuple[int, int]]:
    """What no cluster is: what stands before the first, and behind the last."""
    end = place.data_at + place.cluster_count * place.cluster_size
    yield 0, place.data_at
    yield end, volume_size - end


def _is_dirty(place: Geometry, table: bytearray) -> bool:
    clean = _CLEAN_BITS[place.bits]
    return place.is_marked_dirty or entries_of(table[:8], place.bits)[1] & clean != clean


def _reached(reader: VolumeReader, place: Geometry, table: bytearray) -> Iterator[tuple[int, int]]:
    yield 0, place.data_at
    entries = entries_of(table, place.bits)
    chains = Chains(entries, place.cluster_count, mask=_MASKS[place.bits], name=reader.name)
    yield from walk(reader, place, chains)


FILE_SYSTEM: Final = Fat()
