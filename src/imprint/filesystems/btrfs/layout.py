"""Structures of Btrfs. All are little-endian; addresses are logical unless they say otherwise.

Source: Linux ``include/uapi/linux/btrfs_tree.h`` and ``fs/btrfs/fs.h``; btrfs documentation,
"Btrfs design" and "On-disk format".
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, sint, uint
from imprint.core.units import GIB, KIB, MIB

MAGIC: Final = b"_BHRfS_M"
SUPERBLOCK_BYTES: Final = 4 * KIB
SUPERBLOCKS_AT: Final = (64 * KIB, 64 * MIB, 256 * GIB)
RESERVED_BYTES: Final = 1 * MIB
"""At the start of a device, for boot loaders: never allocated."""

CHECKSUM_BYTES: Final = 32
"""Room for a checksum in front of what it covers."""

# super.flags
FLAG_ERROR: Final = 1 << 2
FLAG_SEEDING: Final = 1 << 32
FLAGS_KNOWN: Final = 0b111  # written, balancing, error

# super.incompat
INCOMPAT_MIXED_BACKREF: Final = 1 << 0
INCOMPAT_SKINNY_METADATA: Final = 1 << 8
INCOMPAT_METADATA_UUID: Final = 1 << 10
INCOMPAT_KNOWN: Final = 0x10F7F
"""Mixed back references, default subvolume, mixed groups, LZO, zstd, big metadata, extended
references to inodes, skinny metadata, no holes, metadata UUID, RAID1 of 3 and 4, simple quota."""
INCOMPAT_NAMES: Final = {
    7: "RAID5/6",
    12: "zones",
    13: "extent tree v2",
    14: "RAID stripe tree",
    17: "remap tree",
}

# super.compat_ro
RO_FREE_SPACE_TREE: Final = 1 << 0
RO_FREE_SPACE_TREE_VALID: Final = 1 << 1
RO_BLOCK_GROUP_TREE: Final = 1 << 3
RO_KNOWN: Final = 0xF
"""The two of the free-space tree, verity, block-group tree."""

FILE_TREE: Final = 5
"""That of the file system's root; those of subvolumes have identities from FIRST_FREE on."""

FIRST_FREE: Final = 256
"""The first identity that files have: of the root folder of each tree of files."""

# Identities of trees, and of the things that have one.
ROOT_TREE: Final = 1
EXTENT_TREE: Final = 2
DEVICE_TREE: Final = 4
FREE_SPACE_TREE: Final = 10
BLOCK_GROUP_TREE: Final = 11
LOG: Final = (1 << 64) - 6
CHUNKS: Final = 256

# Types of items
INODE: Final = 1
ATTRIBUTE: Final = 24
FOLDER_NAME: Final = 96
EXTENT_DATA: Final = 108
ROOT_ITEM: Final = 132
ROOT_BACKREF: Final = 144
EXTENT_ITEM: Final = 168
EXTENT_FLAGS_AT: Final = 16
EXTENT_IS_DATA: Final = 1
METADATA_ITEM: Final = 169
BLOCK_GROUP: Final = 192
FREE_SPACE_INFO: Final = 198
FREE_SPACE_EXTENT: Final = 199
FREE_SPACE_BITMAP: Final = 200
DEVICE_EXTENT: Final = 204
DEVICE: Final = 216
CHUNK: Final = 228

# chunk.kind
KIND_DATA: Final = 1 << 0
KIND_SYSTEM: Final = 1 << 1
KIND_METADATA: Final = 1 << 2
KINDS: Final = KIND_DATA | KIND_SYSTEM | KIND_METADATA
PROFILES: Final = {
    0: 1,  # single
    1 << 3: 1,  # RAID0, which a device alone may have since Linux 5.15
    1 << 4: 2,  # RAID1
    1 << 5: 2,  # DUP
    1 << 9: 3,  # RAID1 of three
    1 << 10: 4,  # RAID1 of four
}
"""Copies by profile, of those in which a stripe is a copy of the whole chunk."""

