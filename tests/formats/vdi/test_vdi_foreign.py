"""VDIs laid out by hand, as no tool here makes them, against the format contract."""

from __future__ import annotations

import random
import struct
import uuid
from typing import ClassVar

import pytest

from imprint.testing.format_suite import FormatContract

ABSENT = 0xFFFFFFFF


def lay_out(
    disk: bytes,
    *,
    block_size: int,
    extra: int = 0,
    map_offset: int = 512,
    plus: bool = True,
    spare: int = 0,
) -> bytes:
    """A dynamic VDI 1.1 with its blocks in random order and no room behind the map.

    ``extra`` is in front of each block; without ``plus`` the header is the shorter one; the
    map has ``spare`` entries too many, the first of which holds a block.
    """
    count = -(-len(disk) // block_size) + spare
    padded = disk.ljust((count - spare) * block_size, b"\0")
    padded = padded.ljust((count - spare + 1) * block_size, b"\xdd").ljust(
        count * block_size, b"\0"
    )
    blocks = [padded[at : at + block_size] for at in range(0, count * block_size, block_size)]
    used = [index for index, block in enumerate(blocks) if any(block)]
    random.Random(1).shuffle(used)
    slots = [ABSENT] * count
    for slot, index in enumerate(used):
        slots[index] = slot
    data_offset = -(-(map_offset + 4 * count) // 512) * 512
    image = bytearray(data_offset)
    image[0x40:0x154] = struct.pack(
        "<IIIII256s", 0xBEDA107F, 0x10001, 0x190 if plus else 0x180, 1, 0, b"by hand"
    )
    image[0x154:0x170] = struct.pack("<7I", map_offset, data_offset, 0, 0, 0, 512, 0)
    image[0x170:0x188] = struct.pack("<QIIII", len(disk), block_size, extra, count, len(used))
    image[0x188:0x198] = uuid.UUID(int=1).bytes_le
    image[0x198:0x1A8] = uuid.UUID(int=2).bytes_le
    image[map_offset : map_offset + 4 * count] = struct.pack(f"<{count}I", *slots)
    for index in used:
        image += b"\xee" * extra + blocks[index]
    return bytes(image)


class TestShuffledBlocks(FormatContract):
    """Blocks in any order, data directly behind the map: to grow, the map has to move."""

    format_name = "vdi"
    options: ClassVar = {"block_size": "2K"}
    disk_size = 127 * 2048 + 512  # the map fills its sector

    def build(self, disk: bytes) -> bytes:
        return lay_out(disk, block_size=2048)

    def test_a_prediction_is_an_upper_bound(self) -> None:
        pytest.skip("the images are not ours")


class TestBlockExtra(FormatContract):
    """Something in front of each block, a short header, and the map directly behind that."""

    format_name = "vdi"
    options: ClassVar = {"block_size": "16K"}
    disk_size = 13 * 16384 + 1536  # header and map fill their sector

    def build(self, disk: bytes) -> bytes:
        return lay_out(disk, block_size=16384, extra=512, map_offset=0x1C8, plus=False)

    def test_a_prediction_is_an_upper_bound(self) -> None:
        pytest.skip("the images are not ours")


class TestSpareEntries(FormatContract):
    """More map entries than the disk has blocks, with data: it must never become visible."""

    format_name = "vdi"
    options: ClassVar = {"block_size": "4K"}

    def build(self, disk: bytes) -> bytes:
        return lay_out(disk, block_size=4096, spare=7)

    def test_a_prediction_is_an_upper_bound(self) -> None:
        pytest.skip("the images are not ours")


class TestTinyBlocks(FormatContract):
    """The smallest block there is: the map is long, and evicts many blocks."""

    format_name = "vdi"
    options: ClassVar = {"block_size": "512"}
    disk_size = 128 * 512  # the map fills its sector

    def build(self, disk: bytes) -> bytes:
        return lay_out(disk, block_size=512)

    def test_a_prediction_is_an_upper_bound(self) -> None:
        pytest.skip("the images are not ours")
