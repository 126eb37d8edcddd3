"""In which state the files of ext2, ext3 and ext4 were left: what their inodes say.

What changes when a file is only read is left out.

Source: Linux ``Documentation/filesystems/ext4`` ("Inode Table"), ``fs/ext4/ext4.h``
(``struct ext4_inode``).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.ext.groups import read_groups
from imprint.filesystems.ext.layout import (
    EXTENT_LENGTH_MAX,
    FILE_MARK,
    HAS_INLINE_DATA,
    IS_EA_INODE,
    IS_IMMUTABLE,
    ONE_EXTENT,
    TYPE_MASK,
    USES_EXTENTS,
    Inode,
)
from imprint.filesystems.ext.trees import NODE, Trees
from imprint.filesystems.ext.walk import read_inodes
from imprint.filesystems.states import FileState, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry

_SHORT: Final = 128
_HEAD: Final = "<H2xI4xi10xH4xI4x60sI4xI"
"""Of an inode: mode, lower size, time of change, links, flags, root of its tree, generation, and
upper size.

Up to byte 0x70. As numbers and not as a structure: a volume has millions of them.
"""
_STATE: Final = "<8s4x112s4x"
"""Of an inode all but the time of access and the checksum, up to byte 0x80."""
_LONG_HEAD: Final = "20xI"
_LONG_STATE: Final = "2s2x8s4x"
"""What follows of longer inodes: more of the time of change; all but what belongs to the time of
access and the checksum, up to byte 0x90."""

_EXTENT: Final = struct.Struct("<12xIHHI")
_KEPT_BESIDE: Final = HAS_INLINE_DATA | IS_EA_INODE | IS_IMMUTABLE
"""Files with any of these flags have no blocks, count their users in place of times, or may be
files of quotas that the kernel writes past their times."""


def file_states(reader: VolumeReader, geometry: Geometry) -> Iterator[FileState]:
    """See :class:`~imprint.filesystems.states.States`."""
    size = geometry.superblock.inode_size
    heads, states = _rows(size)
    own = _own_files(geometry)
    trees = Trees(reader, geometry)
    for group in read_groups(reader, geometry, is_strict=False):
        for _, first, data in read_inodes(reader, geometry, group):
            rows = zip(heads.iter_unpack(data), states.iter_unpack(data), strict=True)
            for number, (head, state) in enumerate(rows, first):
                mode, low, changed, links, flags, root, generation, high, *more = head
                if mode & TYPE_MASK != FILE_MARK or not links or flags & _KEPT_BESIDE:
                    continue
                if number in own or number < geometry.superblock.first_inode:
                    continue
                if not generation:
                    continue  # not by the kernel, but by a tool that gives the times it likes
                runs = _one_run(root, flags, geometry)
                if runs is None:
                    at = (number - first) * size
                    inode = Inode.unpack(data[at : at + size])
                    runs = _runs(inode, number, trees, geometry)
                if runs:
                    extra = more[0] if more else 0
                    time_ns = (changed + ((extra & 3) << 32)) * 10**9 + (extra >> 2)
                    yield FileState(number, state, time_ns, low | high << 32, runs)


def _rows(size: int) -> tuple[struct.Struct, struct.Struct]:
    """How inodes of a size are decoded."""
    head, state = _HEAD, _STATE
    if size > _SHORT:
        head, state = head + _LONG_HEAD, state + _LONG_STATE
    rest = size - struct.calcsize(state)
    if rest:
        state += f"{rest}s"
    return struct.Struct(f"{head}{size - struct.calcsize(head)}x"), struct.Struct(state)


def _own_files(geometry: Geometry) -> frozenset[int]:
    """Inodes of the file system's own files, which it writes as it does with its tables."""
    block = geometry.superblock
    return frozenset(
        {
            block.journal_inode,
            block.orphan_file_inode,
            block.user_quota_inode,
            block.group_quota_inode,
            block.project_quota_inode,
        }
    )


def _one_run(root: bytes, flags: int, geometry: Geometry) -> tuple[tuple[int, int], ...] | None:
    """The run of a file whose tree is one extent, as of nearly every file; ``None``: it is not."""
    if not (flags & USES_EXTENTS and root.startswith(ONE_EXTENT)):
        return None
    _, length, high, low = _EXTENT.unpack_from(root)
    if length > EXTENT_LENGTH_MAX:
        length -= EXTENT_LENGTH_MAX
    block = low | high << 32
    if not 0 < block <= geometry.block_count - length:
        return ()
    return ((block * geometry.block_size, length * geometry.block_size),)


def _runs(
    inode: Inode, number: int, trees: Trees, geometry: Geometry
) -> tuple[tuple[int, int], ...] | None:
    size = geometry.block_size
    pieces = (item for item in trees.pieces(inode, number) if item.position != NODE)
    return listed((item.block * size, item.length * size) for item in pieces)
