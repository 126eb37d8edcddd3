"""Volumes of classic HFS and of MFS, of a few blocks, made by hand as Apple's books describe them.

Source: Inside Macintosh: Files, chapter 2; Inside Macintosh, volume II, chapter 4.
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.filesystems.hfs import layout
from imprint.filesystems.hfs_common import INDEX, LEAF, UNMOUNTED, NodeDescriptor, TreeHeader
from imprint.filesystems.mfs import FileEntry
from imprint.filesystems.probes.apple import HFS_OFFSET, HfsMasterBlock, MfsMasterBlock
from imprint.testing.fuzzing.target import Place

SECTOR: Final = 512
FIRST: Final = 4
"""Sector of the first block, of HFS."""

_BLOCKS: Final = 64
_EXTENTS, _CATALOG, _DATA = 0, 4, 20

CONTENT: Final = b"".join(bytes([65 + number]) * SECTOR for number in range(7))[:-12]
"""Of ``/file``, which has five extents."""

RESOURCE: Final = b"resource" * 100
"""Of its resource fork, which has one."""

TIMES: Final = (3_000_000_000, 2_900_000_000)
"""Modified and created, in s since 1904."""

FINDER: Final = b"TEXTttxt" + bytes(8)

NAMES: Final = ("empty", "file", "folder", "folder/in a: folder")
"""Sorted; the ``:`` is a ``/`` on the volume."""

_NODES: Final = tuple((FIRST + block) * SECTOR for block in (0, 1, 4, 5, 6, 7))

HFS_PLACES: Final = (
    Place(HfsMasterBlock, HFS_OFFSET),
    *(Place(NodeDescriptor, at) for at in _NODES),
    *(Place(TreeHeader, at + NodeDescriptor.SIZE) for at in (_NODES[0], _NODES[2])),
    Place(layout.ExtentsRecord, _NODES[1] + NodeDescriptor.SIZE),
    Place(layout.FileRecord, FINDER[:8], within=4),
    Place(layout.FolderRecord, struct.pack(">II", *TIMES[::-1]), within=10),
)
"""What a fuzzer changes on purpose."""


def small_hfs() -> bytes:
    """With a catalog of two leaves below an index, and a file of five extents."""
    content = bytearray(SECTOR * (FIRST + _BLOCKS + 2))
    used = 40
    extents = _tree(
        [_extents_record(16, 4, (_DATA + 6, 1), (_DATA + 9, 2))],
        _CATALOG - _EXTENTS,
    )
    first = [
        _catalog_record(1, b"Small", _folder(2, 3)),
        _catalog_record(2, b"", _thread(1, b"Small")),
        _catalog_record(2, b"empty", _file(18)),
        _catalog_record(2, b"file", _file(16, CONTENT, RESOURCE)),
    ]
    second = [
        _catalog_record(2, b"folder", _folder(17, 1)),
        _catalog_record(17, b"", _thread(2, b"folder")),
        _catalog_record(17, b"in a/ folder", _file(19)),
    ]
    catalog = _tree_of_two(first, second, _DATA - _CATALOG)
    block = HfsMasterBlock(
        mark=b"BD",
        attributes=UNMOUNTED,
        bitmap_block=3,
        block_count=_BLOCKS,
        block_size=SECTOR,
        first_block=FIRST,
        free_blocks=_BLOCKS - used,
        name_length=5,
        name=b"Small",
        extents_size=len(extents),
        extents_extents=_pairs((_EXTENTS, _CATALOG - _EXTENTS)),
        catalog_size=len(catalog),
        catalog_extents=_pairs((_CATALOG, _DATA - _CATALOG)),
    ).pack()
    bitmap = (((1 << used) - 1) << (_BLOCKS - used)).to_bytes(_BLOCKS // 8)
    pieces = {2: block, 3: bitmap, FIRST + _EXTENTS: extents, FIRST + _CATALOG: catalog}
    for index, number in enumerate((0, 2, 4, 5, 6, 9, 10)):  # blocks of the file
        pieces[FIRST + _DATA + number] = CONTENT[index * SECTOR : (index + 1) * SECTOR]
    pieces[FIRST + _DATA + 12] = RESOURCE
    pieces[FIRST + _BLOCKS] = block
    for sector, piece in pieces.items():
        content[sector * SECTOR : sector * SECTOR + len(piece)] = piece
    return bytes(content)


def wrapped(inside: bytes) -> bytes:
    """A volume of HFS+, whole sectors, in one of HFS."""
    count = len(inside) // SECTOR
    block = HfsMasterBlock(
        mark=b"BD",
        bitmap_block=3,
        block_count=count + 2,
        block_size=SECTOR,
        first_block=FIRST,
        name_length=4,
        name=b"Wrap",
        embedded_mark=b"H+",
        embedded_start=1,
        embedded_count=count,
    ).pack()
    start = bytes(2 * SECTOR) + block
    return start.ljust((FIRST + 1) * SECTOR, b"\0") + inside + bytes(3 * SECTOR)


def _pairs(*extents: tuple[int, int]) -> bytes:
    packed = b"".join(struct.pack(">HH", *extent) for extent in extents)
    return packed.ljust(layout.EXTENTS_BYTES, b"\0")


def _extents_record(number: int, first: int, *extents: tuple[int, int]) -> bytes:
    return layout.ExtentsRecord(
        fork=layout.DATA, file=number, first=first, extents=_pairs(*extents)
    ).pack()


def _catalog_record(parent: int, name: bytes, data: bytes) -> bytes:
    key = struct.pack(">BBIB", 6 + len(name), 0, parent, len(name)) + name
    return key + bytes(len(key) % 2) + data


def _folder(number: int, count: int) -> bytes:
    return layout.FolderRecord(
        kind=layout.FOLDER_RECORD,
        count=count,
        number=number,
        modified_s=TIMES[0],
        created_s=TIMES[1],
    ).pack()


def _thread(parent: int, name: bytes) -> bytes:
    return struct.pack(">BB8xIB31s", 3, 0, parent, len(name), name)


def _file(number: int, data: bytes = b"", resource: bytes = b"") -> bytes:
    return layout.FileRecord(
        kind=layout.FILE_RECORD,
        finder=FINDER,
        number=number,
        data_size=len(data),
        resource_size=len(resource),
        modified_s=TIMES[0],
        created_s=TIMES[1],
        data_extents=_pairs((_DATA, 1), (_DATA + 2, 1), (_DATA + 4, 2)) if data else bytes(12),
        resource_extents=_pairs((_DATA + 12, 2)) if resource else bytes(12),
    ).pack()


def _tree(records: list[bytes], blocks: int) -> bytes:
    """A header, and one leaf."""
    return (_header(1, 1, blocks) + _node(LEAF, records, 0)).ljust(blocks * SECTOR, b"\0")


def _tree_of_two(first: list[bytes], second: list[bytes], blocks: int) -> bytes:
    """A header, an index, and two leaves."""
    index = [_pointer(leaf[0], number) for leaf, number in ((first, 2), (second, 3))]
    nodes = [
        _header(1, 2, blocks),
        _node(INDEX, index, 0),
        _node(LEAF, first, 3),
        _node(LEAF, second, 0),
    ]
    return b"".join(nodes).ljust(blocks * SECTOR, b"\0")


def _pointer(record: bytes, number: int) -> bytes:
    """A record of an index: keys there are as long as they may be."""
    key = record[1 : 1 + record[0]].ljust(37, b"\0")
    return b"\x25" + key + struct.pack(">I", number)


def _header(root: int, first_leaf: int, count: int) -> bytes:
    head = NodeDescriptor(kind=1, record_count=3).pack()
    header = TreeHeader(root=root, first_leaf=first_leaf, node_size=SECTOR, node_count=count)
    return (head + header.pack()).ljust(SECTOR, b"\0")


def _node(kind: int, records: list[bytes], following: int) -> bytes:
    content = NodeDescriptor(next_node=following, kind=kind, record_count=len(records)).pack()
    offsets = []
    for record in records:
        offsets.append(len(content))
        content += record
    offsets.append(len(content))
    table = b"".join(struct.pack(">H", offset) for offset in reversed(offsets))
    return content.ljust(SECTOR - len(table), b"\0") + table


MFS_CONTENT: Final = b"".join(bytes([97 + number]) * 1024 for number in range(3))[:-24]
"""Of ``/file``, whose blocks are 2, 5 and 4."""

MFS_RESOURCE: Final = b"resource" * 200
"""Of its resource fork, whose blocks are 7 and 8."""

_MFS_BLOCKS: Final = 41
_MFS_FIRST: Final = 16
_DIRECTORY: Final = 4


def small_mfs() -> bytes:
    """With two files in two sectors of a directory, of blocks of 1024 bytes."""
    content = bytearray(SECTOR * (_MFS_FIRST + 2 * _MFS_BLOCKS + 2))
    block = MfsMasterBlock(
        mark=b"\xd2\xd7",
        file_count=3,
        directory_start=_DIRECTORY,
        directory_length=12,
        block_count=_MFS_BLOCKS,
        block_size=2 * SECTOR,
        first_block=_MFS_FIRST,
        free_blocks=_MFS_BLOCKS - 5,
        name_length=3,
        name=b"Old",
    ).pack()
    chains = {2: 5, 5: 4, 4: 1, 7: 8, 8: 1}
    packed = 0
    for number in range(2, 2 + _MFS_BLOCKS):
        packed = packed << 12 | chains.get(number, 0)
    bits = 12 * _MFS_BLOCKS
    block += (packed << -bits % 8).to_bytes(-(-bits // 8))
    files = (
        (_DIRECTORY, _mfs_file(7, b"file", MFS_CONTENT, MFS_RESOURCE) + _mfs_file(8, b"empty/:")),
        (_DIRECTORY + 1, _mfs_file(9, b"." * 2)),
    )
    for sector, piece in ((2, block), *files):
        content[sector * SECTOR : sector * SECTOR + len(piece)] = piece
    for data, numbers in ((MFS_CONTENT, (2, 5, 4)), (MFS_RESOURCE, (7, 8))):
        for index, number in enumerate(numbers):
            at = _MFS_FIRST * SECTOR + (number - 2) * 1024
            piece = data[index * 1024 : (index + 1) * 1024]
            content[at : at + len(piece)] = piece
    return bytes(content)


def _mfs_file(number: int, name: bytes, data: bytes = b"", resource: bytes = b"") -> bytes:
    entry = FileEntry(
        flags=0x80,
        finder=FINDER,
        number=number,
        data_first=2 if data else 0,
        data_size=len(data),
        resource_first=7 if resource else 0,
        resource_size=len(resource),
        modified_s=TIMES[0],
        created_s=TIMES[1],
        name_length=len(name),
    ).pack()
    return entry + name + bytes((len(entry) + len(name)) % 2)
