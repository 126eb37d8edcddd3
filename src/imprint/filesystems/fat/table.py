"""The file allocation table: which clusters are taken, and changing that.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, FAT Data Structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TargetTooSmallError
from imprint.core.units import div_up
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    TABLE_BYTES_AT_ONCE,
    pieces_of,
    runs_of,
    taken_clusters,
)
from imprint.filesystems.collected import CollectedRuns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.runs import Runs
    from imprint.filesystems.fat.geometry import Geometry
    from imprint.filters.window import Editable

MASKS: Final = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
"""What counts of an entry; all of these bits set end a chain."""

CLEAN_BITS: Final = {12: 0, 16: 0xC000, 32: 0x0C000000}
"""What entry 1 has, if the last system that wrote has finished, and met no bad sector."""

_PAGE_BYTES: Final = 48 << 10  # whole pairs of entries of 12 bits, which share three bytes
_SECTOR_BYTES: Final = 512


def table_size(place: Geometry) -> int:
    """Of one FAT, as far as it has entries for clusters, in bytes."""
    size = div_up((place.cluster_count + FIRST_CLUSTER) * place.bits, 8)
    return min(div_up(size, 3) * 3, place.fat_size) if place.bits == 12 else size


def taken(reader: VolumeReader, place: Geometry) -> tuple[Runs, bool]:
    """The clusters that some FAT has, and whether all FATs are the same."""
    size = table_size(place)
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


class EditableTable:
    """A FAT that is changed in memory first, then in all its copies on the volume."""

    def __init__(self, volume: Editable, place: Geometry) -> None:
        """Reads all of it once, to know what is free.

        Raises:
            CorruptImageError: if its copies differ: nobody can tell which of them is right.
            ReadError: if it cannot be read.
        """
        self._volume = volume
        self._place = place
        self._pages: dict[int, bytearray] = {}
        self._changed: set[int] = set()
        used, is_same = taken(VolumeReader(volume), place)
        if place.is_mirrored and not is_same:
            raise CorruptImageError("the copies of its allocation table differ", name=volume.name)
        end = FIRST_CLUSTER + place.cluster_count
        free = used.complement(end).clip(FIRST_CLUSTER, end)
        self._free = [[start, length] for start, length in free]
        self._released: list[int] = []
        self._mask = MASKS[place.bits]

    @property
    def free_count(self) -> int:
        """Clusters that are free."""
        return sum(length for _, length in self._free)

    def __getitem__(self, cluster: int) -> int:
        """What counts of a cluster's entry."""
        page, at, width = self._entry(cluster)
        value = int.from_bytes(page[at : at + width], "little")
        if self._place.bits == 12:
            return value >> 4 if cluster % 2 else value & 0xFFF
        return value & self._mask

    def __setitem__(self, cluster: int, value: int) -> None:
        """Change it in memory; the bits that do not count stay."""
        page, at, width = self._entry(cluster)
        old = int.from_bytes(page[at : at + width], "little")
        shift = 4 if self._place.bits == 12 and cluster % 2 else 0
        new = old & ~(self._mask << shift) | value << shift
        page[at : at + width] = new.to_bytes(width, "little")
        start = cluster * self._place.bits // 8
        self._changed.update({start // _SECTOR_BYTES, (start + width - 1) // _SECTOR_BYTES})

    def chain(self, first: int) -> list[int]:
        """The clusters of a file or folder, in its order; none for 0.

        Raises:
            CorruptImageError: if it leads nowhere, or back into itself.
        """
        found: list[int] = []
        seen: set[int] = set()
        cluster = first
        while first and cluster < self._mask - 7:
            known = FIRST_CLUSTER <= cluster < FIRST_CLUSTER + self._place.cluster_count
            if not known or cluster in seen:
                raise CorruptImageError(
                    f"chain from cluster {first}: expected another cluster, found {cluster}",
                    name=self._volume.name,
                )
            seen.add(cluster)
            found.append(cluster)
            cluster = self[cluster]
        return found

    def allocate(self, count: int) -> list[int]:
        """A new chain in memory, of neighbours if there are enough in one place.

        Raises:
            TargetTooSmallError: if there are not so many free clusters.
        """
        if count > self.free_count:
            raise TargetTooSmallError(
                f"has room for {self.free_count * self._place.cluster_size} bytes, "
                f"{count * self._place.cluster_size} are needed",
                name=self._volume.name,
            )
        if count == 0:
            return []
        clusters: list[int] = []
        fitting = next((run for run in self._free if run[1] >= count), None)
        for run in [fitting] if fitting is not None else self._free:
            part = min(run[1], count - len(clusters))
            clusters += range(run[0], run[0] + part)
            run[0] += part
            run[1] -= part
        self._free = [run for run in self._free if run[1]]
        self.link(clusters)
        return clusters

    def link(self, clusters: list[int]) -> None:
        """Make them one chain, in memory."""
        for cluster, following in zip(clusters, [*clusters[1:], self._mask], strict=True):
            self[cluster] = following

    def release(self, clusters: Iterable[int]) -> None:
        """Mark them as free, in memory; they are given out again once that is durable."""
        for cluster in clusters:
            self[cluster] = 0
            self._released.append(cluster)

    def write(self) -> None:
        """Write what was changed into the copies, and make it durable."""
        place = self._place
        copies = range(place.fat_count) if place.is_mirrored else [place.active]
        for number in copies:
            start = place.fat_at + number * place.fat_size
            for first, count in runs_of(sorted(self._changed)):
                for sector in range(first, first + count):
                    self._write_sector(sector * _SECTOR_BYTES, start)
        self._changed.clear()
        self._volume.flush()
        self._free += [list(run) for run in runs_of(sorted(self._released))]
        self._free.sort()
        self._released.clear()

    def _write_sector(self, at: int, start: int) -> None:
        page, within = divmod(at, _PAGE_BYTES)
        data = memoryview(self._page(page))[within : within + _SECTOR_BYTES]
        self._volume.write(data, start + at)

    def _entry(self, cluster: int) -> tuple[bytearray, int, int]:
        """The page that has it, where in that, and how many bytes have a part of it."""
        page, at = divmod(cluster * self._place.bits // 8, _PAGE_BYTES)
        return self._page(page), at, 2 if self._place.bits == 12 else self._place.bits // 8

    def _page(self, number: int) -> bytearray:
        page = self._pages.get(number)
        if page is None:
            start = number * _PAGE_BYTES
            page = bytearray(min(_PAGE_BYTES, self._place.fat_size - start))
            at = self._place.fat_at + self._place.active * self._place.fat_size
            self._volume.readinto(memoryview(page), at + start)
            self._pages[number] = page
        return page
