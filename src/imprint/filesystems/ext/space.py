"""What the bitmaps of all groups say, and what is in use whatever they say.

A group whose bitmap was never written has only its own structures in use: its copy of the
superblock and of the descriptors, and of its bitmaps and table of inodes what lies in it.
"""

from __future__ import annotations

from array import array
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.bitmap import runs_of_bits
from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import KIB
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.ext import features
from imprint.filesystems.ext.checksums import checksum
from imprint.filesystems.ext.groups import head_runs, own_runs, read_groups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry
    from imprint.filesystems.ext.groups import Group

_BATCH_BYTES: Final = 128 * KIB
"""Of bitmaps at a time: they may hold half a million runs."""

_WHOLE_BYTES: Final = bytes(1) + b"\xff" * 255
"""Sets all bits of a byte that has any: bitmaps of millions of runs are not told bit by bit."""


class Space(NamedTuple):
    """What is in use.

    Attributes:
        used: in bytes of the volume.
        doubts: see :class:`~imprint.filesystems.allocation.Allocation`.
    """

    used: Runs
    doubts: tuple[str, ...]


def read_space(
    reader: VolumeReader, geometry: Geometry, *, is_strict: bool, is_settled: bool
) -> Space:
    """Read all descriptors and bitmaps.

    Args:
        reader: of the volume.
        geometry: of its superblock.
        is_strict: refuse checksums that do not match, and doubt counts. Before a journal is
            replayed, neither has to be right.
        is_settled: the superblock's count is one of an unmounted file system.

    Raises:
        CorruptImageError: if the structures contradict themselves.
    """
    walk = _Walk(reader, geometry, is_strict=is_strict)
    groups = read_groups(reader, geometry, is_strict=is_strict)
    size = max(1, _BATCH_BYTES // geometry.block_size)
    while batch := list(islice(groups, size)):
        walk.take(batch)
    return walk.space(is_settled=is_settled)


class _Walk:
    """Goes over the groups in order and collects, in blocks."""

    def __init__(self, reader: VolumeReader, geometry: Geometry, *, is_strict: bool) -> None:
        self._reader = reader
        self._geometry = geometry
        self._is_strict = is_strict
        self._used = CollectedRuns()
        self._own = CollectedRuns()
        self._own_total = 0
        self._free = 0
        self._miscounted = array("Q")

    def take(self, batch: list[Group]) -> None:
        """Add some groups that follow each other."""
        geometry = self._geometry
        bitmaps = self._read_bitmaps(group for group in batch if group.has_bitmap)
        length = geometry.superblock.blocks_per_group // geometry.ratio // 8
        joined = bytearray()
        uninitialised: list[tuple[int, int]] = []
        own: list[tuple[int, int]] = []
        for group in batch:
            own += own_runs(group, geometry)
            bits: bytes | memoryview = bytes(length)
            if group.has_bitmap:
                bits = bitmaps[group.block_bitmap][:length]
                if self._is_strict:
                    self._check_bitmap(group, bits)
                used_count = _count(bits, geometry.group_clusters(group.number))
            else:
                runs = self._initial(group)
                used_count = runs.total // geometry.ratio
                uninitialised += runs
            joined += bits
            free = geometry.group_clusters(group.number) - used_count
            self._free += free
            if free != group.free_count:
                self._miscounted.append(group.number)
        if self._used.is_coarse:
            joined = joined.translate(_WHOLE_BYTES)
        first, last = batch[0].number, batch[-1].number
        start = geometry.group_start(first)
        count = (last - first) * length * 8 + geometry.group_clusters(last)
        runs = Runs.of(runs_of_bits(joined, 0, count)).scaled(geometry.ratio).shifted(start)
        self._used.add(runs | Runs.of(uninitialised))
        self._own.add(Runs.of(own))
        self._own_total += sum(length for _, length in own)

    def space(self, *, is_settled: bool) -> Space:
        """What came out."""
        geometry = self._geometry
        heads = Runs.of(head_runs(geometry))
        own = self._own.runs()
        metadata = own | heads
        # With meta_bg, heads are longer than they have to be.
        is_overlapping = own.total != self._own_total or (
            metadata.total != own.total + heads.total
            and not geometry.has(incompat=features.META_BG)
        )
        if is_overlapping:
            raise CorruptImageError(
                "group descriptors: expected a place for each bitmap and inode table, "
                "found some that overlap",
                name=geometry.where,
            )
        told = self._used.runs()
        used = (told | metadata).clip(0, geometry.block_count).scaled(geometry.block_size)
        doubts = []
        if self._is_strict:
            doubts = self._doubts(told, own, is_settled=is_settled)
        end = geometry.block_count * geometry.block_size
        always = [
            (0, 2 * KIB),  # boot code, which no bitmap has if blocks have 1 KiB
            (end, self._reader.size - end),
        ]
        if geometry.has(incompat=features.MMP):
            place = geometry.superblock.mmp_block * geometry.block_size
            self._reader.check(place, geometry.block_size, "block of MMP")
            always.append((place, geometry.block_size))
        return Space(used | Runs.of(always), tuple(doubts))

    def _doubts(self, told: Runs, own: Runs, *, is_settled: bool) -> list[str]:
        doubts = []
        if self._miscounted:
            more = len(self._miscounted) - 1
            others = f" and {more} others" if more else ""
            doubts.append(
                f"the count of free blocks of group {self._miscounted[0]}{others} "
                "does not fit to the bitmap"
            )
        found = self._geometry.free_block_count
        counted = self._free * self._geometry.ratio
        if is_settled and found != counted:
            doubts.append(
                f"the superblock counts {found} free blocks, and the bitmaps have {counted}"
            )
        if (told | own).total != told.total:
            doubts.append("the bitmaps have blocks of bitmaps or inodes as free")
        return doubts

    def _initial(self, group: Group) -> Runs:
        """What is in use of a group without a bitmap, in whole clusters.

        Source: Linux ``ext4_init_block_bitmap``.
        """
        geometry = self._geometry
        start, length = geometry.group_start(group.number), geometry.group_length(group.number)
        runs = Runs.of([(start, geometry.head_blocks(group.number)), *own_runs(group, geometry)])
        return runs.clip(start, start + length).widened(geometry.ratio)

    def _check_bitmap(self, group: Group, bits: memoryview) -> None:
        """Refuse a bitmap whose checksum does not match.

        Source: Linux ``ext4_block_bitmap_csum_verify``.
        """
        geometry = self._geometry
        if not geometry.has(ro_compat=features.METADATA_CSUM):
            return
        expected = checksum(bits, geometry.seed)
        if geometry.descriptor_size < 64:
            expected &= 0xFFFF
        if expected != group.bitmap_checksum:
            raise CorruptImageError(
                f"block bitmap of group {group.number}: expected the checksum "
                f"0x{expected:x}, found 0x{group.bitmap_checksum:x}",
                name=geometry.where,
                offset=group.block_bitmap * geometry.block_size,
            )

    def _read_bitmaps(self, groups: Iterable[Group]) -> dict[int, memoryview]:
        """Bitmaps by their block; those that touch are read in one go."""
        block_size = self._geometry.block_size
        found = {}
        places = Runs.of((group.block_bitmap, 1) for group in groups)
        for place, count in places:
            data = memoryview(
                self._reader.read(place * block_size, count * block_size, "block bitmap")
            )
            for index in range(count):
                found[place + index] = data[index * block_size : (index + 1) * block_size]
        return found


def _count(bits: bytes | memoryview, bit_count: int) -> int:
    """How many of the first bits are set."""
    number = int.from_bytes(bits[: -(-bit_count // 8)], "little")
    return (number & (1 << bit_count) - 1).bit_count()
