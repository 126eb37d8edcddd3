"""Target: ext2, ext3 and ext4, with logs that are to be replayed. Seeds are in the corpus."""

from __future__ import annotations

import struct
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.filesystems.ext import FILE_SYSTEM, features, layout
from imprint.filesystems.ext.checksums import checksum
from imprint.filesystems.ext.tree import ExtTree
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.file_listings import listing
from imprint.testing.fuzzing.file_places import dating, locating
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES: Final = 1024
_DESCRIPTORS_AT: Final = 2048
_REACHED_MAX: Final = 20_000
_LOG_MAGIC: Final = layout.JOURNAL_MAGIC.to_bytes(4, "big")
_EXTENT_MAGIC: Final = layout.EXTENT_MAGIC.to_bytes(2, "little")


def targets() -> Iterator[Target]:
    """The only one."""
    yield Target(
        "ext",
        lambda: [bytes(4 * _BLOCK_BYTES)],
        (
            map_ext,
            walk_ext,
            locating(FILE_SYSTEM),
            dating(FILE_SYSTEM),
            listing("ext4", MemoryStorage, reader=ExtTree),
        ),
        places=(
            Place(layout.Superblock, layout.SUPERBLOCK_OFFSET),
            Place(layout.GroupDescriptor, _DESCRIPTORS_AT),
            Place(layout.JournalSuperblock, _LOG_MAGIC + b"\0\0\0\4"),
            Place(layout.JournalHeader, _LOG_MAGIC),
            Place(layout.Tag, _LOG_MAGIC + b"\0\0\0\1", -layout.JournalHeader.SIZE),
            Place(layout.ExtentHeader, _EXTENT_MAGIC),
            Place(layout.Inode, _EXTENT_MAGIC, layout.Inode.FIELDS["block"].at),
            Place(layout.FastTag, b"\x09\0\x08\0"),
        ),
        seal=seal,
    )


def map_ext(content: bytes) -> None:
    """What it uses lies inside of it."""
    allocation = FILE_SYSTEM.allocation(MemoryStorage(content, name="volume"))
    assert allocation.used.end <= len(content)
    assert allocation.unit.bit_count() == 1


def walk_ext(content: bytes) -> None:
    """So does what can be reached, in whatever order."""
    runs = FILE_SYSTEM.reached(MemoryStorage(content, name="volume"))
    deque(islice(runs, _REACHED_MAX), maxlen=0)


def seal(content: bytearray) -> None:
    """Make the checksums of the superblock, of descriptors, bitmaps and of the log right."""
    block = layout.Superblock.unpack(content[layout.SUPERBLOCK_OFFSET :].ljust(1024, b"\0"))
    if not block.ro_compat & features.METADATA_CSUM or len(content) < 2 * _DESCRIPTORS_AT:
        return
    seed = checksum(block.uuid)
    size = 64 if block.incompat & features.BITS_64 else 32
    for group in range(_BLOCK_BYTES // size):
        at = _DESCRIPTORS_AT + group * size
        place = int.from_bytes(content[at : at + 4], "little") * _BLOCK_BYTES
        bits = content[place : place + min(block.blocks_per_group // 8, _BLOCK_BYTES)]
        struct.pack_into("<H", content, at + 0x18, checksum(bits, seed) & 0xFFFF)
        if size == layout.GroupDescriptor.SIZE:
            struct.pack_into("<H", content, at + 0x38, checksum(bits, seed) >> 16)
        struct.pack_into("<H", content, at + 0x1E, 0)
        crc = checksum(struct.pack("<I", group) + content[at : at + size], seed) & 0xFFFF
        struct.pack_into("<H", content, at + 0x1E, crc)
    at = layout.SUPERBLOCK_OFFSET
    struct.pack_into("<I", content, at + 0x3FC, checksum(content[at : at + 0x3FC]))
    _seal_log(content)


def _seal_log(content: bytearray) -> None:
    seed = 0
    at = content.find(_LOG_MAGIC)
    while 0 <= at <= len(content) - _BLOCK_BYTES:
        kind = int.from_bytes(content[at + 4 : at + 8], "big")
        if kind == layout.SUPERBLOCK_V2:
            seed = checksum(content[at + 0x30 : at + 0x40])
            place = 0xFC
        else:
            place = 16 if kind == layout.COMMIT_BLOCK else _BLOCK_BYTES - 4
        struct.pack_into(">I", content, at + place, 0)
        block = content[at : at + _BLOCK_BYTES]
        crc = checksum(block) if kind == layout.SUPERBLOCK_V2 else checksum(block, seed)
        struct.pack_into(">I", content, at + place, crc)
        at = content.find(_LOG_MAGIC, at + 4)
