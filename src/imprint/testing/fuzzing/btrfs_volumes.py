"""Target: Btrfs. Its seed is made by hand: what ``mkfs`` makes is a hundred times as large."""

from __future__ import annotations

import struct
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.units import KIB, MIB
from imprint.filesystems.btrfs import FILE_SYSTEM, layout
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.file_places import locating
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE: Final = 4 * KIB
UUID: Final = bytes(range(16))
GENERATION: Final = 9
VOLUME_BYTES: Final = 1248 * KIB
SYSTEM, METADATA, DATA = MIB, 2 * MIB, 4 * MIB
"""Addresses of the three chunks."""

_CHUNKS: Final = (
    (SYSTEM, 16 * KIB, 0x22, (1032 * KIB, 1048 * KIB)),
    (METADATA, 64 * KIB, 0x24, (1064 * KIB, 1128 * KIB)),
    (DATA, 32 * KIB, 0x01, (1192 * KIB,)),
)
_KEY: Final = struct.Struct("<QBQ")
_REACHED_MAX: Final = 20_000
_NUMBERS: Final = ("ROOT", "EXTENTS", "DEVICE", "FILES", "FREE", "LOGS", "LOG", "LEAF")
ADDRESS: Final = {name: METADATA + at * NODE for at, name in enumerate(_NUMBERS)}
"""Of the nodes in the chunk of metadata."""

_Item = tuple[int, int, int, bytes]


def targets() -> Iterator[Target]:
    """The only one."""
    starts = [place for _, _, _, places in _CHUNKS for place in places[:1]]
    nodes = [starts[0]] + [starts[1] + at * NODE for at in range(len(_NUMBERS))]
    yield Target(
        "btrfs",
        lambda: [volume_by_hand()],
        (map_btrfs, walk_btrfs, locating(FILE_SYSTEM)),
        places=(
            Place(layout.Superblock, layout.SUPERBLOCKS_AT[0]),
            *(Place(layout.NodeHeader, place) for place in nodes),
            Place(layout.ChunkItem, struct.pack("<QQQQ", 16 * KIB, 2, 64 * KIB, 0x22)),
            Place(layout.RootItem, struct.pack("<Q", ADDRESS["EXTENTS"]), 176),
            Place(layout.FileExtent, struct.pack("<BQQ", 1, DATA, 8 * KIB), 20),
        ),
        seal=seal,
    )


def map_btrfs(content: bytes) -> None:
    """What it uses lies inside of it."""
    allocation = FILE_SYSTEM.allocation(MemoryStorage(content, name="volume"))
    assert allocation.used.end <= len(content)
    assert allocation.unit.bit_count() == 1


def walk_btrfs(content: bytes) -> None:
    """So does what can be reached."""
    runs = FILE_SYSTEM.reached(MemoryStorage(content, name="volume"))
    for offset, length in islice(runs, _REACHED_MAX):
        assert offset + length <= len(content)
    deque(runs, maxlen=0)


def seal(content: bytearray) -> None:
    """Make the checksums of the superblock and of all nodes right."""
    for at in range(layout.SUPERBLOCKS_AT[0], len(content) - NODE + 1, NODE):
        if content[at + 32 : at + 48] == UUID:
            value = crc32c(content[at + 32 : at + NODE])
            content[at : at + 4] = value.to_bytes(4, "little")


def volume_by_hand() -> bytes:
    """A whole file system: two files, one of which is in the log only."""
    content = bytearray(VOLUME_BYTES)
    for address, node in _nodes().items():
        for start, length, _, places in _CHUNKS:
            if start <= address < start + length:
                for place in places:
                    at = place + address - start
                    content[at : at + NODE] = node
    at = layout.SUPERBLOCKS_AT[0]
    content[at : at + NODE] = _superblock().pack()
    seal(content)
    return bytes(content)


def _superblock() -> layout.Superblock:
    start, length, kind, places = _CHUNKS[0]
    array = _KEY.pack(layout.CHUNKS, layout.CHUNK, start) + _chunk(length, kind, places)
    backup = layout.Backup(root=ADDRESS["LEAF"] + NODE, root_generation=GENERATION - 1)
    return layout.Superblock(
        uuid=UUID,
        own_offset=layout.SUPERBLOCKS_AT[0],
        flags=1,
        magic=layout.MAGIC,
        generation=GENERATION,
        root=ADDRESS["ROOT"],
        chunk_root=SYSTEM,
        log_root=ADDRESS["LOGS"],
        total_bytes=VOLUME_BYTES,
        bytes_used=7 * NODE + 8 * KIB,
        device_count=1,
        sector_size=4 * KIB,
        node_size=NODE,
        chunk_array_bytes=len(array),
        chunk_root_generation=GENERATION,
        compat_ro=layout.RO_FREE_SPACE_TREE | layout.RO_FREE_SPACE_TREE_VALID,
        incompat=layout.INCOMPAT_MIXED_BACKREF | layout.INCOMPAT_SKINNY_METADATA,
        device=1,
        device_bytes=VOLUME_BYTES,
        chunk_array=array,
        backups=backup.pack(),
    )


