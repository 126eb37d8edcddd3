"""Snappy and LZ4 blocks, against blocks worked out by hand from the formats' descriptions."""

from __future__ import annotations

import random

import pytest

from imprint.codecs import blocks
from imprint.core.errors import CorruptImageError

# Length 20 as a varint; a literal of 4 ("abcd": tag (4-1)<<2); then a copy of 16 bytes from 4
# bytes ago with a 2-byte offset: tag (16-1)<<2 | 2. Source: Snappy format description.
SNAPPY = bytes([20, 0x0C]) + b"abcd" + bytes([0x3E, 4, 0])
# Token: 4 literals, match of 4 + 7; offset 4; then a last sequence of 5 literals.
# Source: LZ4 Block Format.
LZ4 = bytes([0x47]) + b"abcd" + bytes([4, 0, 0x50]) + b"vwxyz"


def test_blocks_of_the_descriptions_are_read() -> None:
    """Fails if a frame, or a size in front, is expected."""
    buffer = bytearray(20)
    assert blocks.decompress_snappy(SNAPPY, memoryview(buffer)) == 20
    assert buffer == b"abcd" * 5
    buffer = bytearray(20)
    assert blocks.decompress_lz4(LZ4, memoryview(buffer)) == 20
    assert buffer == b"abcdabcdabcdabc" + b"vwxyz"


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000])
def test_what_is_packed_can_be_unpacked(size: int) -> None:
    """Fails if a block is not what its own reader wants, or the room behind it is touched."""
    data = (random.Random(1).randbytes(size // 2) + bytes(size))[:size]
    for pack, unpack in (
        (blocks.compress_snappy, blocks.decompress_snappy),
        (blocks.compress_lz4, blocks.decompress_lz4),
    ):
        buffer = bytearray(b"\xee" * (size + 100))
        assert unpack(pack(memoryview(data)), memoryview(buffer)) == size
        assert buffer[:size] == data


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\xff\xff\xff\xff\x0f" + SNAPPY[1:],
        SNAPPY[:-1],
        b"\xff" * 40,
        bytes([40]) + SNAPPY[1:],
    ],
)
def test_blocks_that_lie_about_their_size_are_refused(block: bytes) -> None:
    """Fails if a block makes more than its buffer holds, or ends in another exception."""
    buffer = memoryview(bytearray(20))
    with pytest.raises(CorruptImageError):
        blocks.decompress_snappy(block, buffer)


@pytest.mark.parametrize("block", [LZ4[:-1], b"\xff" * 40, LZ4 + LZ4, bytes([0x07, 9, 0])])
def test_damaged_lz4_is_refused(block: bytes) -> None:
    """Fails if a match reaches before the start, or bytes go behind the buffer."""
    buffer = memoryview(bytearray(20))
    with pytest.raises(CorruptImageError):
        blocks.decompress_lz4(block, buffer)
