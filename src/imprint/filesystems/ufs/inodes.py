"""Inodes of UFS1 and UFS2, and which of them are in use.

Source: FreeBSD ``sys/ufs/ufs/dinode.h``, illumos ``sys/fs/ufs_inode.h``.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.units import KIB
from imprint.filesystems.tree import Times
from imprint.filesystems.ufs.groups import read_group
from imprint.filesystems.ufs.layout import INODE_BYTES, Dialect

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ufs.groups import Group
    from imprint.filesystems.ufs.layout import Superblock

DIRECT: Final = 12
"""Pointers of an inode that lead to data; three more lead to blocks of pointers."""

MARKS: Final = (1, 2)
"""In place of pointers of a snapshot: what was there was free, or another snapshot's."""

SNAPSHOT: Final = 0x00200000
"""A flag: the file is the file system as it was; blocks that it does not have did not change."""

_ROWS: Final = {
    (version, order): struct.Struct(order + form)
    for version, form in (
        (1, "HHHHQ6i15I2I4x4I"),
        (2, "HHII4xQQ4q4i8xIi2Q15Q24x"),
    )
    for order in "<>"
}
_POINTERS_AT: Final = {1: 40, 2: 112}
_POINTERS_BYTES: Final = {1: 60, 2: 120}
_LONG: Final = 0xFFFF
"""In place of an owner of 16 bits: it stands further behind."""

_NS: Final = 1_000_000_000
_PIECE_BYTES: Final = 8 * KIB
_PIECES_KEPT: Final = 256
_GROUPS_KEPT: Final = 16


class Inode(NamedTuple):
    """An inode.

    Attributes:
        mode: its type and permissions; ``0``: it is free.
        links: how many names it has.
        owner: its number.
        group: its number.
        size: in bytes.
        blocks: how many sectors it has, those of its attributes too.
        times: of it.
        flags: of the BSDs.
        pointers: 15 of them, in fragments; or the beginning of what is in it.
        attributes: pointers to its extended attributes.
        attributes_size: of these, in bytes.
        inner: where its pointers are, as bytes.
    """

    mode: int
    links: int
    owner: int
    group: int
    size: int
    blocks: int
    times: Times
    flags: int
    pointers: tuple[int, ...]
    attributes: tuple[int, ...]
    attributes_size: int
    inner: bytes

    def is_within(self, block: Superblock) -> bool:
        """Whether it has its content in place of pointers, if it is a symbolic link."""
        limit = block.link_bytes_max
        if limit > 0 and self.size != limit:
            return self.size < min(limit, len(self.inner))
        return self.size <= len(self.inner) and self.blocks == 0


def inode_of(block: Superblock, raw: bytes) -> Inode:
    """What an inode says, of which all bytes are given."""
    row = _ROWS[block.version, block.order].unpack(raw)
    start = _POINTERS_AT[block.version]
    inner = raw[start : start + _POINTERS_BYTES[block.version]]
    if block.version == 1:
        mode, links, owner, group, size, *moments = row[:11]
        pointers = row[11:26]
        flags, blocks, *owners = row[26:]
        if block.dialect is Dialect.BSD:
            owner, group = owners[:2]
        elif block.dialect is Dialect.SUN:
            owner = owners[1] if owner == _LONG else owner
            group = owners[2] if group == _LONG else group
        times = _times(block.dialect, moments)
        return Inode(mode, links, owner, group, size, blocks, times, flags, pointers, (), 0, inner)
    mode, links, owner, group, size, blocks = row[:6]
    accessed, modified, changed, created, *parts = row[6:14]
    flags, attributes_size = row[14:16]
    times = Times(
        *(
            seconds * _NS + _part(part)
            for seconds, part in zip((modified, accessed, changed, created), parts, strict=True)
        )
    )
    if not times.created:
        times = times._replace(created=None)
    return Inode(
        mode,
        links,
        owner,
        group,
        size,
        blocks,
        times,
        flags,
        row[18:],
        row[16:18],
        max(0, attributes_size),
        inner,
    )


def _times(dialect: Dialect, moments: list[int]) -> Times:
    """Of UFS1: 4.4BSD counts ns, Sun counts µs; before them there was nothing to rely upon."""
    unit = {Dialect.BSD: 1, Dialect.SUN: 1000, Dialect.OLD: 0}[dialect]
    accessed, modified, changed = (
        moments[at] * _NS + _part(moments[at + 1] * unit) for at in (0, 2, 4)
    )
    return Times(modified, accessed, changed)


def _part(value: int) -> int:
    """Of a second; what is none is left out."""
    return value if 0 <= value < _NS else 0


class Inodes:
    """Reads inodes, some of them at once, and the maps of those in use. For one thread."""

    def __init__(self, reader: VolumeReader, block: Superblock) -> None:
        """``block`` is the superblock."""
        self._reader = reader
        self._block = block
        self._size = INODE_BYTES[block.version]
        self._piece = lru_cache(_PIECES_KEPT)(self._read)
        self.group: Final = lru_cache(_GROUPS_KEPT)(self._group)
        """The header of a cylinder group, by its number."""

    def inode(self, number: int) -> Inode:
        """An inode, whether it is in use or not.

        Raises:
            CorruptImageError: if there is none of that number.
            ReadError: if it cannot be read.
        """
        block = self._block
        if not 0 < number < block.inode_count:
            raise CorruptImageError(
                f"expected an inode from 1 to {block.inode_count - 1}, found {number}",
                name=self._reader.name,
            )
        group, index = divmod(number, block.group_inodes)
        first = index - index % (_PIECE_BYTES // self._size)
        try:
            raw = self._piece(group, first, _PIECE_BYTES // self._size)
        except (CorruptImageError, ReadError):  # of its neighbours, maybe
            raw, first = self._piece(group, index, 1), index
        start = (index - first) * self._size
        return inode_of(block, raw[start : start + self._size])

    def is_used(self, number: int) -> bool:
        """Whether an inode is in use by the map of its group.

        Raises:
            CorruptImageError: if there is no such map.
            ReadError: if it cannot be read.
        """
        index, at = divmod(number, self._block.group_inodes)
        group = self.group(index)
        place = group.inodes_at + at // 8
        return place < len(group.content) and bool(group.content[place] >> at % 8 & 1)

    def table(self, group: int, first: int, count: int) -> bytes:
        """Some inodes of a group, as they are on the disk.

        Raises:
            CorruptImageError: if they are not inside of the volume.
            ReadError: if they cannot be read.
        """
        block = self._block
        base = (block.group_start(group) + block.inodes_at) * block.fragment
        return bytes(self._reader.read(base + first * self._size, count * self._size, "inodes"))

    def _read(self, group: int, first: int, count: int) -> bytes:
        return self.table(group, first, min(count, self._block.group_inodes - first))

    def _group(self, number: int) -> Group:
        return read_group(self._reader, self._block, number)
