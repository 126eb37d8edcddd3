"""An F2FS of a few blocks, made by hand: what ``mkfs.f2fs`` makes is 40 MiB at least.

Source: Linux ``include/linux/f2fs_fs.h``.
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK
from imprint.filesystems.f2fs.state import f2fs_crc

_SEGMENT: Final = 512
_FIRST_PACK, _SECOND_PACK, _SIT, NAT, MAIN = 512, 1024, 1536, 2560, 4096
_PACK_BLOCKS, _COMPACT_PACK_BLOCKS = 8, 3
_MAIN_SEGMENTS: Final = 8
_INODE, _DIRECT, _DATA = MAIN, MAIN + 1, MAIN + 2
_CRC_AT: Final = BLOCK - 4

PLACES: Final = (
    0,
    *range(_FIRST_PACK, _FIRST_PACK + _PACK_BLOCKS),
    *range(_SECOND_PACK, _SECOND_PACK + _COMPACT_PACK_BLOCKS),
    _SIT,
    _SIT + _SEGMENT,
    NAT,
    NAT + _SEGMENT,
    _INODE,
    _DIRECT,
)
"""Numbers of the blocks that are given; all others are zeros."""


def small_f2fs() -> bytes:
    """The blocks of :data:`PLACES`: a root directory with a block of addresses, and data.

    The older checkpoint is a compact one; the table of segments counts by its second copy.
    """
    blocks = dict.fromkeys(PLACES, b"")
    blocks[0] = bytes(layout.SUPER_OFFSETS[0]) + _superblock()
    summary = bytes(layout.SUMMARIES_BYTES)
    sit_journal = struct.pack("<HI", 1, 1) + _segment(1)
    nat_journal = struct.pack("<HIBII", 1, 4, 0, 3, _DIRECT)
    for number in (0, _PACK_BLOCKS - 1):
        blocks[_FIRST_PACK + number] = _checkpoint(3, layout.CP_UMOUNT, _PACK_BLOCKS)
    blocks[_FIRST_PACK + 1] = summary + nat_journal
    blocks[_FIRST_PACK + 3] = summary + sit_journal
    for number in (0, _COMPACT_PACK_BLOCKS - 1):
        flags = layout.CP_COMPACT_SUMMARIES
        blocks[_SECOND_PACK + number] = _checkpoint(2, flags, _COMPACT_PACK_BLOCKS)
    blocks[_SECOND_PACK + 1] = nat_journal.ljust(layout.JOURNAL_BYTES, b"\0") + sit_journal
    blocks[_SIT] = blocks[_SIT + _SEGMENT] = _segment(10)
    blocks[NAT] = bytes(3 * layout.NAT_ENTRY) + struct.pack("<BII", 0, 3, _INODE)
    blocks[_INODE] = node(3, 0, bytes(360) + struct.pack("<I", _DATA))
    blocks[_DIRECT] = node(4, 1, struct.pack("<4I", *range(_DATA + 1, _DATA + 5)))
    return b"".join(block.ljust(BLOCK, b"\0") for block in blocks.values())


def seal_f2fs(content: bytearray) -> None:
    """Make the checksums of all checkpoints right."""
    second = PLACES.index(_SECOND_PACK)
    for index in (1, _PACK_BLOCKS, second, second + _COMPACT_PACK_BLOCKS - 1):
        at = index * BLOCK
        block = content[at : at + BLOCK]
        place = int.from_bytes(block[164:168], "little")
        if len(block) == BLOCK and layout.Checkpoint.SIZE <= place <= _CRC_AT:
            crc = f2fs_crc(block[:place])
            crc = f2fs_crc(block[place + 4 :], crc) if place < _CRC_AT else crc
            content[at + place : at + place + 4] = crc.to_bytes(4, "little")


def _superblock() -> bytes:
    return layout.Superblock(
        magic=layout.MAGIC,
        log_block_size=12,
        log_segment_blocks=9,
        block_count=MAIN + _MAIN_SEGMENTS * _SEGMENT,
        segment_count=7 + _MAIN_SEGMENTS,
        sit_segments=2,
        nat_segments=2,
        main_segments=_MAIN_SEGMENTS,
        checkpoint_block=_FIRST_PACK,
        sit_block=_SIT,
        nat_block=NAT,
        summary_block=NAT + 2 * _SEGMENT,
        main_block=MAIN,
        root_inode=3,
    ).pack()


def _checkpoint(version: int, flags: int, blocks: int) -> bytes:
    head = layout.Checkpoint(
        version=version,
        valid_blocks=11,
        node_segments=struct.pack("<8I", *range(8)),
        node_offsets=bytes(16),
        flags=flags,
        total_blocks=blocks,
        summaries_at=1,
        sit_bitmap_bytes=_SEGMENT // 8,
        nat_bitmap_bytes=_SEGMENT // 8,
        checksum_offset=_CRC_AT,
    ).pack()
    content = (head + b"\x80").ljust(_CRC_AT, b"\0")
    return content + f2fs_crc(content).to_bytes(4, "little")


def _segment(valid: int) -> bytes:
    """An entry of the table of segments: the first blocks are valid."""
    bits = ((1 << valid) - 1) << (512 - valid)
    return struct.pack("<H", valid) + bits.to_bytes(64) + bytes(8)


def node(nid: int, offset: int, content: bytes, *, ino: int = 3) -> bytes:
    """A node: its content, and what says whose it is, and which one of them."""
    footer = layout.NodeFooter(nid=nid, ino=ino, flag=offset << 3, version=2).pack()
    return content.ljust(BLOCK - layout.NodeFooter.SIZE, b"\0") + footer
