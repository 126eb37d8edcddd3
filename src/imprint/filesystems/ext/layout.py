"""Structures of ext2, ext3 and ext4, and of their journal.

Source: Linux ``Documentation/filesystems/ext4`` ("The Super Block", "Block Group Descriptors",
"Inode Table", "Extent Tree", "Journal (jbd2)"), ``fs/ext4/ext4.h``, ``fs/ext4/fast_commit.h`` and
``include/linux/jbd2.h``.
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.core.layout import Structure, raw, uint

MAGIC: Final = 0xEF53
SUPERBLOCK_OFFSET: Final = 1024

IS_CLEAN: Final = 0x0001
HAS_ERRORS: Final = 0x0002

INODE_UNINIT: Final = 0x0001
BLOCK_UNINIT: Final = 0x0002

BAD_BLOCKS_INODE: Final = 1
ROOT_INODE: Final = 2
FIRST_INODE: Final = 11
"""The first one that a user's file may have, before revision 1 made it a field."""

MMP_CLEAN: Final = 0xFF4D4D50
MMP_OFFSET: Final = 4
"""Of the sequence number in its block."""

EXTENT_MAGIC: Final = 0xF30A
EXTENT_DEPTH_MAX: Final = 5
EXTENT_LENGTH_MAX: Final = 0x8000
"""Above, an extent is one that was never written, and this much shorter."""

ONE_EXTENT: Final = struct.pack("<HHHH", EXTENT_MAGIC, 1, 4, 0)
"""How the root of a tree begins that is one extent: nearly every file has such a one."""

TYPE_MASK: Final = 0xF000
FILE_MARK: Final = 0x8000

IS_IMMUTABLE: Final = 0x0000_0010
IS_ENCRYPTED: Final = 0x0000_0800
USES_EXTENTS: Final = 0x0008_0000
IS_EA_INODE: Final = 0x0020_0000
HAS_INLINE_DATA: Final = 0x1000_0000


class Superblock(Structure, size=1024, endian="<"):
    """What stands at byte 1024, and in copies at the start of some groups."""

    inode_count: int = uint(4, at=0x00, doc="in all groups")
    block_count_low: int = uint(4, at=0x04, doc="from block 0 on")
    free_block_count_low: int = uint(4, at=0x0C, doc="not kept up to date while mounted")
    first_data_block: int = uint(4, at=0x14, doc="where group 0 begins: 1 if blocks have 1 KiB")
    log_block_size: int = uint(4, at=0x18, doc="block size is 1024 << this")
    log_cluster_size: int = uint(4, at=0x1C, doc="the same of clusters, with bigalloc")
    blocks_per_group: int = uint(4, at=0x20, doc="at most a block's bits, in clusters")
    clusters_per_group: int = uint(4, at=0x24, doc="with bigalloc")
    inodes_per_group: int = uint(4, at=0x28, doc="at most a block's bits")
    write_time: int = uint(4, at=0x30, doc="of the superblock, in seconds since 1970")
    magic: int = uint(2, at=0x38, doc="MAGIC")
    state: int = uint(2, at=0x3A, doc="IS_CLEAN, HAS_ERRORS")
    revision: int = uint(4, at=0x4C, doc="0 has no features, and inodes of 128 bytes")
    first_inode: int = uint(4, at=0x54, doc="that is not reserved")
    inode_size: int = uint(2, at=0x58, doc="a power of two from 128 on")
    compat: int = uint(4, at=0x5C, doc="features that may be ignored")
    incompat: int = uint(4, at=0x60, doc="features without which nothing can be read")
    ro_compat: int = uint(4, at=0x64, doc="features without which nothing may be written")
    uuid: bytes = raw(16, at=0x68, doc="of the file system")
    reserved_gdt_blocks: int = uint(2, at=0xCE, doc="behind each copy of the descriptors")
    journal_inode: int = uint(4, at=0xE0, doc="0 if the journal is on another device")
    last_orphan: int = uint(4, at=0xE8, doc="inode that is deleted and still open, or 0")
    descriptor_size: int = uint(2, at=0xFE, doc="with 64bit")
    first_meta_group: int = uint(4, at=0x104, doc="from here on, meta_bg places descriptors")
    block_count_high: int = uint(4, at=0x150, doc="with 64bit")
    free_block_count_high: int = uint(4, at=0x158, doc="with 64bit")
    mmp_block: int = uint(8, at=0x168, doc="who has it mounted, with mmp")
    checksum_type: int = uint(1, at=0x175, doc="1: CRC-32C")
    error_count: int = uint(4, at=0x194, doc="since the last check")
    user_quota_inode: int = uint(4, at=0x240, doc="with quota")
    group_quota_inode: int = uint(4, at=0x244, doc="with quota")
    backup_group_0: int = uint(4, at=0x24C, doc="with sparse_super2; 0: none")
    backup_group_1: int = uint(4, at=0x250, doc="with sparse_super2; 0: none")
    project_quota_inode: int = uint(4, at=0x26C, doc="with project")
    checksum_seed: int = uint(4, at=0x270, doc="with metadata_csum_seed")
    write_time_high: int = uint(1, at=0x274, doc="upper bits of write_time")
    orphan_file_inode: int = uint(4, at=0x280, doc="with orphan_file")
    checksum: int = uint(4, at=0x3FC, doc="CRC-32C of what is before it, not inverted")


