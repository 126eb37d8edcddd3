"""Target: XFS. Real ones have 16 MiB at least, so the seeds are put together by hand.

One group of 128 blocks of 1 KiB::

     0  headers                4  tree of inodes       40  tree of a file's extents
     2  free, by place         7  in the free list     41  content
     3  free, by length        8  inodes               48  log, to 80; free from there
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import ImagingError
from imprint.core.runs import Runs
from imprint.core.units import KIB
from imprint.filesystems.xfs import FILE_SYSTEM, layout
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.file_places import dating, locating
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.layout import Structure

_BLOCK: Final = KIB
_BLOCKS: Final = 128
_SECTOR: Final = 512
_V5: Final = 5
_INODE: Final = 512
_UUID: Final = bytes(range(16))
_LOG_AT, _LOG_BLOCKS = 48, 32
_FREE: Final = ((5, 2), (80, 48))
_LSN: Final = 1 << 32

_SEALED: Final = (
    (0, _SECTOR, layout.SUPERBLOCK_CRC_AT),
    (_SECTOR, _SECTOR, layout.AGF_CRC_AT),
    (2 * _SECTOR, _SECTOR, layout.AGI_CRC_AT),
    (3 * _SECTOR, _SECTOR, layout.AGFL_CRC_AT),
    *((block * _BLOCK, _BLOCK, layout.TREE_CRC_AT) for block in (2, 3, 4)),
    *((8 * _BLOCK + index * _INODE, _INODE, layout.INODE_CRC_AT) for index in range(2)),
    (40 * _BLOCK, _BLOCK, layout.MAP_CRC_AT),
)


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target(
        "xfs",
        seeds=lambda: [_image(is_dirty=False), _image(is_dirty=True), _image(version=4)],
        steps=(read_map, walk_trees, locating(FILE_SYSTEM), dating(FILE_SYSTEM)),
        places=(
            Place(layout.Superblock),
            Place(layout.FreeSpaceHeader, _SECTOR),
            Place(layout.InodeHeader, 2 * _SECTOR),
            Place(layout.FreeListHeader, 3 * _SECTOR),
            *(Place(layout.TreeBlock, block * _BLOCK) for block in (2, 3, 4)),
            *(Place(layout.Inode, 8 * _BLOCK + index * _INODE) for index in range(2)),
            Place(layout.MapBlock, 40 * _BLOCK),
            Place(layout.RecordHeader, _LOG_AT * _BLOCK),
            Place(layout.Operation, _LOG_AT * _BLOCK + _SECTOR),
            Place(layout.BufferItem, b"\x3c\x12\x02\x00"),
        ),
        words=(b"AB3B", b"AB3C", b"BMA3", b"XAGF", b"\xfe\xed\xba\xbe", b"\x3c\x12", b"\x3a\x12"),
        seal=_seal,
    )


def read_map(content: bytes) -> None:
    """What it uses: inside of the volume."""
    found = FILE_SYSTEM.allocation(MemoryStorage(content))
    assert found.used.end <= len(content)


def walk_trees(content: bytes) -> None:
    """What is reached is used, where nothing is in doubt."""
    storage = MemoryStorage(content)
    reached = Runs.of(FILE_SYSTEM.reached(storage))
    assert reached.end <= len(content)


def _seal(content: bytearray) -> None:
    """Make all checksums right, that of the log's first record too."""
    is_sealed = content[101:102] == bytes([_V5])
    for start, length, at in _SEALED:
        if is_sealed and start + length <= len(content):
            _put_checksum(content, start, length, at)
    start = _LOG_AT * _BLOCK
    with contextlib.suppress(ImagingError):
        header = layout.RecordHeader.unpack(content[start : start + _SECTOR])
        payload = content[start + _SECTOR :][: min(header.length, 16 * KIB)]
        if header.crc:
            sealed = bytearray(header.replace(crc=0).pack())
            value = crc32c(payload, crc32c(sealed)).to_bytes(4, "little")
            content[start + layout.RECORD_CRC_AT : start + layout.RECORD_CRC_AT + 4] = value


def _put_checksum(content: bytearray, start: int, length: int, at: int) -> None:
    part = bytearray(content[start : start + length])
    part[at : at + 4] = bytes(4)
    content[start + at : start + at + 4] = crc32c(part).to_bytes(4, "little")


