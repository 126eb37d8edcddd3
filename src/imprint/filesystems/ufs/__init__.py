"""UFS1 and UFS2 (FFS of the BSDs): what they use, told by the maps of their cylinder groups.

``docs/filesystems/ufs.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import complement, runs_of_bits
from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.ufs import layout
from imprint.filesystems.ufs.groups import read_group
from imprint.filesystems.ufs.layout import Superblock, read_superblock
from imprint.filesystems.ufs.walk import reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Ufs:
    """UFS1, UFS2."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        reader = VolumeReader(volume)
        block = read_superblock(reader)
        taken = CollectedRuns()
        doubts = list(_doubts(block))
        free = 0
        for number in range(block.group_count):
            group = read_group(reader, block, number)
            bits = complement(group.content[group.free_at : group.free_at + -(-group.count // 8)])
            used = Runs.of(runs_of_bits(bits, 0, group.count)).shifted(group.start)
            free += group.count - used.total
            if group.count - used.total != group.free_fragments and len(doubts) < 1:
                doubts.append(f"cylinder group {number}: its counts are not those of its map")
            taken.add(used)
            taken.add(_tables(block, number))
        if free != block.free_fragments and not doubts:
            doubts.append(f"expected {block.free_fragments} free fragments, found {free}")
        end = block.size * block.fragment
        outside = Runs.of(
            [(end, reader.size - end), *((place, 8192) for place in layout.SUPER_OFFSETS)]
        )
        used = taken.runs().clip(0, block.size).scaled(block.fragment) | outside.clip(
            0, reader.size
        )
        return Allocation(block.fragment, used, tuple(doubts))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        reader = VolumeReader(volume)
        block = read_superblock(reader)
        seen: set[tuple[int, int]] = set()
        for number in range(block.group_count):
            group = read_group(reader, block, number)
            map_bytes = group.content[group.inodes_at : group.inodes_at + block.group_inodes // 8]
            inodes = Runs.of(runs_of_bits(map_bytes, 0, len(map_bytes) * 8))
            yield from reached(reader, block, number, inodes, seen)


def _tables(block: Superblock, number: int) -> Runs:
    """A group's copy of the superblock, its header and its inodes, whatever its map says."""
    start = block.group_start(number)
    return Runs.of([(start + block.super_at, block.data_at - block.super_at)])


def _doubts(block: Superblock) -> Iterator[str]:
    if not block.is_clean:
        yield "it was not unmounted"
    if block.needs_check:
        yield "it asks to be checked"
    if block.is_journaled:
        yield "its journal is in a layer that is not here"


FILE_SYSTEM: Final = Ufs()