LEVEL_MAX: Final = 7
FILE_EXTENT_INLINE: Final = 0
FILE_EXTENT_WRITTEN: Final = 1
COMPRESSED_MAX: Final = 128 * KIB
"""Of a compressed extent, unpacked."""

ZLIB: Final = 1
LZO: Final = 2
ZSTD: Final = 3


class Superblock(Structure, size=SUPERBLOCK_BYTES, endian="<"):
    """At each of ``SUPERBLOCKS_AT``; the first is the one that is mounted."""

    uuid: bytes = raw(16, at=0x20, doc="that the user sees")
    own_offset: int = uint(8, at=0x30, doc="of itself, in the volume")
    flags: int = uint(8, at=0x38, doc="FLAG_*")
    magic: bytes = raw(8, at=0x40, doc="MAGIC")
    generation: int = uint(8, at=0x48, doc="of the last commit")
    root: int = uint(8, at=0x50, doc="root node of the root tree")
    chunk_root: int = uint(8, at=0x58, doc="root node of the chunk tree")
    log_root: int = uint(8, at=0x60, doc="root node of the tree of log trees; 0: no log")
    total_bytes: int = uint(8, at=0x70, doc="of all devices")
    bytes_used: int = uint(8, at=0x78, doc="of extents, each counted once")
    device_count: int = uint(8, at=0x88, doc="num_devices")
    sector_size: int = uint(4, at=0x90, doc="unit of data, 4 to 64 KiB")
    node_size: int = uint(4, at=0x94, doc="of a tree, sector size to 64 KiB")
    chunk_array_bytes: int = uint(4, at=0xA0, doc="sys_chunk_array_size")
    chunk_root_generation: int = uint(8, at=0xA4, doc="of the chunk tree's root")
    compat_ro: int = uint(8, at=0xB4, doc="features without which nothing may be written")
    incompat: int = uint(8, at=0xBC, doc="features without which nothing can be read")
    checksum_type: int = uint(2, at=0xC4, doc="of superblocks, nodes and data")
    root_level: int = uint(1, at=0xC6, doc="0: a leaf")
    chunk_root_level: int = uint(1, at=0xC7, doc="0: a leaf")
    log_root_level: int = uint(1, at=0xC8, doc="0: a leaf")
    device: int = uint(8, at=0xC9, doc="dev_item.devid: of this device")
    device_bytes: int = uint(8, at=0xD1, doc="dev_item.total_bytes")
    metadata_uuid: bytes = raw(16, at=0x23B, doc="in all nodes, if INCOMPAT_METADATA_UUID")
    chunk_array: bytes = raw(2048, at=0x32B, doc="chunks that the chunk tree is in")
    backups: bytes = raw(672, at=0xB2B, doc="four times Backup")


class Backup(Structure, size=168, endian="<"):
    """Roots of one of the last commits."""

    root: int = uint(8, at=0, doc="of the root tree; so all below")
    root_generation: int = uint(8, at=8, doc="of its root node; so all below")
    chunk_root: int = uint(8, at=16, doc="")
    chunk_root_generation: int = uint(8, at=24, doc="")
    extent_root: int = uint(8, at=32, doc="or block-group tree's")
    extent_root_generation: int = uint(8, at=40, doc="")
    fs_root: int = uint(8, at=48, doc="")
    fs_root_generation: int = uint(8, at=56, doc="")
    device_root: int = uint(8, at=64, doc="")
    device_root_generation: int = uint(8, at=72, doc="")
    checksum_root: int = uint(8, at=80, doc="")
    checksum_root_generation: int = uint(8, at=88, doc="")
    root_level: int = uint(1, at=152, doc="0: a leaf; so all below")
    chunk_root_level: int = uint(1, at=153, doc="")
    extent_root_level: int = uint(1, at=154, doc="")
    fs_root_level: int = uint(1, at=155, doc="")
    device_root_level: int = uint(1, at=156, doc="")
    checksum_root_level: int = uint(1, at=157, doc="")


