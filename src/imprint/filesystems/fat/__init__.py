"""FAT12, FAT16 and FAT32: what they use, told by the file allocation table.

The count of free clusters in FAT32's information sector is not looked at: it is often wrong.
A file system that was not unmounted says so; its tree is walked then, and believed if every
chain that a directory names is marked as used. ``docs/filesystems/fat.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.clusters import FIRST_CLUSTER, Chains, Table, doubts_of_dirty
from imprint.filesystems.fat.files import file_runs
from imprint.filesystems.fat.geometry import Geometry, read_geometry
from imprint.filesystems.fat.table import CLEAN_BITS, MASKS, table_size, taken
from imprint.filesystems.fat.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Fat:
    """FAT12, FAT16, FAT32."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        found, is_same = taken(reader, place)
        used = Runs.union(
            [
                found.shifted(-FIRST_CLUSTER).scaled(place.cluster_size).shifted(place.data_at),
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
        return file_runs(reader, place, table_size(place))


def _table(reader: VolumeReader, place: Geometry) -> Table:
    """The FAT that counts."""
    start = place.fat_at + place.active * place.fat_size
    return Table(reader, start, table_size(place), place.bits)


def _outside(place: Geometry, volume_size: int) -> Iterator[tuple[int, int]]:
    """What no cluster is: what stands before the first, and behind the last."""
    end = place.data_at + place.cluster_count * place.cluster_size
    yield 0, place.data_at
    yield end, volume_size - end


def _is_dirty(place: Geometry, table: Table) -> bool:
    clean = CLEAN_BITS[place.bits]
    return place.is_marked_dirty or table[1] & clean != clean


def _reached(reader: VolumeReader, place: Geometry, table: Table) -> Iterator[tuple[int, int]]:
    yield 0, place.data_at
    chains = Chains(table, place.cluster_count, mask=MASKS[place.bits], name=reader.name)
    yield from walk(reader, place, chains)


FILE_SYSTEM: Final = Fat()
