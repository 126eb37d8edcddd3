"""FAT12, FAT16 and FAT32: what they use, told by the file allocation table.

The count of free clusters in FAT32's information sector is not looked at: it is often wrong.
A file system that was not unmounted says so; its tree is walked then, and believed if every
chain that a directory names is marked as used. ``docs/filesystems/fat.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.core.units import div_up
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    TABLE_BYTES_AT_ONCE,
    Chains,
    Table,
    doubts_of_dirty,
    pieces_of,
    taken_clusters,
)
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.fat.files import file_runs
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
        taken, is_same = _taken(reader, place)
        used = Runs.union(
            [
                taken.shifted(-FIRST_CLUSTER).scaled(place.cluster_size).shifted(place.data_at),
                Runs.of(_outside(place, reader.size)),
            ]
        )
        doubts = []
        if place.is_mirrored and not is_same:
            doubts.append("the copies of its allocation table differ")
        notes = []
        table = _table(reader, place)
        if _is_dirty(place, table):
            notes.append("it was not unmounted")
            doubts += doubts_of_dirty(_reached(reader, place, table), used)
        return Allocation(place.cluster_size, used, tuple(doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        return _reached(reader, place, _table(reader, place))

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        return file_runs(reader, place, _table_size(place))


def _table_size(place: Geometry) -> int:
    """Of one FAT, as far as it has entries for clusters, in bytes."""
    size = div_up((place.cluster_count + FIRST_CLUSTER) * place.bits, 8)
    return min(div_up(size, 3) * 3, place.fat_size) if place.bits == 12 else size


def _table(reader: VolumeReader, place: Geometry) -> Table:
    """The FAT that counts."""
    start = place.fat_at + place.active * place.fat_size
    return Table(reader, start, _table_size(place), place.bits)


def _taken(reader: VolumeReader, place: Geometry) -> tuple[Runs, bool]:
    """The clusters that some FAT has, and whether all FATs are the same."""
    size = _table_size(place)
    reader.expect(size * place.fat_count, "allocation tables")
    found = CollectedRuns()
    is_same = True
    for at, length in pieces_of([(0, size)], TABLE_BYTES_AT_ONCE):
        copies = [
            reader.read(place.fat_at + number * place.fat_size + at, length, "allocation table")
            for number in range(place.fat_count)
        ]
        first = at * 8 // place.bits
        found.add(taken_clusters(copies[0], place.bits).shifted(first))
        for copy in copies[1:]:
            if copy != copies[0]:
                is_same = False
                found.add(taken_clusters(copy, place.bits).shifted(first))
    return found.runs().clip(FIRST_CLUSTER, FIRST_CLUSTER + place.cluster_count), is_same


def _outside(place: Geometry, volume_size: int) -> Iterator[tuple[int, int]]:
    """What no cluster is: what stands before the first, and behind the last."""
    end = place.data_at + place.cluster_count * place.cluster_size
    yield 0, place.data_at
    yield end, volume_size - end


def _is_dirty(place: Geometry, table: Table) -> bool:
    clean = _CLEAN_BITS[place.bits]
    return place.is_marked_dirty or table[1] & clean != clean


def _reached(reader: VolumeReader, place: Geometry, table: Table) -> Iterator[tuple[int, int]]:
    yield 0, place.data_at
    chains = Chains(table, place.cluster_count, mask=_MASKS[place.bits], name=reader.name)
    yield from walk(reader, place, chains)


FILE_SYSTEM: Final = Fat()
