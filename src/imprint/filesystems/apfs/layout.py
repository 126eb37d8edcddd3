"""APFS on-disk structures. All integers are little-endian; "block" is a number of one.

Source: "Apple File System Reference" 2020-06-22: Objects, Container, Object Maps, Volumes,
B-Trees, Space Manager.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from imprint.core.layout import Structure, raw, uint

CONTAINER_MAGIC: Final = b"NXSB"
VOLUME_MAGIC: Final = b"APSB"
JUMPSTART_MAGIC: Final = b"JSDR"

BLOCK_SIZES: Final = (4096, 8192, 16384, 32768, 65536)

KNOWN_INCOMPATIBLE: Final = 0x2
"""The second version of the format. Not 0x100, a Fusion drive: it has two devices."""

KNOWN_SPACE_FLAGS: Final = 0x1
"""The structure has fields behind the ones that are read here."""

IS_TREE: Final = 1 << 31
"""Of a count of blocks of an area: its place is told by a tree."""

# Types of objects.
TYPE_MASK: Final = 0xFFFF
STORAGE_MASK: Final = 0xC0000000
EPHEMERAL, PHYSICAL = 0x80000000, 0x40000000
CONTAINER, TREE_ROOT, TREE_NODE = 0x01, 0x02, 0x03
SPACE_MANAGER, ADDRESS_BLOCK, CHUNK_BLOCK, FREE_QUEUE = 0x05, 0x06, 0x07, 0x09
OBJECT_MAP, CHECKPOINT_MAP, VOLUME, FILE_TREE = 0x0B, 0x0C, 0x0D, 0x0E
REFERENCE_TREE, SNAPSHOT_TREE, OBJECT_MAP_SNAPSHOTS = 0x0F, 0x10, 0x13
JUMPSTART, EXTENT_TREE = 0x14, 0x1F

LAST_MAP: Final = 1
UNENCRYPTED: Final = 1
COUNT_MASK: Final = 0xFFFFF

# Flags of an entry of an object map.
DELETED, ENCRYPTED, HEADERLESS = 0x1, 0x4, 0x8

# Flags of a node of a tree.
NODE_IS_ROOT, NODE_IS_LEAF, NODE_IS_FIXED = 0x1, 0x2, 0x4
TREE_INFO_BYTES: Final = 40
"""At the end of each root node."""

NO_VALUE: Final = 0xFFFF

# Kinds of records of volumes: the upper four bits of the first word of a key.
KIND_SHIFT: Final = 60
SNAPSHOT_RECORD, PHYSICAL_EXTENT, FILE_EXTENT = 1, 2, 8
ID_MASK: Final = (1 << KIND_SHIFT) - 1
EXTENT_IS_NEW: Final = 1
FILE_LENGTH_MASK: Final = (1 << 56) - 1


class ObjectHeader(Structure, size=32, endian="<"):
    """The first bytes of each object; the checksum is that of all the others."""

    checksum: int = uint(8, at=0, doc="Fletcher's")
    oid: int = uint(8, at=8, doc="of a physical object: its block")
    xid: int = uint(8, at=16, doc="transaction that wrote it")
    type: int = uint(4, at=24, doc="what it is, and how it is stored")
    subtype: int = uint(4, at=28, doc="of a tree: what is in it")


class ContainerSuperblock(ObjectHeader, size=1408, endian="<"):
    """``nx_superblock_t``: block 0, and one for each checkpoint."""

    magic: bytes = raw(4, at=32, doc="CONTAINER_MAGIC")
    block_size: int = uint(4, at=36, doc="4096 to 65536")
    block_count: int = uint(8, at=40, doc="of the container")
    readonly_features: int = uint(8, at=56, doc="unknown ones forbid writing")
    incompatible_features: int = uint(8, at=64, doc="unknown ones forbid reading")
    uuid: bytes = raw(16, at=72, doc="of the container")
    descriptor_blocks: int = uint(4, at=104, doc="of the checkpoint descriptor area")
    data_blocks: int = uint(4, at=108, doc="of the checkpoint data area")
    descriptor_base: int = uint(8, at=112, doc="first block of the descriptor area")
    data_base: int = uint(8, at=120, doc="first block of the data area")
    descriptor_index: int = uint(4, at=136, doc="where in its area this checkpoint begins")
    descriptor_length: int = uint(4, at=140, doc="blocks that it has there")
    space_manager: int = uint(8, at=152, doc="ephemeral object")
    object_map: int = uint(8, at=160, doc="block")
    volumes_max: int = uint(4, at=180, doc="how many of the following count")
    volumes: bytes = raw(800, at=184, doc="virtual objects, 8 bytes each")
    blocked_start: int = uint(8, at=1240, doc="first block of what is not to be allocated")
    blocked_count: int = uint(8, at=1248, doc="blocks of it")
    jumpstart: int = uint(8, at=1272, doc="block that describes a driver for EFI; 0: none")
    keybag_start: int = uint(8, at=1296, doc="first block of the keys of volumes")
    keybag_count: int = uint(8, at=1304, doc="blocks of it")
    media_keys_start: int = uint(8, at=1392, doc="first block of the keys of the medium")
    media_keys_count: int = uint(8, at=1400, doc="blocks of it")


class CheckpointMap(ObjectHeader, size=40, endian="<"):
    """Where the ephemeral objects of a checkpoint are; followed by its entries."""

    flags: int = uint(4, at=32, doc="LAST_MAP")
    count: int = uint(4, at=36, doc="of entries")


class CheckpointEntry(Structure, size=40, endian="<"):
    """One ephemeral object."""

    type: int = uint(4, at=0, doc="of the object")
    size: int = uint(4, at=8, doc="in bytes")
    oid: int = uint(8, at=24, doc="of the object")
    block: int = uint(8, at=32, doc="in the checkpoint data area")


class SpaceManager(ObjectHeader, size=320, endian="<"):
    """``spaceman_phys_t``: of two devices, of which the second is there in a Fusion drive."""

    block_size: int = uint(4, at=32, doc="that of the container")
    chunk_blocks: int = uint(4, at=36, doc="of a chunk: the bits of a block")
    chunks_per_block: int = uint(4, at=40, doc="in a chunk-info block")
    blocks_per_address_block: int = uint(4, at=44, doc="chunk-info blocks that one lists")
    block_count: int = uint(8, at=48, doc="of the main device")
    chunk_count: int = uint(8, at=56, doc="of the main device")
    info_count: int = uint(4, at=64, doc="chunk-info blocks")
    address_count: int = uint(4, at=68, doc="blocks of addresses of these; 0: they are here")
    free_count: int = uint(8, at=72, doc="blocks")
    addresses_at: int = uint(4, at=80, doc="byte of this object")
    second_block_count: int = uint(8, at=96, doc="of the other device")
    flags: int = uint(4, at=144, doc="KNOWN_SPACE_FLAGS")
    pool_count: int = uint(8, at=152, doc="blocks of the internal pool")
    pool_bitmaps_count: int = uint(4, at=164, doc="blocks of the ring of the pool's bitmaps")
    pool_bitmaps_start: int = uint(8, at=168, doc="first block of the ring")
    pool_start: int = uint(8, at=176, doc="first block of the internal pool")
    queued_count: int = uint(8, at=240, doc="blocks in the free queue of the main device")
    queue_root: int = uint(8, at=248, doc="ephemeral object; 0: the queue is empty")


class ChunkBlock(ObjectHeader, size=40, endian="<"):
    """A chunk-info block, or one of addresses of such: followed by its entries."""

    index: int = uint(4, at=32, doc="among its like")
    count: int = uint(4, at=36, doc="of entries")


CHUNK_ENTRY: Final = "<QQIIQ"
"""Of a chunk: transaction, first block, blocks, free ones, block of its bitmap; 0: all free."""

CHUNK_ENTRY_BYTES: Final = 32


class ObjectMap(ObjectHeader, size=64, endian="<"):
    """``omap_phys_t``: where virtual objects are."""

    tree: int = uint(8, at=48, doc="block of the root")
    snapshot_tree: int = uint(8, at=56, doc="block of the root; 0: none")


class VolumeSuperblock(ObjectHeader, size=1048, endian="<"):
    """``apfs_superblock_t``."""

    magic: bytes = raw(4, at=32, doc="VOLUME_MAGIC")
    root_tree_type: int = uint(4, at=116, doc="of the tree of files")
    reference_tree_type: int = uint(4, at=120, doc="of the tree of extents")
    snapshot_tree_type: int = uint(4, at=124, doc="of the tree of snapshots")
    object_map: int = uint(8, at=128, doc="block")
    root_tree: int = uint(8, at=136, doc="files and folders")
    reference_tree: int = uint(8, at=144, doc="extents and who refers to them")
    snapshot_tree: int = uint(8, at=152, doc="snapshots")
    flags: int = uint(8, at=264, doc="UNENCRYPTED …")
    name: bytes = raw(256, at=704, doc="in UTF-8, with a zero behind it")
    extent_tree: int = uint(8, at=1032, doc="of a sealed volume: the extents of its files")
    extent_tree_type: int = uint(4, at=1040, doc="of this tree")


class Node(ObjectHeader, size=56, endian="<"):
    """The head of each node of a tree."""

    flags: int = uint(2, at=32, doc="NODE_IS_ROOT …")
    level: int = uint(2, at=34, doc="0: a leaf")
    count: int = uint(4, at=36, doc="of records")
    table_at: int = uint(2, at=40, doc="where they are: counted from the end of this head")
    table_bytes: int = uint(2, at=42, doc="keys follow; values end at the node's end")


class Jumpstart(ObjectHeader, size=176, endian="<"):
    """``nx_efi_jumpstart_t``: followed by extents of blocks, 16 bytes each."""

    magic: bytes = raw(4, at=32, doc="JUMPSTART_MAGIC")
    extent_count: int = uint(4, at=44, doc="of the driver's file")


class Extent(NamedTuple):
    """Blocks of the container.

    Attributes:
        start: the first.
        length: how many.
    """

    start: int
    length: int
