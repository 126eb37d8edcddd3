"""A small APFS container put together by hand: no tool at hand makes files in one.

Blocks of 4 KiB, 96 of them, and half a block behind::

     0  superblock             20  chunk information       40  object map of the container
     1  maps and superblocks   24  bitmap                  44  volume
     9  ephemeral objects      28  bitmaps of the pool     45  object map of the volume
    19  addresses (optional)   32  jumpstart               48  trees of the volume
                               33  its driver, keys        60  files, 70 a file that is gone

There are two checkpoints. The older one still used block 80, and its chunk information and
bitmap are the blocks behind the newer one's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.bitmap import count_bits, set_bits
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.layout import (
    CheckpointEntry,
    CheckpointMap,
    ChunkBlock,
    ContainerSuperblock,
    Jumpstart,
    Node,
    ObjectMap,
    SpaceManager,
    VolumeSuperblock,
)
from imprint.filesystems.apfs.objects import checksum

if TYPE_CHECKING:
    from imprint.core.layout import Structure

BLOCK: Final = 4096
BLOCKS: Final = 96
TAIL: Final = BLOCK // 2
DESCRIPTORS: Final = (1, 8)
DATA: Final = (9, 10)
ADDRESSES, INFO, BITMAP = 19, 20, 24
POOL: Final = (19, 9)
POOL_BITMAPS: Final = (28, 4)
DRIVER: Final = (33, 2)
KEYS: Final = (35, 1)
JUMPSTART, OBJECTS, VOLUME, VOLUME_OBJECTS = 32, 40, 44, 45
FILES: Final = ((60, 4), (66, 1))
SNAPSHOT_FILE: Final = (68, 2)
QUEUED: Final = (70, 3)
OLD: Final = 80

USED: Final = (
    (0, 1), DESCRIPTORS, DATA, POOL, POOL_BITMAPS, (JUMPSTART, 1), DRIVER, KEYS,
    (OBJECTS, 2), (VOLUME, 1), (VOLUME_OBJECTS, 3), (48, 6), *FILES, SNAPSHOT_FILE, QUEUED,
)  # fmt: skip
"""What the newer checkpoint's bitmap has."""

_SPACE, _QUEUE = 1024, 1025
_VOLUME_OID: Final = 1030
_ROOT_OID, _LEAF_OID = 1040, 1041
_CHUNK_BLOCKS: Final = 8 * BLOCK
_XID: Final = 6
_EPHEMERAL: Final = layout.EPHEMERAL
_PHYSICAL: Final = layout.PHYSICAL


class Item(NamedTuple):
    """A record of a tree."""

    key: bytes
    value: bytes


