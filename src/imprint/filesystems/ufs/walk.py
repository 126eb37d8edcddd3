"""Walking UFS: the blocks that inodes name.

Source: FreeBSD ``sys/ufs/ufs/dinode.h``, ``sys/ufs/ffs/ffs_inode.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.units import MIB
from imprint.filesystems.clusters import pieces_of
from imprint.filesystems.ufs.inodes import DIRECT, MARKS, inode_of
from imprint.filesystems.ufs.layout import INODE_BYTES, Superblock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.runs import Runs
    from imprint.filesystems.allocation import VolumeReader

_INODES_BYTES_AT_ONCE: Final = MIB
_KINDS: Final = 0xF000
_FOLDER, _FILE, _LINK = 0x4000, 0x8000, 0xA000


def reached(
    reader: VolumeReader,
    block: Superblock,
    group: int,
    inodes: Runs,
    seen: set[tuple[int, int]],
) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of what the inodes of a group are and name, in bytes of the volume.

    Args:
        reader: of the volume.
        block: the superblock.
        group: number of the cylinder group.
        inodes: of the group, that are in use.
        seen: indirect blocks that were followed, with their level; it is added to.

    Raises:
        CorruptImageError: if a block is not inside the volume.
    """
    size = INODE_BYTES[block.version]
    base = (block.group_start(group) + block.inodes_at) * block.fragment
    ranges = ((base + first * size, count * size) for first, count in inodes)
    for offset, length in pieces_of(ranges, _INODES_BYTES_AT_ONCE):
        content = bytes(reader.read(offset, length, "inodes"))
        yield offset, length
        for at in range(0, len(content), size):
            for start, count in _extents(reader, block, content[at : at + size], seen):
                reader.check(start * block.fragment, count * block.fragment, "block of a file")
                yield start * block.fragment, count * block.fragment


def _extents(
    reader: VolumeReader, block: Superblock, inode: bytes, seen: set[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """First fragment, and count of fragments."""
    if not inode.strip(b"\0"):
        return
    found = inode_of(block, inode)
    kind = found.mode & _KINDS
    yield from _direct(block, found.attributes, found.attributes_size)
    if kind not in (_FOLDER, _FILE, _LINK) or (kind == _LINK and found.is_within(block)):
        return
    yield from _direct(block, found.pointers[:DIRECT], found.size)
    for level, pointer in enumerate(found.pointers[DIRECT:]):
        yield from _indirect(reader, block, pointer, level, seen)


def _direct(block: Superblock, pointers: tuple[int, ...], length: int) -> Iterator[tuple[int, int]]:
    """The last block of a small file may have fewer fragments than a block."""
    block_bytes = block.fragment * block.block_fragments
    for index, pointer in enumerate(pointers):
        if pointer in (0, *MARKS):
            continue
        rest = max(1, min(block_bytes, length - index * block_bytes))
        yield pointer, -(-rest // block.fragment)


def _indirect(
    reader: VolumeReader,
    block: Superblock,
    pointer: int,
    level: int,
    seen: set[tuple[int, int]],
) -> Iterator[tuple[int, int]]:
    """A block of pointers, with those that it leads to; at most three levels."""
    if pointer in (0, *MARKS):
        return
    yield pointer, block.block_fragments
    if (pointer, level) in seen:
        return
    seen.add((pointer, level))
    length = block.fragment * block.block_fragments
    content = bytes(reader.read(pointer * block.fragment, length, "indirect block"))
    if not content.strip(b"\0"):
        return
    code, width = ("I", 4) if block.version == 1 else ("Q", 8)
    for inner in struct.unpack(f"{block.order}{length // width}{code}", content):
        if inner in (0, *MARKS):
            continue
        if level:
            yield from _indirect(reader, block, inner, level - 1, seen)
        else:
            yield inner, block.block_fragments
