"""Cylinder groups: their headers, with the maps of what is in use.

Source: FreeBSD ``sys/ufs/ffs/fs.h`` (``struct cg``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.ufs.layout import GROUP_MAGIC

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ufs.layout import Superblock

_BLOCKS_FREE_AT: Final = 28
_FRAGMENTS_FREE_AT: Final = 36
_WRITTEN_INODES_AT: Final = 120


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
        written_inodes: of UFS2: so many have been written since the file system was made.
    """

    content: bytes
    start: int
    count: int
    free_at: int
    inodes_at: int
    free_fragments: int
    written_inodes: int


def read_group(reader: VolumeReader, block: Superblock, number: int) -> Group:
    """Read the header of a cylinder group.

    Raises:
        CorruptImageError: if it is none, is another one's, or its maps are not all there.
        ReadError: if it cannot be read.
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
    if magic != GROUP_MAGIC:
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
    written: int = struct.unpack_from(f"{block.order}I", content, _WRITTEN_INODES_AT)[0]
    return Group(content, start, count, free_at, inodes_at, free, written)
