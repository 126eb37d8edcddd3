"""In which state the files of XFS, version 5, were left: what their inodes say.

What changes when a file is only read is left out.

Source: Linux ``fs/xfs/libxfs/xfs_format.h`` (``struct xfs_dinode``), ``xfs_inode_buf.c``
(``xfs_inode_from_disk_ts``).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.states import FileState, listed
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.files import inode_places
from imprint.filesystems.xfs.layout import Inode
from imprint.filesystems.xfs.walk import NODE, Inodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.xfs.geometry import Geometry, Reader

_HEAD: Final = ">HHxB10xI4xQ16xqQ12xI2xB7xH28xQ"
"""Of an inode: magic, mode, format, links, wide count of extents, time of change, size, count of
extents, place of the attributes, and both flags. Up to byte 128.

As numbers and not as a structure: a volume has millions of them.
"""
_STATE: Final = "32s8x60s4x8s8x"
"""Of an inode all but the time of access, the checksum and the place in the log, which both change
with it. Up to byte 120."""

_BIG_TIME_EPOCH_S: Final = -(1 << 31)


def file_states(reader: Reader, geometry: Geometry) -> Iterator[FileState]:
    """See :class:`~imprint.filesystems.states.States`."""
    size = geometry.superblock.inode_size
    heads = struct.Struct(f"{_HEAD}{size - struct.calcsize(_HEAD)}x")
    states = struct.Struct(f"{_STATE}{size - struct.calcsize(_STATE)}s")
    own = _own_files(geometry)
    inodes = Inodes(reader, geometry, follow=True)
    for first, offset, count in inode_places(reader, geometry, inodes):
        data = memoryview(reader.read(offset, count * size, "inodes"))
        rows = zip(heads.iter_unpack(data), states.iter_unpack(data), strict=True)
        for at, (head, state) in enumerate(rows):
            magic, mode, form, links, wide, changed, length, extents, attr_at, flags, flags2 = head
            is_file = magic == layout.INODE_MAGIC and mode & layout.TYPE_MASK == layout.FILE_MARK
            if not is_file or not links or flags & layout.INODE_REALTIME or first + at in own:
                continue
            if flags2 & layout.INODE_LARGE_COUNTS:
                extents = wide
            start = at * size + Inode.SIZE
            fork = data[start : start + attr_at * 8 if attr_at else (at + 1) * size]
            found = inodes.of_fork(first + at, form, fork, extents)
            runs = listed((place, room) for position, place, room in found if position != NODE)
            if runs:
                time_ns = _time_ns(changed, is_big=bool(flags2 & layout.INODE_BIG_TIME))
                yield FileState(first + at, state, time_ns, length, runs)


def _own_files(geometry: Geometry) -> frozenset[int]:
    """Inodes of the file system's own files, which it writes as it does with its trees."""
    block = geometry.superblock
    return frozenset(
        {
            block.realtime_bitmap_inode,
            block.realtime_summary_inode,
            block.user_quota_inode,
            block.group_quota_inode,
            block.project_quota_inode,
        }
    )


def _time_ns(raw: int, *, is_big: bool) -> int:
    """A time stamp, which is a signed number of 8 bytes here: it is one, or two of 4 bytes."""
    if is_big:
        return (raw & (1 << 64) - 1) + _BIG_TIME_EPOCH_S * 10**9
    return (raw >> 32) * 10**9 + (raw & 0xFFFF_FFFF)