def _image(*, version: int = 5, is_dirty: bool = False) -> bytes:
    content = bytearray(_BLOCKS * _BLOCK)

    def put(at: int, item: Structure | bytes) -> None:
        data = item if isinstance(item, bytes) else item.pack()
        content[at : at + len(data)] = data

    put(0, _superblock(version))
    agf = _agf()
    put(_SECTOR, agf)
    put(
        2 * _SECTOR,
        layout.InodeHeader(
            magic=layout.AGI_MAGIC, version=1, length=_BLOCKS, root=4, levels=1, uuid=_UUID
        ),
    )
    listed = layout.FreeListHeader(magic=layout.AGFL_MAGIC, uuid=_UUID)
    put(3 * _SECTOR, listed.pack() + _words(7) if version == _V5 else _words(7))
    free = [_words(*run) for run in _FREE]
    chunk = _words(16, 0x3E, 0xFFFFFFFF, 0xFFFFFFFC)
    for block, magics, records in (
        (2, (b"ABTB", b"AB3B"), free),
        (3, (b"ABTC", b"AB3C"), free),
        (4, (b"IABT", b"IAB3"), [chunk]),
    ):
        put(block * _BLOCK, _tree_block(version, block, magics[version - 4], records))
    for index in range(2):
        put(8 * _BLOCK + index * _INODE, _inode(version, index))
    put(40 * _BLOCK, _map_block(version))
    put(_LOG_AT * _BLOCK, _log(agf if is_dirty else None))
    _seal(content)
    return bytes(content)


def _superblock(version: int) -> layout.Superblock:
    return layout.Superblock(
        magic=layout.SUPERBLOCK_MAGIC,
        block_size=_BLOCK,
        blocks=_BLOCKS,
        uuid=_UUID,
        log_start=_LOG_AT,
        root_inode=16,
        group_blocks=_BLOCKS,
        group_count=1,
        log_blocks=_LOG_BLOCKS,
        version=layout.V4_DIR_V2 | layout.V4_LOG_V2 | version,
        sector_size=_SECTOR,
        inode_size=_INODE,
        inodes_per_block=_BLOCK // _INODE,
        block_log=10,
        sector_log=9,
        inode_log=9,
        inodes_per_block_log=1,
        group_log=7,
        free_blocks=51,
    )


def _agf() -> layout.FreeSpaceHeader:
    return layout.FreeSpaceHeader(
        magic=layout.AGF_MAGIC,
        version=1,
        length=_BLOCKS,
        bno_root=2,
        cnt_root=3,
        bno_levels=1,
        cnt_levels=1,
        list_count=1,
        free_blocks=50,
        longest=48,
        uuid=_UUID,
    )


def _tree_block(version: int, block: int, magic: bytes, records: list[bytes]) -> bytes:
    header = layout.TreeBlock(
        magic=magic, count=len(records), place=block * 2, uuid=_UUID, lsn=_LSN
    ).pack()
    size = layout.TreeBlock.SIZE if version == _V5 else layout.TREE_HEADER_V4
    return header[:size] + b"".join(records)


def _inode(version: int, index: int) -> bytes:
    """The first has its extents inside, the second in a tree."""
    header = layout.Inode(
        magic=layout.INODE_MAGIC,
        mode=0x81A4,
        version=3 if version == _V5 else 2,
        data_format=2 + index,
        extents=1,
        number=16 + index,
        uuid=_UUID,
    ).pack()
    core = header if version == _V5 else header[: layout.INODE_CORE_V4]
    if index == 0:
        return core + _extent(41, 2)
    width = (_INODE - len(core) - 4) // 16
    root = (1).to_bytes(2, "big") + (1).to_bytes(2, "big")
    return core + root + bytes(8 * width) + (40).to_bytes(8, "big")


def _map_block(version: int) -> bytes:
    header = layout.MapBlock(
        magic=b"BMA3" if version == _V5 else b"BMAP",
        count=1,
        place=80,
        uuid=_UUID,
        owner=17,
    ).pack()
    size = layout.MapBlock.SIZE if version == _V5 else layout.MAP_HEADER_V4
    return header[:size] + _extent(43, 4)


def _extent(block: int, count: int) -> bytes:
    return (block << 21 | count).to_bytes(16, "big")


def _log(agf: layout.FreeSpaceHeader | None) -> bytes:
    """One record: that of an unmount, or a transaction that changes the header of free space."""
    if agf is None:
        operations = [(layout.OP_UNMOUNT, b"nU\0\0\0\0\0\0")]
    else:
        item = layout.BufferItem(
            kind=layout.ITEM_BUFFER, regions=2, flags=5 << 11, length=1, place=1, map_words=1
        )
        operations = [
            (layout.OP_START, b""),
            (0, b"NART" + bytes(12)),
            (0, item.pack() + b"\x01\0\0\0"),
            (0, agf.pack()[: layout.BUFFER_CHUNK]),
            (layout.OP_COMMIT, b""),
        ]
    payload = bytearray()
    for flags, region in operations:
        payload += layout.Operation(transaction=1, length=len(region), flags=flags).pack() + region
    payload += bytes(-len(payload) % _SECTOR)
    words = bytes(payload[:4])
    payload[:4] = _words(1)
    header = layout.RecordHeader(
        magic=layout.RECORD_MAGIC,
        cycle=1,
        version=2,
        length=len(payload),
        lsn=_LSN,
        tail_lsn=_LSN,
        crc=1,
        operations=len(operations),
        words=words + bytes(252),
        form=layout.LITTLE_ENDIAN_FORM,
        uuid=_UUID,
        size=32 * KIB,
    )
    return header.pack().ljust(_SECTOR, b"\0") + bytes(payload)


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)