class NodeHeader(Structure, size=101, endian="<"):
    """In front of every node: items follow in a leaf, keys with pointers in others."""

    uuid: bytes = raw(16, at=32, doc="of the file system")
    own_address: int = uint(8, at=48, doc="of itself")
    generation: int = uint(8, at=80, doc="when it was written")
    owner: int = uint(8, at=88, doc="the tree that it was made for")
    count: int = uint(4, at=96, doc="of items or pointers")
    level: int = uint(1, at=100, doc="0: a leaf")


class ChunkItem(Structure, size=48, endian="<"):
    """Where a run of logical addresses is; its stripes follow."""

    length: int = uint(8, at=0, doc="in bytes")
    kind: int = uint(8, at=24, doc="KIND_* and a profile")
    stripe_count: int = uint(2, at=44, doc="")


class Stripe(Structure, size=32, endian="<"):
    """A place on a device."""

    device: int = uint(8, at=0, doc="devid")
    offset: int = uint(8, at=8, doc="in the volume")


class DeviceExtent(Structure, size=48, endian="<"):
    """A run of a device that belongs to a chunk; its place is in its key."""

    chunk: int = uint(8, at=16, doc="its address")
    length: int = uint(8, at=24, doc="in bytes")


class BlockGroupItem(Structure, size=24, endian="<"):
    """How much of a chunk is used; its address and length are in its key."""

    used: int = uint(8, at=0, doc="bytes of extents")
    kind: int = uint(8, at=16, doc="as in the chunk")


class RootItem(Structure, size=239, endian="<"):
    """Where a tree is."""

    generation: int = uint(8, at=160, doc="of its root node")
    address: int = uint(8, at=176, doc="of its root node; 0: there is none")
    reference_count: int = uint(4, at=216, doc="0: the tree is being deleted")
    dropped: bytes = raw(17, at=220, doc="key; of a tree being deleted, what is before is gone")
    level: int = uint(1, at=238, doc="of its root node")


class FreeSpaceInfo(Structure, size=8, endian="<"):
    """How free space of a block group is told."""

    extent_count: int = uint(4, at=0, doc="of runs of free space")
    flags: int = uint(4, at=4, doc="1: by bitmaps")


class Inode(Structure, size=160, endian="<"):
    """What is known of a file besides its names and its content."""

    size: int = uint(8, at=16, doc="in bytes")
    links: int = uint(4, at=40, doc="how many names it has")
    owner: int = uint(4, at=44, doc="uid")
    group: int = uint(4, at=48, doc="gid")
    mode: int = uint(4, at=52, doc="type and permissions")
    accessed_s: int = sint(8, at=112, doc="atime, since 1970")
    accessed_ns: int = uint(4, at=120, doc="")
    changed_s: int = sint(8, at=124, doc="ctime")
    changed_ns: int = uint(4, at=132, doc="")
    modified_s: int = sint(8, at=136, doc="mtime")
    modified_ns: int = uint(4, at=144, doc="")
    created_s: int = sint(8, at=148, doc="otime")
    created_ns: int = uint(4, at=156, doc="")


class FolderName(Structure, size=30, endian="<"):
    """A name in a folder, or of an attribute; its bytes follow."""

    target: int = uint(8, at=0, doc="inode, or tree of a subvolume")
    target_kind: int = uint(1, at=8, doc="INODE or ROOT_ITEM")
    data_bytes: int = uint(2, at=25, doc="of what follows the name: a value")
    name_bytes: int = uint(2, at=27, doc="of the name")


class FileExtent(Structure, size=53, endian="<"):
    """Where a run of a file is; one that is stored inline has no more than 21 bytes of this."""

    unpacked: int = uint(8, at=8, doc="bytes of all of it, once unpacked")
    compression: int = uint(1, at=16, doc="0: none")
    encryption: int = uint(1, at=17, doc="0: none")
    other: int = uint(2, at=18, doc="encoding; 0: none")
    kind: int = uint(1, at=20, doc="0 inline, 1 written, 2 reserved only")
    address: int = uint(8, at=21, doc="of the whole extent; 0: a hole")
    length: int = uint(8, at=29, doc="of the whole extent, as stored")
    begin: int = uint(8, at=37, doc="of the run, in the extent once unpacked")
    count: int = uint(8, at=45, doc="bytes of the run")
