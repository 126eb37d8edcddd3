"""Where files lie: the tables of inodes, decoded by rows."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.ext.groups import read_groups
from imprint.filesystems.ext.layout import (
    EXTENT_LENGTH_MAX,
    FILE_MARK,
    HAS_INLINE_DATA,
    ONE_EXTENT,
    TYPE_MASK,
    USES_EXTENTS,
    Inode,
)
from imprint.filesystems.ext.trees import NODE, Trees
from imprint.filesystems.ext.walk import read_inodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry

_HEAD: Final = "<H24xH4xI4x60s"
"""Of an inode: mode, links, flags, and the root of its tree, as :class:`Inode` has them.

As numbers and not as a structure: a volume has millions of them.
"""
_EXTENT: Final = struct.Struct("<12xIHHI")


def file_runs(reader: VolumeReader, geometry: Geometry) -> Iterator[tuple[int, int, int]]:
    """See :class:`~imprint.filesystems.files.Locating`."""
    size, end = geometry.block_size, geometry.block_count
    inode_size = geometry.superblock.inode_size
    rows = struct.Struct(f"{_HEAD}{inode_size - struct.calcsize(_HEAD)}x")
    extent, trees = _EXTENT.unpack_from, Trees(reader, geometry)
    for group in read_groups(reader, geometry, is_strict=False):
        for _, first, data in read_inodes(reader, geometry, group):
            for index, (mode, links, flags, root) in enumerate(rows.iter_unpack(data)):
                if mode & TYPE_MASK != FILE_MARK or not links or flags & HAS_INLINE_DATA:
                    continue
                if flags & USES_EXTENTS and root.startswith(ONE_EXTENT):
                    position, length, high, low = extent(root)
                    if length > EXTENT_LENGTH_MAX:
                        length -= EXTENT_LENGTH_MAX
                    block = low | high << 32
                    if block + length <= end:
                        yield position * size, block * size, length * size
                    continue
                inode = Inode.unpack(data[index * inode_size :])
                for position, block, length in trees.pieces(inode, first + index):
                    if position != NODE:
                        yield position * size, block * size, length * size
