"""exFAT: what it uses, told by its allocation bitmap.

A file system that was not unmounted says so; its tree is walked then, and believed if all that
the directories name is marked as used. ``docs/filesystems/exfat.md`` says more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import runs_of_bits
from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import div_up
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.clusters import Chains, doubts_of_dirty, entries_of
from imprint.filesystems.exfat.geometry import Geometry, read_geometry
from imprint.filesystems.exfat.walk import BITMAP, Named, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

_MASK: Final = 0xFFFFFFFF
_BAD: Final = re.compile(rb"\xf7\xff\xff\xff")


class Exfat:
    """exFAT, TexFAT too: what either of its two bitmaps has is used."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        tables = [
            reader.read(at, 4 * (place.cluster_count + 2), "allocation table")
            for at in place.fat_at
        ]
        bitmaps = _bitmaps(reader, place, tables[place.active])
        taken = Runs.union([*bitmaps, *(_bad_clusters(table) for table in tables)])
        end = place.heap_at + place.cluster_count * place.cluster_size
        outside = Runs.of([(0, place.heap_at), (end, reader.size - end)])
        used = taken.scaled(place.cluster_size).shifted(place.heap_at).clip(0, end) | outside
        doubts: list[str] = []
        notes: list[str] = []
        if place.has_failed:
            notes.append("a system has met sectors that it could not read")
        if place.is_dirty:
            notes.append("it was not unmounted")
            doubts += doubts_of_dirty(_reached(reader, place, tables[place.active]), used)
        return Allocation(place.cluster_size, used, tuple(doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        reader = VolumeReader(volume)
        place = read_geometry(reader)
        table = reader.read(
            place.fat_at[place.active], 4 * (place.cluster_count + 2), "allocation table"
        )
        return _reached(reader, place, table)


def _bitmaps(reader: VolumeReader, place: Geometry, table: bytearray) -> list[Runs]:
    """What each allocation bitmap has, as clusters counted from 0."""
    found: dict[int, Runs] = {}
    size = div_up(place.cluster_count, 8)
    for named in _named(reader, place, table):
        if named.type == BITMAP:
            if named.length < size:
                what = f"allocation bitmap: expected {size} bytes, found {named.length}"
                raise CorruptImageError(what, name=reader.name)
            content = b"".join(
                bytes(reader.read(offset, length, "allocation bitmap"))
                for offset, length in named.extents
            )
            if len(content) < size:
                what = f"allocation bitmap: expected {size} bytes, found clusters for less"
                raise CorruptImageError(what, name=reader.name)
            found[named.flags & 1] = Runs.of(runs_of_bits(content, 0, place.cluster_count))
        if len(found) == len(place.fat_at):
            break
    if place.active not in found:
        raise CorruptImageError("root directory: expected a bitmap, found none", name=reader.name)
    return list(found.values())


def _bad_clusters(table: bytearray) -> Runs:
    matches = (match.start() for match in _BAD.finditer(table))
    return Runs.of((at // 4 - 2, 1) for at in matches if at % 4 == 0 and at >= 8)


def _reached(reader: VolumeReader, place: Geometry, table: bytearray) -> Iterator[tuple[int, int]]:
    yield 0, place.heap_at
    for named in _named(reader, place, table):
        yield from named.extents


def _named(reader: VolumeReader, place: Geometry, table: bytearray) -> Iterator[Named]:
    chains = Chains(entries_of(table, 32), place.cluster_count, mask=_MASK, name=reader.name)
    return walk(reader, place, chains)


FILE_SYSTEM: Final = Exfat()
