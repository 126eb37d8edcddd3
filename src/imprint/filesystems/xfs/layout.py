"""Structures of XFS, versions 4 and 5. All are big-endian, but for checksums and log items.

Source: Linux ``fs/xfs/libxfs/xfs_format.h`` and ``xfs_log_format.h``; "XFS Algorithms & Data
Structures", chapters 9 (allocation groups), 10 (inodes), 14 (journaling log).
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, sint, uint
from imprint.core.units import KIB

BASIC_BLOCK: Final = 512
"""The unit of addresses in the log, and of addresses that blocks have of themselves."""

SUPERBLOCK_MAGIC: Final = 0x58465342  # XFSB
AGF_MAGIC: Final = 0x58414746  # XAGF
AGI_MAGIC: Final = 0x58414749  # XAGI
AGFL_MAGIC: Final = 0x5841464C  # XAFL
INODE_MAGIC: Final = 0x494E  # IN
RECORD_MAGIC: Final = 0xFEEDBABE

# sb_versionnum
VERSION_MASK: Final = 0x000F
V4_SHARED: Final = 0x0200  # nobody knows what it was to mean
V4_LOG_V2: Final = 0x0400
V4_DIR_V2: Final = 0x2000
V4_MORE_BITS: Final = 0x8000
# sb_features2
V4_LAZY_COUNT: Final = 0x02
V4_FEATURES2_KNOWN: Final = V4_LAZY_COUNT | 0x08 | 0x80 | 0x200  # attr2, projid32, ftype

RO_COMPAT_FINOBT: Final = 1 << 0
RO_COMPAT_RMAPBT: Final = 1 << 1
RO_COMPAT_REFLINK: Final = 1 << 2
RO_COMPAT_KNOWN: Final = RO_COMPAT_FINOBT | RO_COMPAT_RMAPBT | RO_COMPAT_REFLINK | 1 << 3

INCOMPAT_SPARSE_INODES: Final = 1 << 1
INCOMPAT_META_UUID: Final = 1 << 2
INCOMPAT_NEEDS_REPAIR: Final = 1 << 4
INCOMPAT_KNOWN: Final = 0xFF
"""ftype, spinodes, meta_uuid, bigtime, needsrepair, nrext64, exchrange, parent."""
INCOMPAT_NAMES: Final = {8: "metadir", 9: "zoned", 10: "zone gaps"}

LOG_INCOMPAT_KNOWN: Final = 1 << 0 | 1 << 1
"""Logged attributes and logged exchanges: neither changes what buffers in the log mean."""


class Superblock(Structure, size=264, endian=">"):
    """Sector 0 of every allocation group; only the first is kept up to date."""

    magic: int = uint(4, at=0, doc="SUPERBLOCK_MAGIC")
    block_size: int = uint(4, at=4, doc="512 to 65536")
    blocks: int = uint(8, at=8, doc="sb_dblocks: of the data device")
    realtime_blocks: int = uint(8, at=16, doc="sb_rblocks")
    uuid: bytes = raw(16, at=32, doc="that the user sees")
    log_start: int = uint(8, at=48, doc="sb_logstart: file system block; 0: on another device")
    root_inode: int = uint(8, at=56, doc="sb_rootino")
    realtime_bitmap_inode: int = uint(8, at=64, doc="sb_rbmino")
    realtime_summary_inode: int = uint(8, at=72, doc="sb_rsumino")
    group_blocks: int = uint(4, at=84, doc="sb_agblocks")
    group_count: int = uint(4, at=88, doc="sb_agcount")
    log_blocks: int = uint(4, at=96, doc="sb_logblocks")
    version: int = uint(2, at=100, doc="sb_versionnum: number and features of version 4")
    sector_size: int = uint(2, at=102, doc="512 to 32768")
    inode_size: int = uint(2, at=104, doc="256 to 2048")
    inodes_per_block: int = uint(2, at=106, doc="sb_inopblock")
    block_log: int = uint(1, at=120, doc="block size is 1 << this")
    sector_log: int = uint(1, at=121, doc="sector size is 1 << this")
    inode_log: int = uint(1, at=122, doc="inode size is 1 << this")
    inodes_per_block_log: int = uint(1, at=123, doc="sb_inopblog")
    group_log: int = uint(1, at=124, doc="sb_agblklog: bits of a block number inside a group")
    in_progress: int = uint(1, at=126, doc="mkfs has not finished")
    free_blocks: int = uint(8, at=144, doc="sb_fdblocks")
    user_quota_inode: int = uint(8, at=160, doc="sb_uquotino")
    group_quota_inode: int = uint(8, at=168, doc="sb_gquotino")
    features2: int = uint(4, at=200, doc="of version 4")
    ro_compat: int = uint(4, at=212, doc="without which nothing may be written")
    incompat: int = uint(4, at=216, doc="without which nothing can be read")
    log_incompat: int = uint(4, at=220, doc="without which the log cannot be replayed")
    project_quota_inode: int = uint(8, at=232, doc="sb_pquotino; version 5")
    meta_uuid: bytes = raw(16, at=248, doc="in all structures, if INCOMPAT_META_UUID")


SUPERBLOCK_CRC_AT: Final = 224


class FreeSpaceHeader(Structure, size=224, endian=">"):
    """AGF, sector 1 of an allocation group: its free space."""

    magic: int = uint(4, at=0, doc="AGF_MAGIC")
    version: int = uint(4, at=4, doc="1")
    number: int = uint(4, at=8, doc="agf_seqno: of the group, from 0")
    length: int = uint(4, at=12, doc="of the group, in blocks")
    bno_root: int = uint(4, at=16, doc="block of the tree of free extents by place")
    cnt_root: int = uint(4, at=20, doc="block of the tree of free extents by length")
    rmap_root: int = uint(4, at=24, doc="block of the tree of owners")
    bno_levels: int = uint(4, at=28, doc="1: its root is a leaf")
    cnt_levels: int = uint(4, at=32, doc="the same")
    rmap_levels: int = uint(4, at=36, doc="the same")
    list_first: int = uint(4, at=40, doc="agf_flfirst: index in AGFL")
    list_last: int = uint(4, at=44, doc="agf_fllast: index in AGFL")
    list_count: int = uint(4, at=48, doc="agf_flcount")
    free_blocks: int = uint(4, at=52, doc="in the trees, without the list")
    longest: int = uint(4, at=56, doc="free extent, in blocks")
    tree_blocks: int = uint(4, at=60, doc="agf_btreeblks: of the trees, but for their roots")
    uuid: bytes = raw(16, at=64, doc="of the metadata; version 5, as all below")
    refcount_root: int = uint(4, at=88, doc="block of the tree of shared extents")
    refcount_levels: int = uint(4, at=92, doc="1: its root is a leaf")
    lsn: int = uint(8, at=208, doc="of the last write")


AGF_CRC_AT: Final = 216


class InodeHeader(Structure, size=344, endian=">"):
    """AGI, sector 2 of an allocation group: its inodes."""

    magic: int = uint(4, at=0, doc="AGI_MAGIC")
    version: int = uint(4, at=4, doc="1")
    number: int = uint(4, at=8, doc="agi_seqno: of the group, from 0")
    length: int = uint(4, at=12, doc="of the group, in blocks")
    root: int = uint(4, at=20, doc="block of the tree of inode chunks")
    levels: int = uint(4, at=24, doc="1: its root is a leaf")
    uuid: bytes = raw(16, at=296, doc="of the metadata; version 5, as all below")
    lsn: int = uint(8, at=320, doc="of the last write")
    free_root: int = uint(4, at=328, doc="block of the tree of chunks with free inodes")
    free_levels: int = uint(4, at=332, doc="1: its root is a leaf")


AGI_CRC_AT: Final = 312


class FreeListHeader(Structure, size=36, endian=">"):
    """AGFL, sector 3, before its block numbers; version 4 has none."""

    magic: int = uint(4, at=0, doc="AGFL_MAGIC")
    number: int = uint(4, at=4, doc="agfl_seqno: of the group, from 0")
    uuid: bytes = raw(16, at=8, doc="of the metadata")


AGFL_CRC_AT: Final = 32


class TreeBlock(Structure, size=56, endian=">"):
    """Short form of a B-tree block: of trees that stay inside of a group."""

    magic: bytes = raw(4, at=0, doc="of the kind of tree")
    level: int = uint(2, at=4, doc="0: a leaf")
    count: int = uint(2, at=6, doc="bb_numrecs")
    place: int = uint(8, at=16, doc="of itself, in basic blocks; version 5, as all below")
    lsn: int = uint(8, at=24, doc="of the last write")
    uuid: bytes = raw(16, at=32, doc="of the metadata")
    owner: int = uint(4, at=48, doc="group number")


TREE_HEADER_V4: Final = 16
TREE_CRC_AT: Final = 52


class MapBlock(Structure, size=72, endian=">"):
    """Long form of a B-tree block: of the extents of a file (bmbt)."""

    magic: bytes = raw(4, at=0, doc="BMAP, or BMA3 in version 5")
    level: int = uint(2, at=4, doc="0: a leaf")
    count: int = uint(2, at=6, doc="bb_numrecs")
    place: int = uint(8, at=24, doc="of itself, in basic blocks; version 5, as all below")
    uuid: bytes = raw(16, at=40, doc="of the metadata")
    owner: int = uint(8, at=56, doc="inode number")


MAP_HEADER_V4: Final = 24
MAP_CRC_AT: Final = 64


class Inode(Structure, size=176, endian=">"):
    """An inode; in version 4 it ends before its checksum."""

    magic: int = uint(2, at=0, doc="INODE_MAGIC")
    mode: int = uint(2, at=2, doc="type and permissions; 0: free")
    version: int = uint(1, at=4, doc="1 or 2; 3 in version 5")
    data_format: int = uint(1, at=5, doc="0 device, 1 inside the inode, 2 extents, 3 B-tree")
    big_extents: int = uint(8, at=24, doc="di_big_nextents, if INODE_LARGE_COUNTS")
    extents: int = uint(4, at=76, doc="di_nextents, or of the attributes if INODE_LARGE_COUNTS")
    attr_extents: int = uint(2, at=80, doc="di_anextents")
    attr_at: int = uint(1, at=82, doc="di_forkoff: where attributes begin, in 8 bytes; 0: none")
    attr_format: int = sint(1, at=83, doc="of the attributes")
    flags: int = uint(2, at=90, doc="di_flags")
    flags2: int = uint(8, at=120, doc="di_flags2")
    number: int = uint(8, at=152, doc="di_ino: its own")
    uuid: bytes = raw(16, at=160, doc="of the metadata")


TYPE_MASK: Final = 0xF000
FILE_MARK: Final = 0x8000

INODE_CORE_V4: Final = 100
INODE_CRC_AT: Final = 100
INODE_REALTIME: Final = 1 << 0
INODE_BIG_TIME: Final = 1 << 3
INODE_LARGE_COUNTS: Final = 1 << 4

RECORD_CYCLES: Final = 64
"""Basic blocks of payload whose first words one header of a log record keeps: 32 KiB."""

RECORD_BYTES_MAX: Final = 256 * KIB


class RecordHeader(Structure, size=328, endian=">"):
    """Before every record of the log, in a basic block of its own."""

    magic: int = uint(4, at=0, doc="RECORD_MAGIC")
    cycle: int = uint(4, at=4, doc="how often the log has been gone through")
    version: int = uint(4, at=8, doc="1 or 2")
    length: int = uint(4, at=12, doc="h_len: of the payload, in bytes")
    lsn: int = uint(8, at=16, doc="of this record: cycle and basic block")
    tail_lsn: int = uint(8, at=24, doc="of the oldest record that is still needed")
    crc: int = uint(4, at=32, doc="little-endian; 0 if its writer made none")
    operations: int = uint(4, at=40, doc="h_num_logops")
    words: bytes = raw(256, at=44, doc="h_cycle_data: what the cycle numbers stand upon")
    form: int = uint(4, at=300, doc="h_fmt: 1: items are little-endian")
    uuid: bytes = raw(16, at=304, doc="of the file system")
    size: int = uint(4, at=320, doc="h_size: of the buffer; says how many headers there are")


RECORD_CRC_AT: Final = 32
RECORD_EXTENSION_BYTES: Final = 260
LITTLE_ENDIAN_FORM: Final = 1


class Operation(Structure, size=12, endian=">"):
    """Before every region in a log record."""

    transaction: int = uint(4, at=0, doc="oh_tid")
    length: int = uint(4, at=4, doc="of the region")
    flags: int = uint(1, at=9, doc="OP_*")


OP_START: Final = 0x01
OP_COMMIT: Final = 0x02
OP_WAS_CONTINUED: Final = 0x08
OP_UNMOUNT: Final = 0x20


class BufferItem(Structure, size=20, endian="<"):
    """First region of a change of blocks; a bitmap of chunks of 128 bytes follows."""

    kind: int = uint(2, at=0, doc="ITEM_BUFFER")
    regions: int = uint(2, at=2, doc="of the item, with this one")
    flags: int = uint(2, at=4, doc="BUFFER_*; the upper 5 bits say what the blocks are")
    length: int = uint(2, at=6, doc="in basic blocks")
    place: int = sint(8, at=8, doc="of the first, in basic blocks of the volume")
    map_words: int = uint(4, at=16, doc="of the bitmap, 4 bytes each")


class InodeItem(Structure, size=56, endian="<"):
    """First region of a change of an inode; its core and its changed forks follow.

    On 32-bit machines it has no padding in front of ``number``.
    """

    kind: int = uint(2, at=0, doc="ITEM_INODE")
    regions: int = uint(2, at=2, doc="of the item, with this one")
    fields: int = uint(4, at=4, doc="ILOG_*: what of it was changed")
    number: int = uint(8, at=16, doc="of the inode")
    device: int = uint(4, at=24, doc="with ILOG_DEVICE")
    place: int = sint(8, at=40, doc="of the buffer that it is in, in basic blocks of the volume")
    length: int = sint(4, at=48, doc="of that, in basic blocks")
    offset: int = sint(4, at=52, doc="of the inode in that, in bytes")


INODE_ITEM_SHORT: Final = 52
INODE_ITEM_PADDING: Final = slice(12, 12)

ILOG_DATA: Final = 1 << 1
ILOG_EXTENTS: Final = 1 << 2
ILOG_TREE: Final = 1 << 3
ILOG_DEVICE: Final = 1 << 4
ILOG_ATTR_DATA: Final = 1 << 6
ILOG_ATTR_EXTENTS: Final = 1 << 7
ILOG_ATTR_TREE: Final = 1 << 8
ILOG_OWNERS: Final = 1 << 9 | 1 << 10
"""Blocks of trees have come from another inode."""

ITEM_INODE: Final = 0x123B
ITEM_MAP_INTENT: Final = 0x1244
ITEM_ATTRIBUTE_INTENT: Final = 0x1246
ITEM_EXCHANGE_INTENT: Final = 0x1248
"""Each is answered by an item whose kind is one higher, with the same identity."""

INTENT_ID_AT: Final = 8

ITEM_BUFFER: Final = 0x123C
ITEMS_KNOWN: Final = range(0x1236, 0x124A)
"""Intents and what answers them, inodes, buffers, quotas: none but buffers moves free space.
From 0x124A on are the intents of realtime groups."""

BUFFER_CHUNK: Final = 128
BUFFER_CANCEL: Final = 1 << 1
BUFFER_NOT_PLAIN: Final = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4  # inodes, quotas
BUFFER_TYPE_SHIFT: Final = 11
BUFFER_TYPES: Final = frozenset({0, 4, 5, 6, 7, 18})
"""Unknown (of old kernels), B-tree, AGF, AGFL, AGI, superblock."""
