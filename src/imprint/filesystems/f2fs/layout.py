"""F2FS on-disk structures.

Source: Linux ``include/linux/f2fs_fs.h`` and ``fs/f2fs/segment.h``; the order of the areas and
the choice of the copies that count: ``Documentation/filesystems/f2fs.rst``.
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, sint, uint

BLOCK: Final = 4096
MAGIC: Final = 0xF2F52010
SUPER_OFFSETS: Final = (1024, BLOCK + 1024)

SIT_ENTRY: Final = 74
"""Bytes: valid blocks and type, a bitmap of 512 bits, a time."""

SIT_ENTRIES: Final = BLOCK // SIT_ENTRY
NAT_ENTRY: Final = 9
NAT_ENTRIES: Final = BLOCK // NAT_ENTRY
SUMMARIES_BYTES: Final = 3584
"""Of a summary block: what stands in front of its journal."""

JOURNAL_BYTES: Final = 507

# Features under which a block that no segment's bitmap has is free, as without them.
KNOWN_FEATURES: Final = 0xFFFF & ~0x0002  # all of Linux 6.12 but zoned devices

CP_UMOUNT: Final = 0x1
CP_COMPACT_SUMMARIES: Final = 0x4
CP_LARGE_NAT_BITMAP: Final = 0x400
CP_DOUBTFUL: Final = {
    0x8: "has met an error",
    0x10: "asks to be checked",
    0x1000: "was used without checkpoints",
    0x2000: "was used without checkpoints",
    0x4000: "was being resized",
}

NODE_ENTRIES: Final = 1018
"""Addresses, or numbers of nodes, in a node that is no inode."""

# Of an inode.
INLINE_AT: Final = 3
ADDRESSES_AT: Final = 360
NIDS_AT: Final = ADDRESSES_AT + 4 * 923
INLINE_XATTR, INLINE_DATA, INLINE_NAMES, EXTRA_ATTRIBUTES = 0x01, 0x02, 0x04, 0x20
INLINE_CONTENT: Final = INLINE_DATA | INLINE_NAMES
INLINE_XATTR_BYTES: Final = 200
"""Kept free in folders that have their names inside, whether there are attributes or not."""

FLEXIBLE_XATTR: Final = 0x40
"""Of the features: each inode says how much its attributes take."""

CREATION_TIME: Final = 0x100
"""Of the features."""

CREATION_TIME_END: Final = 24
"""As many extra attributes has an inode that has it."""

ENCRYPTED: Final = 0x04
"""Of what an inode advises."""

COMPRESSED: Final = 0x04
"""Of an inode's flags: clusters of it may be compressed."""

NULL_ADDRESS: Final = 0
COMPRESSED_ADDRESS: Final = 0xFFFFFFFE
"""In front of the addresses of a compressed cluster."""

NEW_ADDRESS: Final = 0xFFFFFFFF
"""Of a block that has a place kept for it, but was not written."""

ADDRESS_MAX: Final = 0xFFFFFFFD
"""Above are marks: not yet allocated, compressed."""


ATTRIBUTES_MARK: Final = (0xF2F52011).to_bytes(4, "little")
ATTRIBUTES_HEAD: Final = 24
ATTRIBUTES_NODE: Final = 0xFFFFFFFF >> 3
"""In place of an offset among the nodes of an inode: it holds nothing but attributes."""


class Superblock(Structure, size=3072, endian="<"):
    """In both of the first two blocks."""

    magic: int = uint(4, at=0, doc="MAGIC")
    log_block_size: int = uint(4, at=16, doc="12")
    log_segment_blocks: int = uint(4, at=20, doc="9")
    checksum_offset: int = uint(4, at=32, doc="of its own checksum, if the feature is set")
    block_count: int = uint(8, at=36, doc="of the volume")
    segment_count: int = uint(4, at=48, doc="from segment0_block on")
    sit_segments: int = uint(4, at=56, doc="of both copies of the segment information table")
    nat_segments: int = uint(4, at=60, doc="of both copies of the node address table")
    main_segments: int = uint(4, at=68, doc="of the main area")
    checkpoint_block: int = uint(4, at=76, doc="of the first checkpoint pack")
    sit_block: int = uint(4, at=80, doc="of the segment information table")
    nat_block: int = uint(4, at=84, doc="of the node address table")
    summary_block: int = uint(4, at=88, doc="of the segment summary area")
    main_block: int = uint(4, at=92, doc="of the main area")
    root_inode: int = uint(4, at=96, doc="its number")
    checkpoint_payload: int = uint(4, at=1664, doc="blocks of a bitmap behind the checkpoint")
    features: int = uint(4, at=2180, doc="which features it has")
    first_device: bytes = raw(64, at=2201, doc="path; zeros: all of it is here")


class Checkpoint(Structure, size=192, endian="<"):
    """The head of the first block of a checkpoint pack; its last block is a copy."""

    version: int = uint(8, at=0, doc="the higher of two packs counts")
    valid_blocks: int = uint(8, at=16, doc="in the main area")
    node_segments: bytes = raw(
        32, at=36, doc="numbers of the open segments for nodes, 4 bytes each"
    )
    node_offsets: bytes = raw(16, at=68, doc="where in these the next block goes, 2 bytes each")
    flags: int = uint(4, at=132, doc="CP_UMOUNT …")
    total_blocks: int = uint(4, at=136, doc="of the pack")
    summaries_at: int = uint(4, at=140, doc="block of the pack")
    sit_bitmap_bytes: int = uint(4, at=156, doc="which copy of a table's block counts")
    nat_bitmap_bytes: int = uint(4, at=160, doc="the same for nodes")
    checksum_offset: int = uint(4, at=164, doc="in the block")


class Inode(Structure, size=396, endian="<"):
    """The beginning of a node that is an inode."""

    mode: int = uint(2, at=0, doc="type and permissions")
    advice: int = uint(1, at=2, doc="ENCRYPTED …")
    inline: int = uint(1, at=3, doc="INLINE_DATA …")
    owner: int = uint(4, at=4, doc="its number")
    group: int = uint(4, at=8, doc="its number")
    links: int = uint(4, at=12, doc="names")
    size: int = uint(8, at=16, doc="in bytes")
    accessed_s: int = sint(8, at=32, doc="since 1970")
    changed_s: int = sint(8, at=40, doc="the same")
    modified_s: int = sint(8, at=48, doc="the same")
    accessed_ns: int = uint(4, at=56, doc="and ns")
    changed_ns: int = uint(4, at=60, doc="the same")
    modified_ns: int = uint(4, at=64, doc="the same")
    attributes_node: int = uint(4, at=76, doc="with more attributes; 0: none")
    flags: int = uint(4, at=80, doc="COMPRESSED …")
    extra_size: int = uint(2, at=360, doc="of what follows, if there are extra attributes")
    created_s: int = sint(8, at=372, doc="since 1970, if there is CREATION_TIME")
    created_ns: int = uint(4, at=380, doc="and ns")
    algorithm: int = uint(1, at=392, doc="0 LZO, 1 LZ4, 2 Zstandard, 3 LZO-RLE")
    cluster_log: int = uint(1, at=393, doc="blocks of a compressed cluster are 1 << this")


class NodeFooter(Structure, size=24, endian="<"):
    """The end of each node block."""

    nid: int = uint(4, at=0, doc="of the node")
    ino: int = uint(4, at=4, doc="of the inode that it belongs to")
    flag: int = uint(4, at=8, doc="its offset among the nodes of the inode, and marks")
    version: int = uint(8, at=12, doc="of the checkpoint after which it was written")