def container(*, is_listed: bool = False, is_encrypted: bool = False) -> bytes:
    """Make one.

    Args:
        is_listed: the chunk-info block is named by a block of addresses.
        is_encrypted: the volume's tree of files cannot be read.
    """
    content = bytearray(BLOCKS * BLOCK + TAIL)
    for xid, free in ((_XID - 1, False), (_XID, True)):
        _put_checkpoint(content, xid, is_newest=free, is_listed=is_listed)
    jumpstart = Jumpstart(
        oid=JUMPSTART,
        xid=1,
        type=_PHYSICAL | layout.JUMPSTART,
        magic=layout.JUMPSTART_MAGIC,
        extent_count=1,
    )
    put(content, JUMPSTART, jumpstart, struct.pack("<QQ", *DRIVER))
    _put_volume(content, is_encrypted=is_encrypted)
    for start, count in (*FILES, SNAPSHOT_FILE):
        content[start * BLOCK : (start + count) * BLOCK] = b"file" * (count * BLOCK // 4)
    return bytes(content)


def put(content: bytearray, block: int, head: Structure, rest: bytes = b"") -> None:
    """Write an object of one block, with its checksum."""
    data = bytearray((head.pack() + rest).ljust(BLOCK, b"\0"))
    data[:8] = checksum(data).to_bytes(8, "little")
    content[block * BLOCK : (block + 1) * BLOCK] = data


def seal(content: bytearray, block: int) -> None:
    """Make the checksum of a block right."""
    data = content[block * BLOCK : (block + 1) * BLOCK]
    if len(data) == BLOCK:
        content[block * BLOCK : block * BLOCK + 8] = checksum(data).to_bytes(8, "little")


def _put_checkpoint(content: bytearray, xid: int, *, is_newest: bool, is_listed: bool) -> None:
    second = 0 if is_newest else 1
    taken = USED if is_newest else (*USED, (OLD, 1))
    bits = bytearray(BLOCK)
    for start, count in taken:
        set_bits(bits, start, count)
    free = BLOCKS - count_bits(bits)
    content[(BITMAP + second) * BLOCK : (BITMAP + second + 1) * BLOCK] = bits
    info = ChunkBlock(
        oid=INFO + second, xid=xid, type=_PHYSICAL | layout.CHUNK_BLOCK, index=0, count=1
    )
    put(
        content,
        INFO + second,
        info,
        struct.pack(layout.CHUNK_ENTRY, xid, 0, BLOCKS, free, BITMAP + second),
    )
    if is_listed and is_newest:
        listed = ChunkBlock(oid=ADDRESSES, type=_PHYSICAL | layout.ADDRESS_BLOCK, count=1)
        put(content, ADDRESSES, listed, struct.pack("<Q", INFO))
    space, queue = DATA[0] + 2 * second, DATA[0] + 2 * second + 1
    manager = _manager(xid, free, 1 if is_listed and is_newest else 0)
    listed_at = ADDRESSES if is_listed and is_newest else INFO + second
    put(content, space, manager, bytes(2568 - SpaceManager.SIZE) + struct.pack("<Q", listed_at))
    records = [
        Item(struct.pack("<QQ", xid - 1, QUEUED[0]), struct.pack("<Q", QUEUED[1] - 1)),
        Item(struct.pack("<QQ", xid - 1, QUEUED[0] + QUEUED[1] - 1), b""),
    ]
    head = {"oid": _QUEUE, "xid": xid, "type": _EPHEMERAL | layout.TREE_ROOT}
    put_node(content, queue, {**head, "subtype": layout.FREE_QUEUE}, records, is_fixed=True)
    first = 2 * (1 - second)
    entries = b"".join(
        CheckpointEntry(type=_EPHEMERAL | kind, size=BLOCK, oid=oid, block=block).pack()
        for kind, oid, block in (
            (layout.SPACE_MANAGER, _SPACE, space),
            (layout.TREE_ROOT, _QUEUE, queue),
        )
    )
    checkpoint_map = CheckpointMap(
        oid=DESCRIPTORS[0] + first,
        xid=xid,
        type=_PHYSICAL | layout.CHECKPOINT_MAP,
        flags=layout.LAST_MAP,
        count=2,
    )
    put(content, DESCRIPTORS[0] + first, checkpoint_map, entries)
    superblock = _superblock(xid, first)
    put(content, DESCRIPTORS[0] + first + 1, superblock)
    put(content, 0, superblock)


def _superblock(xid: int, index: int) -> ContainerSuperblock:
    return ContainerSuperblock(
        oid=1,
        xid=xid,
        type=_EPHEMERAL | layout.CONTAINER,
        magic=layout.CONTAINER_MAGIC,
        block_size=BLOCK,
        block_count=BLOCKS,
        incompatible_features=2,
        uuid=bytes(range(16)),
        descriptor_blocks=DESCRIPTORS[1],
        data_blocks=DATA[1],
        descriptor_base=DESCRIPTORS[0],
        data_base=DATA[0],
        descriptor_index=index,
        descriptor_length=2,
        space_manager=_SPACE,
        object_map=OBJECTS,
        volumes_max=1,
        volumes=struct.pack("<Q", _VOLUME_OID).ljust(800, b"\0"),
        jumpstart=JUMPSTART,
        keybag_start=KEYS[0],
        keybag_count=KEYS[1],
    )


def _manager(xid: int, free: int, address_count: int) -> SpaceManager:
    return SpaceManager(
        oid=_SPACE,
        xid=xid,
        type=_EPHEMERAL | layout.SPACE_MANAGER,
        block_size=BLOCK,
        chunk_blocks=_CHUNK_BLOCKS,
        chunks_per_block=126,
        blocks_per_address_block=507,
        block_count=BLOCKS,
        chunk_count=1,
        info_count=1,
        address_count=address_count,
        free_count=free,
        addresses_at=2568,
        flags=1,
        pool_count=POOL[1],
        pool_bitmaps_count=POOL_BITMAPS[1],
        pool_bitmaps_start=POOL_BITMAPS[0],
        pool_start=POOL[0],
        queued_count=QUEUED[1],
        queue_root=_QUEUE,
    )


def put_node(
    content: bytearray,
    block: int,
    head: dict[str, int],
    records: list[Item],
    *,
    is_fixed: bool = False,
    level: int = 0,
) -> None:
    """Write a node of a tree: a root, unless its type says that it is none."""
    is_root = head["type"] & layout.TYPE_MASK == layout.TREE_ROOT
    end = BLOCK - layout.TREE_INFO_BYTES if is_root else BLOCK
    table = b""
    keys, values = b"", b""
    for key, value in records:
        at = len(keys)
        keys += key
        values = value + values
        place = len(values) if value else layout.NO_VALUE
        table += struct.pack("<HH", at, place) if is_fixed else b""
        table += struct.pack("<HHHH", at, len(key), place, len(value)) if not is_fixed else b""
    node = Node(
        **head,
        flags=is_root * layout.NODE_IS_ROOT
        | (level == 0) * layout.NODE_IS_LEAF
        | is_fixed * layout.NODE_IS_FIXED,
        level=level,
        count=len(records),
        table_bytes=len(table),
    )
    middle = table + keys
    room = end - Node.SIZE - len(middle) - len(values)
    put(content, block, node, middle + bytes(room) + values)


def _put_volume(content: bytearray, *, is_encrypted: bool) -> None:
    flags = layout.ENCRYPTED if is_encrypted else 0
    _put_map(content, OBJECTS, [(_VOLUME_OID, 0, VOLUME)])
    _put_map(
        content, VOLUME_OBJECTS, [(_ROOT_OID, flags, 48), (_LEAF_OID, flags, 49)], snapshots=47
    )
    snapshots = _head(47, layout.OBJECT_MAP_SNAPSHOTS)
    put_node(content, 47, snapshots, [Item(struct.pack("<Q", 4), bytes(16))], is_fixed=True)
    superblock = VolumeSuperblock(
        oid=_VOLUME_OID,
        xid=_XID,
        type=layout.VOLUME,
        magic=layout.VOLUME_MAGIC,
        root_tree_type=layout.TREE_ROOT,
        reference_tree_type=_PHYSICAL | layout.TREE_ROOT,
        snapshot_tree_type=_PHYSICAL | layout.TREE_ROOT,
        object_map=VOLUME_OBJECTS,
        root_tree=_ROOT_OID,
        reference_tree=50,
        snapshot_tree=51,
        flags=0 if is_encrypted else layout.UNENCRYPTED,
        name=b"by hand",
    )
    put(content, VOLUME, superblock)
    root = {"oid": _ROOT_OID, "xid": 1, "type": layout.TREE_ROOT, "subtype": layout.FILE_TREE}
    child = Item(struct.pack("<Q", 16 | 3 << 60), struct.pack("<Q", _LEAF_OID))
    put_node(content, 48, root, [child], level=1)
    leaf = {"oid": _LEAF_OID, "xid": 1, "type": layout.TREE_NODE, "subtype": layout.FILE_TREE}
    put_node(
        content, 49, leaf, [Item(struct.pack("<Q", 16 | 3 << 60), bytes(92)), *_file_extents()]
    )
    put_node(content, 50, _head(50, layout.REFERENCE_TREE), _references(FILES))
    snapshot = struct.pack("<QQ", 52, 53) + bytes(30) + b"\5\0snap\0"
    record = Item(struct.pack("<Q", 4 | layout.SNAPSHOT_RECORD << 60), snapshot)
    put_node(content, 51, _head(51, layout.SNAPSHOT_TREE), [record])
    put_node(content, 52, _head(52, layout.REFERENCE_TREE), _references((SNAPSHOT_FILE,)))
    put(content, 53, superblock.replace(xid=4))


def _put_map(
    content: bytearray, block: int, items: list[tuple[int, int, int]], *, snapshots: int = 0
) -> None:
    """An object map and its tree of one node, behind it."""
    head = ObjectMap(
        oid=block,
        xid=_XID,
        type=_PHYSICAL | layout.OBJECT_MAP,
        tree=block + 1,
        snapshot_tree=snapshots,
    )
    put(content, block, head)
    records = [
        Item(struct.pack("<QQ", oid, 1), struct.pack("<IIQ", flags, BLOCK, place))
        for oid, flags, place in items
    ]
    put_node(content, block + 1, _head(block + 1, layout.OBJECT_MAP), records, is_fixed=True)


def _head(block: int, kind: int) -> dict[str, int]:
    return {"oid": block, "xid": 1, "type": _PHYSICAL | layout.TREE_ROOT, "subtype": kind}


def _file_extents() -> list[Item]:
    """Of one file: with a hole between its extents."""
    found, at = [], 0
    for start, count in (FILES[0], (0, 2), FILES[1]):
        key = struct.pack("<QQ", 16 | layout.FILE_EXTENT << 60, at)
        found.append(Item(key, struct.pack("<QQQ", count * BLOCK, start, 0)))
        at += count * BLOCK
    return found


def _references(extents: tuple[tuple[int, int], ...]) -> list[Item]:
    kind = layout.EXTENT_IS_NEW << layout.KIND_SHIFT
    return [
        Item(
            struct.pack("<Q", start | layout.PHYSICAL_EXTENT << layout.KIND_SHIFT),
            struct.pack("<QQI", count | kind, 16, 1),
        )
        for start, count in extents
    ]