class GroupDescriptor(Structure, size=64, endian="<"):
    """Of one group. Without 64bit it has 32 bytes, and what would be behind them is zero."""

    block_bitmap_low: int = uint(4, at=0x00, doc="block")
    inode_bitmap_low: int = uint(4, at=0x04, doc="block")
    inode_table_low: int = uint(4, at=0x08, doc="first block")
    free_count_low: int = uint(2, at=0x0C, doc="of clusters")
    flags: int = uint(2, at=0x12, doc="INODE_UNINIT, BLOCK_UNINIT; only with checksums")
    block_bitmap_checksum_low: int = uint(2, at=0x18, doc="with metadata_csum")
    unused_inodes_low: int = uint(2, at=0x1C, doc="at the table's end; only with checksums")
    checksum: int = uint(2, at=0x1E, doc="of the group's number and the descriptor")
    block_bitmap_high: int = uint(4, at=0x20, doc="block")
    inode_bitmap_high: int = uint(4, at=0x24, doc="block")
    inode_table_high: int = uint(4, at=0x28, doc="first block")
    free_count_high: int = uint(2, at=0x2C, doc="of clusters")
    unused_inodes_high: int = uint(2, at=0x32, doc="at the table's end")
    block_bitmap_checksum_high: int = uint(2, at=0x38, doc="with metadata_csum")


class Inode(Structure, size=128, endian="<"):
    """The part that all inodes have."""

    mode: int = uint(2, at=0x00, doc="type and rights")
    size_low: int = uint(4, at=0x04, doc="in bytes")
    deletion_time: int = uint(4, at=0x14, doc="of an orphan: the next one")
    link_count: int = uint(2, at=0x1A, doc="0: free, or an orphan")
    flags: int = uint(4, at=0x20, doc="USES_EXTENTS, HAS_INLINE_DATA")
    block: bytes = raw(60, at=0x28, doc="an extent tree's root, or 15 block numbers")
    xattr_block_low: int = uint(4, at=0x68, doc="block")
    size_high: int = uint(4, at=0x6C, doc="in bytes; of regular files")
    xattr_block_high: int = uint(2, at=0x76, doc="block")


class ExtentHeader(Structure, size=12, endian="<"):
    """What begins each node of an extent tree; entries of 12 bytes follow."""

    magic: int = uint(2, at=0, doc="EXTENT_MAGIC")
    entry_count: int = uint(2, at=2, doc="in use")
    depth: int = uint(2, at=6, doc="0: entries are extents, else nodes")


JOURNAL_MAGIC: Final = 0xC03B3998
DESCRIPTOR_BLOCK: Final = 1
COMMIT_BLOCK: Final = 2
SUPERBLOCK_V1: Final = 3
SUPERBLOCK_V2: Final = 4
REVOKE_BLOCK: Final = 5

TAG_ESCAPED: Final = 1
TAG_SAME_UUID: Final = 2
TAG_LAST: Final = 8

