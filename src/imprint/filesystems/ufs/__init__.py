"""UFS1 and UFS2 (FFS of the BSDs): what they use, told by the maps of their cylinder groups.

``docs/filesystems/ufs.md`` says more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import complement, runs_of_bits
from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.ufs import layout
from imprint.filesystems.ufs.layout import Superblock, read_superblock
from imprint.filesystems.ufs.walk import reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

_BLOCKS_FREE_AT, _FRAGMENTS_FREE_AT = 28, 36


@dataclass(frozen=True)
class Group:
    """A cylinder group's header.

    Attributes:
        content: the header, with its maps.
        start: its first fragment.
        count: of its fragments.
        free_at: where in the header the map of free fragments begins.
        inodes_at: the same of the map of inodes in use.
        free_fragments: by its own counts.
    """

    content: bytes
    start: int
    count: int
    free_at: int
    inodes_at: int
    free_fragments: int


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


def read_group(reader: VolumeReader, block: Superblock, number: int) -> Group:
    """Read the header of a cylinder group.

    Raises:
        CorruptImageError: if it is none, is another one's, or its maps are not all there.
    """
    where = (block.group_start(number) + block.header_at) * block.fragment
    content = bytes(reader.read(where, block.group_bytes, f"cylinder group {number}"))
    start = number * block.group_fragments
    count = min(block.group_fragments, block.size - start)
    magic, index = (struct.unpack_from(f"{block.order}I", content, at)[0] for at in (4, 12))
    inodes_at, free_at = struct.unpack_from(f"{block.order}2I", content, 92)
    blocks, fragments = (
        struct.unpack_from(f"{block.order}i", content, at)[0]
        for at in (_BLOCKS_FREE_AT, _FRAGMENTS_FREE_AT)
    )
    problem = None
    if magic != layout.GROUP_MAGIC:
        problem = "its mark, found none"
    elif index != number:
        problem = f"its number, found {index}"
    elif free_at + -(-count // 8) > len(content) or free_at < 128:
        problem = f"a map of {count} fragments"
    elif inodes_at + block.group_inodes // 8 > len(content) or inodes_at < 128:
        problem = f"a map of {block.group_inodes} inodes"
    if problem is not None:
        raise CorruptImageError(f"cylinder group {number}: expected {problem}", name=reader.name)
    free = blocks * block.block_fragments + fragments
    return Group(content, start, count, free_at, inodes_at, free)


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
