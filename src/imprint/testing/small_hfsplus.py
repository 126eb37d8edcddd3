"""An HFS+ volume of a few blocks, made by hand: Linux has nothing at hand that makes one.

Source: Apple Technical Note TN1150 "HFS Plus Volume Format".
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.filesystems.hfs_common import LEAF, UNMOUNTED, NodeDescriptor, TreeHeader
from imprint.filesystems.hfsplus import layout

_BLOCK: Final = 512
_BLOCKS: Final = 128
_JOURNAL_INFO, _BITMAP, _EXTENTS, _CATALOG, _ATTRIBUTES = 8, 9, 10, 12, 14
_FILE: Final = 16


def small_hfsplus() -> bytes:
    """With a journal that is empty, a file of nine extents, and attributes in a fork."""
    content = bytearray(_BLOCK * _BLOCKS)
    used = 40
    forks = (
        _fork((_BITMAP, 1)),
        *(_fork((start, 2)) for start in (_EXTENTS, _CATALOG, _ATTRIBUTES)),
        bytes(layout.FORK_BYTES),
    )
    header = layout.VolumeHeader(
        signature=b"H+",
        version=4,
        attributes=UNMOUNTED | layout.ATTRIBUTE_JOURNALED,
        journal_info_block=_JOURNAL_INFO,
        block_size=_BLOCK,
        total_blocks=_BLOCKS,
        free_blocks=_BLOCKS - used,
        allocation_fork=forks[0],
        extents_fork=forks[1],
        catalog_fork=forks[2],
        attributes_fork=forks[3],
        startup_fork=forks[4],
    ).pack()
    extents = tuple((start, 1) for start in range(20, 36, 2))
    key = struct.pack(">HBBIII", 14, 0, 0, 1, 16, 0)
    data = bytes(88) + _fork(*extents) + bytes(layout.FORK_BYTES)
    nodes = {
        _EXTENTS: _tree(struct.pack(">HBBII", 10, 0, 0, _FILE, 8) + _pairs((36, 4))),
        _CATALOG: _tree(struct.pack(">HIH", 6, 2, 0) + b"\0\2" + data[2:]),
        _ATTRIBUTES: _tree(key + struct.pack(">II", 0x20, 0) + _fork((38, 2))),
    }
    info = layout.JournalInfo(flags=1, offset=16 * _BLOCK, size=2 * _BLOCK)
    journal = struct.pack(">IIQQ", 0x4A4E4C78, 0x12345678, _BLOCK, _BLOCK)
    bitmap = (((1 << used) - 1) << (_BLOCKS - used)).to_bytes(_BLOCKS // 8)
    pieces = {
        2: header,
        _JOURNAL_INFO: info.pack(),
        _BITMAP: bitmap,
        16: journal,
        _BLOCKS - 2: header,
        **nodes,
    }
    for block, piece in pieces.items():
        content[block * _BLOCK : block * _BLOCK + len(piece)] = piece
    return bytes(content)


def _pairs(*extents: tuple[int, int]) -> bytes:
    packed = b"".join(struct.pack(">II", *extent) for extent in extents)
    return packed.ljust(layout.EXTENTS_BYTES, b"\0")


def _fork(*extents: tuple[int, int]) -> bytes:
    count = sum(extent[1] for extent in extents)
    return struct.pack(">QII", count * _BLOCK, 0, count) + _pairs(*extents)


def _tree(record: bytes) -> bytes:
    """A header node, and a leaf with one record."""
    head = NodeDescriptor(kind=1, record_count=3).pack()
    header = TreeHeader(first_leaf=1, node_size=_BLOCK, node_count=2).pack()
    leaf = NodeDescriptor(kind=LEAF, record_count=1).pack() + record
    offsets = struct.pack(">HH", len(leaf), NodeDescriptor.SIZE)
    return (head + header).ljust(_BLOCK, b"\0") + leaf.ljust(_BLOCK - 4, b"\0") + offsets
