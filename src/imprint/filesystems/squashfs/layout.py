"""SquashFS's on-disk structures. All numbers are little-endian.

Source: Linux ``fs/squashfs/squashfs_fs.h`` and ``Documentation/filesystems/squashfs.rst``.
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB

MAGIC: Final = b"hsqs"
MAGIC_SWAPPED: Final = b"sqsh"
METADATA_BYTES: Final = 8 * KIB
"""Of a metadata block, unpacked."""

METADATA_STORED: Final = 0x8000
"""Of the two bytes before a metadata block: it is stored as it is; the rest is its length."""

DATA_STORED: Final = 1 << 24
"""The same of the four bytes that tell of a data block."""

DATA_LENGTH: Final = DATA_STORED - 1
NO_FRAGMENT: Final = 0xFFFFFFFF
FRAGMENT: Final = struct.Struct("<QI4x")
"""Where a fragment block lies, and what a data block's four bytes say."""

BASIC_FOLDER, BASIC_FILE, BASIC_LINK, BASIC_BLOCK, BASIC_CHARACTER = 1, 2, 3, 4, 5
BASIC_FIFO, BASIC_SOCKET = 6, 7
EXTENDED: Final = 7
"""What is added to the type of an inode that has more fields."""

INODE: Final = struct.Struct("<HHHHII")
"""What every inode begins with: type, permissions, indices of owner and group, seconds since
1970, number."""

FOLDER: Final = struct.Struct("<IIHHI")
"""Block of the folder table, links, size, offset in the block, number of the parent."""

EXTENDED_FOLDER: Final = struct.Struct("<IIIIHHI")
"""Links, size, block, number of the parent, count of index entries, offset, attributes."""

FILE: Final = struct.Struct("<IIII")
"""Where it begins, fragment, offset in the fragment's block, size."""

EXTENDED_FILE: Final = struct.Struct("<QQQIIII")
"""Where it begins, size, bytes of holes, links, fragment, offset, attributes."""

LINK: Final = struct.Struct("<II")
"""Links, and length of the target, which follows."""

OTHER: Final = struct.Struct("<I")
"""Links. Of devices, their number follows."""

ATTRIBUTES: Final = struct.Struct("<I")
"""Of the inodes above that have more fields, behind all others: attributes. Of devices, their
number stands before it."""

NO_ATTRIBUTES: Final = 0xFFFFFFFF
NO_TABLE: Final = (1 << 64) - 1
ATTRIBUTES_HEAD: Final = struct.Struct("<QI4x")
"""Where names and values begin, and how many entries there are; the places of the blocks of their
table follow."""

ATTRIBUTES_ENTRY: Final = struct.Struct("<QI4x")
"""Where the names and values of an inode are: block << 16 | offset, and how many."""

NAME: Final = struct.Struct("<HH")
"""Number of the namespace, and length of the name, which follows."""

VALUE: Final = struct.Struct("<I")
"""Its length; it follows."""

VALUE_ELSEWHERE: Final = 0x100
"""Of the number of a namespace: in place of the value stands where it is, as in an entry."""

ELSEWHERE: Final = struct.Struct("<Q")
FOLDER_HEAD: Final = struct.Struct("<III")
"""Count of entries less one, block of the inode table, number that entries count from."""

FOLDER_ENTRY: Final = struct.Struct("<HhHH")
"""Offset of the inode in its block, its number as a difference, type, length of the name less
one."""

FOLDER_SIZE_EXTRA: Final = 3
"""What a folder's size has for ``.`` and ``..``, which are not stored."""

ENTRIES_MAX: Final = 256
"""Behind one head."""

NAME_BYTES_MAX: Final = 256


class Superblock(Structure, size=96, endian="<"):
    """At the start of the volume."""

    magic: bytes = raw(4, at=0, doc="MAGIC")
    inode_count: int = uint(4, at=4, doc="inodes; they are numbered from 1")
    block_size: int = uint(4, at=12, doc="of data: 4 KiB to 1 MiB")
    fragment_count: int = uint(4, at=16, doc="fragment blocks")
    compressor: int = uint(2, at=20, doc="1 gzip, 2 lzma, 3 lzo, 4 xz, 5 lz4, 6 zstd")
    block_log: int = uint(2, at=22, doc="block size is 1 << this")
    id_count: int = uint(2, at=26, doc="owners and groups")
    version_major: int = uint(2, at=28, doc="4")
    version_minor: int = uint(2, at=30, doc="0")
    root_inode: int = uint(8, at=32, doc="where the root's inode is: block << 16 | offset")
    bytes_used: int = uint(8, at=40, doc="of the volume")
    id_table: int = uint(8, at=48, doc="where the places of its blocks are")
    attribute_table: int = uint(8, at=56, doc="of extended attributes; NO_TABLE: none has any")
    inode_table: int = uint(8, at=64, doc="where its first block is")
    folder_table: int = uint(8, at=72, doc="where its first block is")
    fragment_table: int = uint(8, at=80, doc="where the places of its blocks are")
