"""exFAT: what it uses, told by its allocation bitmap.

A file system that was not unmounted says so; its tree is walked then, and believed if all that
the directories name is marked as used. ``docs/filesystems/exfat.md`` says more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import MIB, div_up
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    TABLE_BYTES_AT_ONCE,
    Chains,
    Table,
    doubts_of_dirty,
    is_zero,
    pieces_of,
)
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.exfat.geometry import Geometry, read_geometry
from imprint.filesystems.exfat.walk import BITMAP, Named, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

_ENTRY_BITS: Final = 32
_MASK: Final = 0xFFFFFFFF
_BAD: Final = re.compile(rb"\xf7\xff\xff\xff")


class Exfat:
    """exFAT, TexFAT too: what either of its two bitmaps has is used."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        table = _table(reader, place)
        taken = CollectedRuns()
        _add_bitmaps(taken, reader, place, table)
        for start in place.fat_at:
            _add_bad_clusters(taken, reader, start, place)
        end = place.heap_at + place.cluster_count * place.cluster_size
        outside = Runs.of([(0, place.heap_at), (end, reader.size - end)])
        clusters = taken.runs().clip(0, place.cluster_count)
        used = clusters.scaled(place.cluster_size).shifted(place.heap_at) | outside
        doubts: list[str] = []
        notes: list[str] = []
        if place.has_failed:
            notes.append("a system has met sectors that it could not read")
        if place.is_dirty:
            notes.append("it was not unmounted")
            doubts += doubts_of_dirty(_reached(reader, place, table), used)
        return Allocation(place.cluster_size, used, tuple(doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        return _reached(reader, place, _table(reader, place))

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`. Of folders as well."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        for named in _named(reader, place, _table(reader, place)):
            position = 0
            for offset, length in named.extents:
                yield position, offset, length
                position += length


def _table(reader: VolumeReader, place: Geometry) -> Table:
    return Table(reader, place.fat_at[place.active], _table_size(place), _ENTRY_BITS)


def _table_size(place: Geometry) -> int:
    return _ENTRY_BITS // 8 * (place.cluster_count + FIRST_CLUSTER)


def _add_bitmaps(taken: CollectedRuns, reader: VolumeReader, place: Geometry, table: Table) -> None:
    """Add what each allocation bitmap has, as clusters counted from 0."""
    found: set[int] = set()
    size = div_up(place.cluster_count, 8)
    for named in _named(reader, place, table):
        if named.type == BITMAP:
            if named.length < size:
                what = f"allocation bitmap: expected {size} bytes, found {named.length}"
                raise CorruptImageError(what, name=reader.name)
            _add_bitmap(taken, reader, place, named)
            found.add(named.flags & 1)
        if len(found) == len(place.fat_at):
            break
    if place.active not in found:
        raise CorruptImageError("root directory: expected a bitmap, found none", name=reader.name)


def _add_bitmap(taken: CollectedRuns, reader: VolumeReader, place: Geometry, named: Named) -> None:
    left = div_up(place.cluster_count, 8)
    reader.expect(left, "allocation bitmap")
    first = 0
    for offset, length in pieces_of(named.extents, MIB):
        content = reader.read(offset, min(length, left), "allocation bitmap")
        taken.add_bits(content, first, min(8 * len(content), place.cluster_count - first))
        first += 8 * len(content)
        left -= len(content)
        if left == 0:
            return
    what = f"allocation bitmap: expected clusters for {left} more bytes"
    raise CorruptImageError(what, name=reader.name)


def _add_bad_clusters(
    taken: CollectedRuns, reader: VolumeReader, start: int, place: Geometry
) -> None:
    size = _table_size(place)
    reader.expect(size, "allocation table")
    for at, length in pieces_of([(0, size)], TABLE_BYTES_AT_ONCE):
        table = reader.read(start + at, length, "allocation table")
        if is_zero(table):
            continue
        places = (match.start() for match in _BAD.finditer(table))
        bad = Runs.of(((at + place) // 4, 1) for place in places if place % 4 == 0)
        bad = bad.clip(FIRST_CLUSTER, size // 4)
        if len(bad):
            taken.add(bad.shifted(-FIRST_CLUSTER))


def _reached(reader: VolumeReader, place: Geometry, table: Table) -> Iterator[tuple[int, int]]:
    yield 0, place.heap_at
    for named in _named(reader, place, table):
        yield from named.extents


def _named(reader: VolumeReader, place: Geometry, table: Table) -> Iterator[Named]:
    chains = Chains(table, place.cluster_count, mask=_MASK, name=reader.name)
    return walk(reader, place, chains)


FILE_SYSTEM: Final = Exfat()