def _chunk(length: int, kind: int, places: tuple[int, ...]) -> bytes:
    item = bytearray(layout.ChunkItem(length=length, kind=kind, stripe_count=len(places)).pack())
    struct.pack_into("<QQ", item, 8, 2, 64 * KIB)
    return bytes(item) + b"".join(layout.Stripe(device=1, offset=place).pack() for place in places)


def _root_item(name: str, generation: int = GENERATION, level: int = 0) -> bytes:
    return layout.RootItem(
        generation=generation, address=ADDRESS[name], reference_count=1, level=level
    ).pack()


def _file_extent(address: int) -> bytes:
    return layout.FileExtent(kind=1, address=address, length=8 * KIB).pack()


def _nodes() -> dict[int, bytes]:
    """All nodes by their addresses."""
    chunks = [
        (layout.CHUNKS, layout.CHUNK, start, _chunk(length, kind, places))
        for start, length, kind, places in _CHUNKS
    ]
    roots = [
        (tree, layout.ROOT_ITEM, 0, _root_item(name, level=int(name == "FILES")))
        for tree, name in ((2, "EXTENTS"), (4, "DEVICE"), (5, "FILES"), (10, "FREE"))
    ]
    files = [(257, layout.EXTENT_DATA, 0, _file_extent(DATA))]
    logged = [(258, layout.EXTENT_DATA, 0, _file_extent(DATA + 16 * KIB))]
    logs = [(layout.LOG, layout.ROOT_ITEM, 5, _root_item("LOG", GENERATION + 1))]
    device = [
        (1, layout.DEVICE_EXTENT, place, layout.DeviceExtent(chunk=start, length=length).pack())
        for start, length, _, places in _CHUNKS
        for place in places
    ]
    pointer = _KEY.pack(257, layout.EXTENT_DATA, 0) + struct.pack("<QQ", ADDRESS["LEAF"], 9)
    files_root = _header(ADDRESS["FILES"], 1, 1, GENERATION) + pointer
    return {
        SYSTEM: _leaf(SYSTEM, chunks),
        ADDRESS["ROOT"]: _leaf(ADDRESS["ROOT"], roots),
        ADDRESS["EXTENTS"]: _leaf(ADDRESS["EXTENTS"], _extents()),
        ADDRESS["DEVICE"]: _leaf(ADDRESS["DEVICE"], device),
        ADDRESS["FILES"]: files_root.ljust(NODE, b"\0"),
        ADDRESS["LEAF"]: _leaf(ADDRESS["LEAF"], files),
        ADDRESS["FREE"]: _leaf(ADDRESS["FREE"], _free()),
        ADDRESS["LOGS"]: _leaf(ADDRESS["LOGS"], logs, GENERATION + 1),
        ADDRESS["LOG"]: _leaf(ADDRESS["LOG"], logged, GENERATION + 1),
        ADDRESS["LEAF"] + NODE: _leaf(ADDRESS["LEAF"] + NODE, roots, GENERATION - 1),
    }


def _extents() -> list[_Item]:
    """Of what is in no log: nodes, the extent of a file, and block groups between them."""
    committed = ("ROOT", "EXTENTS", "DEVICE", "FILES", "FREE", "LEAF")
    addresses = [SYSTEM, *(ADDRESS[name] for name in committed)]
    nodes = [(address, layout.METADATA_ITEM, 0, bytes(33)) for address in addresses]
    used = NODE, len(committed) * NODE, 8 * KIB
    groups = [
        (start, layout.BLOCK_GROUP, length, layout.BlockGroupItem(used=count, kind=kind).pack())
        for (start, length, kind, _), count in zip(_CHUNKS, used, strict=True)
    ]
    return sorted([*nodes, (DATA, layout.EXTENT_ITEM, 8 * KIB, bytes(53)), *groups])


def _free() -> list[_Item]:
    """By extents, but for the metadata: there by a bitmap of its 16 nodes, of which 6 are used."""
    extent, bitmap = layout.FREE_SPACE_EXTENT, layout.FREE_SPACE_BITMAP
    return [
        (SYSTEM + NODE, extent, 12 * KIB, b""),
        (METADATA, bitmap, 64 * KIB, (0xFFFF & ~0b1001_1111).to_bytes(2, "little")),
        (DATA + 8 * KIB, extent, 24 * KIB, b""),
    ]


def _header(address: int, count: int, level: int, generation: int) -> bytes:
    return layout.NodeHeader(
        uuid=UUID, own_address=address, generation=generation, count=count, level=level
    ).pack()


def _leaf(address: int, items: list[_Item], generation: int = GENERATION) -> bytes:
    keys, data, end = b"", b"", NODE - layout.NodeHeader.SIZE
    for owner, kind, offset, content in items:
        end -= len(content)
        keys += _KEY.pack(owner, kind, offset) + struct.pack("<II", end, len(content))
        data = content + data
    head = _header(address, len(items), 0, generation) + keys
    return head + bytes(NODE - len(head) - len(data)) + data
