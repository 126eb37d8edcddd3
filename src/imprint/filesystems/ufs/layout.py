"""UFS1 and UFS2 on-disk structures, in both byte orders.

Source: FreeBSD ``sys/ufs/ffs/fs.h`` and ``sys/ufs/ufs/dinode.h``; what others made of UFS1:
illumos ``sys/fs/ufs_fs.h``, NetBSD ``sys/ufs/ffs/fs.h``, Linux ``fs/ufs/ufs_fs.h``.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.filesystems.allocation import VolumeReader

UFS1_MAGIC: Final = 0x011954
UFS2_MAGIC: Final = 0x19540119
GROUP_MAGIC: Final = 0x090255

SUPER_OFFSETS: Final = (65536, 8192, 0, 262144)
"""Where a superblock may be, in the order in which FreeBSD looks."""

SUPER_BYTES: Final = 1376
MAGIC_AT: Final = 1372

FLAGS_UPDATED: Final = 0x80
"""Of the old flags: the new ones count."""

NEEDS_CHECK: Final = 0x01 | 0x04  # not clean when it was mounted, asks for a check
JOURNALED: Final = 0x40  # by a provider below, which is not here

INODE_BYTES: Final = {1: 128, 2: 256}

_INODES_OF_44BSD: Final = 2
_NETBSD_JOURNAL: Final = 0x100  # a flag; FreeBSD means lists of access by it, but has no version
_SUN_LOG_BEHIND: Final = 2

_GROUPS_MAX: Final = 1 << 20
_GROUP_BYTES_MAX: Final = 64 * 1024

Order = Literal["<", ">"]


class Dialect(enum.Enum):
    """Whose inodes and names they are. They share a mark."""

    BSD = "4.4BSD"
    """And all that came after it; all of UFS2."""
    SUN = "Sun"
    """SunOS and Solaris."""
    OLD = "4.2BSD"
    """And what was made of it before 4.4BSD, as NeXTSTEP."""


@dataclass(frozen=True)
class Superblock:
    """What counts of a superblock. A *fragment* is what space is given away in.

    Attributes:
        order: of bytes.
        version: 1 or 2.
        place: of this superblock, in bytes of the volume.
        fragment: in bytes.
        block_fragments: fragments of a block.
        size: of the file system, in fragments.
        group_count: cylinder groups.
        group_fragments: of a group; the last one may have fewer.
        group_inodes: of a group.
        super_at: fragment of a group that has a copy of the superblock.
        header_at: the same of the group's header.
        inodes_at: of its inodes.
        data_at: of its first block for data.
        group_bytes: of the header with its maps.
        offset_step: of UFS1: groups' tables wander over the cylinders by this …
        offset_mask: … and by this.
        free_fragments: by the totals.
        is_clean: whether it was unmounted.
        needs_check: whether it asks for a check.
        is_journaled: by a layer below.
        link_bytes_max: links that are shorter stand in their inode; 0: those without blocks do.
        dialect: whose inodes and names they are.
        has_log: there is a log, or a journal, that may tell of what is not done yet.
    """

    order: Order
    version: int
    place: int
    fragment: int
    block_fragments: int
    size: int
    group_count: int
    group_fragments: int
    group_inodes: int
    super_at: int
    header_at: int
    inodes_at: int
    data_at: int
    group_bytes: int
    offset_step: int
    offset_mask: int
    free_fragments: int
    is_clean: bool
    needs_check: bool
    is_journaled: bool
    link_bytes_max: int
    dialect: Dialect
    has_log: bool

    @property
    def block_bytes(self) -> int:
        """What a file is made of, but for its end: in bytes."""
        return self.fragment * self.block_fragments

    @property
    def inode_count(self) -> int:
        """Of all groups; they are numbered from 0."""
        return self.group_count * self.group_inodes

    def group_start(self, group: int) -> int:
        """Fragment from which the places in a group count."""
        base = group * self.group_fragments
        if self.version == 1:
            base += self.offset_step * (group & ~self.offset_mask)
        return base


def read_superblock(reader: VolumeReader, *, may_be_cut: bool = False) -> Superblock:
    """The first that is one.

    Args:
        reader: of the volume.
        may_be_cut: take a file system of which the end is missing.

    Raises:
        CorruptImageError: if there is none, or its numbers make no sense.
    """
    for place in SUPER_OFFSETS:
        if place + SUPER_BYTES > reader.size:
            continue
        content = bytes(reader.read(place, SUPER_BYTES, "superblock"))
        found = parse_superblock(content, place)
        # Those of UFS1 behind 64 KiB are copies, or what is left of something else.
        if found is not None and (found.version == 2 or place in (8192, 0)):
            _check(reader, found, may_be_cut=may_be_cut)
            return found
    raise CorruptImageError("superblock: expected its mark, found none", name=reader.name)


def parse_superblock(content: bytes, place: int) -> Superblock | None:
    """A superblock of either version and order, or ``None`` if it is none."""
    for order in ("<", ">"):
        magic = _field(content, order, MAGIC_AT, "I")
        if magic in (UFS1_MAGIC, UFS2_MAGIC):
            return _parse(content, place, order, 1 if magic == UFS1_MAGIC else 2)
    return None


def _field(content: bytes, order: str, at: int, code: str) -> int:
    value: int = struct.unpack_from(order + code, content, at)[0]
    return value


def _parse(content: bytes, place: int, order: Order, version: int) -> Superblock:
    def get(at: int, code: str = "i") -> int:
        return _field(content, order, at, code)

    old_flags = get(211, "B")
    flags = get(1312, "I") if old_flags & FLAGS_UPDATED else old_flags
    frag = get(56)
    if version == 1:
        size, blocks, fragments = get(36), get(196), get(204)
    else:
        size, blocks, fragments = get(1080, "q"), get(1016, "q"), get(1032, "q")
    dialect = Dialect.BSD if version == 2 else _dialect(get)
    is_clean = get(209, "B") == 1
    return Superblock(
        order=order,
        version=version,
        place=place,
        fragment=get(52),
        block_fragments=frag,
        size=size,
        group_count=get(44, "I"),
        group_fragments=get(188),
        group_inodes=get(184, "I"),
        super_at=get(8),
        header_at=get(12),
        inodes_at=get(16),
        data_at=get(20),
        group_bytes=get(160),
        offset_step=get(24),
        offset_mask=get(28),
        free_fragments=blocks * frag + fragments,
        is_clean=is_clean,
        needs_check=bool(flags & NEEDS_CHECK),
        is_journaled=bool(flags & JOURNALED),
        link_bytes_max=get(1320) if dialect is Dialect.BSD else 0,
        dialect=dialect,
        has_log=_has_log(get, dialect, flags, is_clean=is_clean),
    )


def _dialect(get: Callable[[int, str], int]) -> Dialect:
    """Of UFS1. The mask of a block stands 4 bytes later where Sun made it."""
    mask = get(48, "i") - 1
    if get(1340, "q") == mask != get(1336, "q"):
        return Dialect.SUN
    return Dialect.BSD if get(1324, "i") >= _INODES_OF_44BSD else Dialect.OLD


def _has_log(
    get: Callable[[int, str], int], dialect: Dialect, flags: int, *, is_clean: bool
) -> bool:
    if dialect is Dialect.SUN:
        return get(1324, "I") != 0 and get(4, "I") == _SUN_LOG_BEHIND
    is_of_netbsd = flags & _NETBSD_JOURNAL and get(1248, "B") == 1 and get(1249, "B") in (1, 2)
    return not is_clean and bool(flags & JOURNALED or is_of_netbsd)


def _check(reader: VolumeReader, block: Superblock, *, may_be_cut: bool) -> None:
    groups = -(-block.size // block.group_fragments) if block.group_fragments > 0 else 0
    places = (block.super_at, block.header_at, block.inodes_at, block.data_at)
    tables = (block.data_at - block.inodes_at) * block.fragment
    expected = None
    if not 512 <= block.fragment <= 65536 or block.fragment.bit_count() != 1:
        expected = f"fragments of 512 bytes to 64 KiB, found {block.fragment}"
    elif block.block_fragments not in (1, 2, 4, 8):
        expected = f"1, 2, 4 or 8 fragments in a block, found {block.block_fragments}"
    elif block.size <= 0 or (block.size * block.fragment > reader.size and not may_be_cut):
        expected = f"a size inside the volume, found {block.size} fragments"
    elif not 0 < block.group_count <= _GROUPS_MAX or block.group_count != groups:
        expected = f"{groups} cylinder groups, found {block.group_count}"
    elif not 256 < block.group_bytes <= _GROUP_BYTES_MAX:
        expected = f"group headers of at most 64 KiB, found {block.group_bytes}"
    elif sorted(places) != list(places) or places[0] < 0 or places[-1] > block.group_fragments:
        expected = f"places in a group in their order, found {places}"
    elif block.group_inodes * INODE_BYTES[block.version] > tables:
        expected = f"inodes between their places, found {block.group_inodes} for a group"
    elif not 0 <= block.offset_step <= block.size:
        expected = f"an offset inside the volume, found {block.offset_step}"
    if expected is not None:
        raise CorruptImageError(f"superblock: expected {expected}", name=reader.name)
