"""All that inodes lead to, found without a look at the bitmaps."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.units import MIB
from imprint.filesystems.ext.groups import head_runs, own_runs, read_groups
from imprint.filesystems.ext.layout import BAD_BLOCKS_INODE, Inode
from imprint.filesystems.ext.ring import read_inode
from imprint.filesystems.ext.trees import NODE, Trees, has_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry
    from imprint.filesystems.ext.groups import Group

_READ_BYTES: Final = 1 * MIB
_LINK_COUNT_AT: Final = Inode.FIELDS["link_count"].at
_ORPHAN_TAIL_BYTES: Final = 8


def reached(reader: VolumeReader, geometry: Geometry) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of structures, inodes in use, and of the blocks that they have.

    Inodes are in use if something links to them, or if they are in a list of orphans.

    Raises:
        CorruptImageError: if a tree leads outside, or to a block of a tree again.
        ReadError: if a part cannot be read.
    """
    size = geometry.block_size
    for first, count in head_runs(geometry):
        # Room that descriptors may grow into belongs to the inode of that.
        room = min(geometry.superblock.reserved_gdt_blocks, count - 1)
        yield first * size, (count - room) * size
    walk = _Walk(reader, geometry)
    for group in read_groups(reader, geometry, is_strict=False):
        yield from walk.group(group)
    yield from walk.orphans()


def read_inodes(
    reader: VolumeReader, geometry: Geometry, group: Group
) -> Iterator[tuple[int, int, memoryview]]:
    """A group's inodes as far as they were ever in use, by pieces of at most 1 MiB.

    Gives where a piece is in the volume, the number of its first inode, and its bytes.
    """
    block = geometry.superblock
    table = group.inode_table * geometry.block_size
    first = group.number * block.inodes_per_group + 1
    per_read = max(1, _READ_BYTES // block.inode_size)
    for index in range(0, group.inodes_used, per_read):
        count = min(per_read, group.inodes_used - index)
        offset = table + index * block.inode_size
        data = memoryview(reader.read(offset, count * block.inode_size, "inodes"))
        yield offset, first + index, data


class _Walk:
    def __init__(self, reader: VolumeReader, geometry: Geometry) -> None:
        self._reader = reader
        self._geometry = geometry
        self._trees = Trees(reader, geometry)
        self._orphans: set[int] = set()

    def group(self, group: Group) -> Iterator[tuple[int, int]]:
        """A group's bitmaps, and its inodes with their blocks."""
        bitmaps = own_runs(group, self._geometry)[:2]
        for place, length in bitmaps if group.has_bitmap else bitmaps[1:]:
            yield place * self._geometry.block_size, length * self._geometry.block_size
        for offset, first, data in read_inodes(self._reader, self._geometry, group):
            yield offset, len(data)
            yield from self._inodes(data, first)

    def orphans(self) -> Iterator[tuple[int, int]]:
        """Inodes that are deleted and were still open."""
        block = self._geometry.superblock
        number = block.last_orphan
        while number and number not in self._orphans:
            inode = read_inode(self._reader, self._geometry, number)
            yield from self._orphan(inode, number)
            number = inode.deletion_time
        if block.orphan_file_inode:
            file = read_inode(self._reader, self._geometry, block.orphan_file_inode)
            # Its tree was walked before, and another walk may follow it again.
            trees = Trees(self._reader, self._geometry)
            for piece in trees.pieces(file, block.orphan_file_inode):
                if piece.position != NODE:
                    for index in range(piece.length):
                        yield from self._listed(piece.block + index)

    def _listed(self, block: int) -> Iterator[tuple[int, int]]:
        size = self._geometry.block_size
        data = self._reader.read(block * size, size, "orphan file")
        for number in struct.unpack_from(f"<{(size - _ORPHAN_TAIL_BYTES) // 4}I", data):
            if number and number not in self._orphans:
                inode = read_inode(self._reader, self._geometry, number)
                yield from self._orphan(inode, number)

    def _orphan(self, inode: Inode, number: int) -> Iterator[tuple[int, int]]:
        self._orphans.add(number)
        if inode.link_count == 0:
            yield from self._blocks(inode, number)

    def _inodes(self, data: memoryview, first: int) -> Iterator[tuple[int, int]]:
        """The blocks of those inodes of a part of a table that have links."""
        size = self._geometry.superblock.inode_size
        low, high = data[_LINK_COUNT_AT::size], data[_LINK_COUNT_AT + 1 :: size]
        for index, has_links in enumerate(map(any, zip(low, high, strict=True))):
            number = first + index
            if has_links or number == BAD_BLOCKS_INODE:
                yield from self._blocks(Inode.unpack(data[index * size :]), number)

    def _blocks(self, inode: Inode, number: int) -> Iterator[tuple[int, int]]:
        size = self._geometry.block_size
        xattr_block = inode.xattr_block_low | inode.xattr_block_high << 32
        if xattr_block:
            yield xattr_block * size, size
        if has_blocks(inode) or number == BAD_BLOCKS_INODE:
            for _, block, length in self._trees.pieces(inode, number):
                yield block * size, length * size