JOURNAL_COMPAT_CHECKSUM: Final = 0x01
JOURNAL_64BIT: Final = 0x02
JOURNAL_ASYNC_COMMIT: Final = 0x04
JOURNAL_CSUM_V2: Final = 0x08
JOURNAL_CSUM_V3: Final = 0x10
JOURNAL_FAST_COMMIT: Final = 0x20
JOURNAL_INCOMPAT_KNOWN: Final = 0x3F
"""With revoke blocks (1)."""

FAST_COMMIT_BLOCKS: Final = 256
"""How many a journal has that does not say it."""


class JournalSuperblock(Structure, size=1024, endian=">"):
    """The first block of a journal."""

    magic: int = uint(4, at=0x00, doc="JOURNAL_MAGIC")
    block_type: int = uint(4, at=0x04, doc="SUPERBLOCK_V1 or SUPERBLOCK_V2")
    block_size: int = uint(4, at=0x0C, doc="that of the file system")
    block_count: int = uint(4, at=0x10, doc="of the journal")
    first: int = uint(4, at=0x14, doc="block of the log")
    sequence: int = uint(4, at=0x18, doc="of the first transaction")
    start: int = uint(4, at=0x1C, doc="its block; 0: nothing is to be replayed")
    error: int = uint(4, at=0x20, doc="not 0: the file system has errors")
    compat: int = uint(4, at=0x24, doc="JOURNAL_COMPAT_CHECKSUM")
    incompat: int = uint(4, at=0x28, doc="JOURNAL_64BIT and others")
    ro_compat: int = uint(4, at=0x2C, doc="none is known")
    uuid: bytes = raw(16, at=0x30, doc="of the journal")
    fast_commit_blocks: int = uint(4, at=0x54, doc="at its end; 0: FAST_COMMIT_BLOCKS")
    checksum: int = uint(4, at=0xFC, doc="CRC-32C, not inverted, this being zero")


class JournalHeader(Structure, size=12, endian=">"):
    """What begins every block of a log that is not a copy of a block."""

    magic: int = uint(4, at=0, doc="JOURNAL_MAGIC")
    block_type: int = uint(4, at=4, doc="DESCRIPTOR_BLOCK, COMMIT_BLOCK, REVOKE_BLOCK")
    sequence: int = uint(4, at=8, doc="of the transaction")


class Tag(Structure, size=12, endian=">"):
    """Where a block of a transaction belongs. 8 bytes without 64bit, 2 more with checksums 2."""

    block_low: int = uint(4, at=0, doc="block")
    checksum: int = uint(2, at=4, doc="low half, with checksums 2")
    flags: int = uint(2, at=6, doc="TAG_ESCAPED and others")
    block_high: int = uint(4, at=8, doc="with 64bit")


class TagV3(Structure, size=16, endian=">"):
    """The same with checksums 3."""

    block_low: int = uint(4, at=0, doc="block")
    flags: int = uint(4, at=4, doc="TAG_ESCAPED and others")
    block_high: int = uint(4, at=8, doc="with 64bit")
    checksum: int = uint(4, at=12, doc="CRC-32C of the sequence and the block")


FAST_ADD_RANGE: Final = 1
FAST_CREATE: Final = 3
FAST_LINK: Final = 4
FAST_UNLINK: Final = 5
FAST_INODE: Final = 6
FAST_TAIL: Final = 8
FAST_HEAD: Final = 9
FAST_TAGS: Final = range(1, 10)


class FastTag(Structure, size=4, endian="<"):
    """What begins each record of a fast commit."""

    kind: int = uint(2, at=0, doc="FAST_HEAD and others")
    length: int = uint(2, at=2, doc="of what follows, in bytes")


class FastHead(Structure, size=8, endian="<"):
    """The record that begins a fast commit."""

    features: int = uint(4, at=0, doc="none is known")
    sequence: int = uint(4, at=4, doc="of the transaction that it would be part of")


class FastTail(Structure, size=8, endian="<"):
    """The record that ends one, and its block."""

    sequence: int = uint(4, at=0, doc="as in the head")
    checksum: int = uint(4, at=4, doc="of all before it since the last tail")


class FastRange(Structure, size=16, endian="<"):
    """Blocks that a file was given."""

    inode: int = uint(4, at=0, doc="of the file")
    extent: bytes = raw(12, at=4, doc="as in an extent tree")
