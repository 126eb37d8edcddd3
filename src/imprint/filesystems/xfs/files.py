"""Where files lie: the extents of inodes, decoded by rows."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.groups import Group
from imprint.filesystems.xfs.layout import Inode
from imprint.filesystems.xfs.walk import NODE, Inodes, chunks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.xfs.geometry import Geometry, Reader

_HEAD: Final = ">HHxB18xQ44xI2xB7xH28xQ"
"""Of an inode: magic, mode, format, wide count of extents, count, place of the attributes, and
both flags, as :class:`Inode` has them.

As numbers and not as a structure: a volume has millions of them.
"""


def file_runs(reader: Reader, geometry: Geometry) -> Iterator[tuple[int, int, int]]:
    """See :class:`~imprint.filesystems.files.Locating`."""
    size = geometry.superblock.inode_size
    rows = struct.Struct(f"{_HEAD}{size - struct.calcsize(_HEAD)}x")
    inodes = Inodes(reader, geometry, follow=True)
    for first, offset, count in inode_places(reader, geometry, inodes):
        data = memoryview(reader.read(offset, count * size, "inodes"))
        for at, row in enumerate(rows.iter_unpack(data)):
            magic, mode, form, wide, extents, attr_at, flags, flags2 = row
            is_file = magic == layout.INODE_MAGIC and mode & layout.TYPE_MASK == layout.FILE_MARK
            if not is_file or flags & layout.INODE_REALTIME:
                continue
            if geometry.is_v5 and flags2 & layout.INODE_LARGE_COUNTS:
                extents = wide
            start = at * size + (Inode.SIZE if geometry.is_v5 else layout.INODE_CORE_V4)
            fork = data[start : start + attr_at * 8 if attr_at else (at + 1) * size]
            for run in inodes.of_fork(first + at, form, fork, extents):
                if run[0] != NODE:
                    yield run


def inode_places(
    reader: Reader, geometry: Geometry, inodes: Inodes
) -> Iterator[tuple[int, int, int]]:
    """Number of the first, place in the volume, and count of inodes that are in a row."""
    for index in range(geometry.superblock.group_count):
        group = Group(reader, geometry, index)
        for _, chunks in chunks_of(group):
            for first, counts, *_ in chunks:
                for _, number, offset, count in inodes.places(group, first, counts):
                    yield number, offset, count
