"""Cloop headers, offsets and streams that lie: refused by name, in bounded memory."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing import old_formats
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

CLOOP = formats.get("cloop")
OPENER = DictOpener()
DISK = b"\x01" * 4096 + bytes(4096) + b"\x02" * 4096
OFFSETS = 136


def patched(at: int, code: str, value: int | bytes) -> MemoryStorage:
    content = bytearray(old_formats.cloop(DISK, block_size=4096))
    struct.pack_into(f">{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.cloop")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0, "24s", b"#!/bin/sh\n#V1.0 Format\n", UnsupportedFeatureError, "version 2.0"),
        (128, "I", 0, CorruptImageError, "block_size at 0x80"),
        (128, "I", 513, CorruptImageError, "block_size at 0x80"),
        (128, "I", 0xFFFFFE00, UnsupportedFeatureError, "block_size at 0x80"),
        (132, "I", 0xFFFFFFFF, UnsupportedFeatureError, "block_count at 0x84"),
        (132, "I", 1 << 23, TruncatedImageError, "table at 0x88"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int | bytes, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
        CLOOP.open(patched(at, code, value), OPENER)
    assert type(caught.value) is error
    assert str(caught.value).startswith("disk.cloop: ")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, CorruptImageError),  # before its own start
        ((1 << 64) - 1, CorruptImageError),  # longer than a stream can be
        (136 + 32 + 5000, TruncatedImageError),
        (136 + 32 + 4, CorruptImageError),  # in the middle of the stream
    ],
)
def test_offsets_that_lie_are_an_error(value: int, error: type[FormatError]) -> None:
    """Fails if a block is read from elsewhere, or memory is taken for it."""
    image = CLOOP.open(patched(OFFSETS + 8, "Q", value), OPENER)
    with bounded_memory(64 * MIB), pytest.raises(error, match="block 0"):
        image.read_at(0, 4096)
    assert image.read_at(8192, 4096) == DISK[8192:]


@pytest.mark.parametrize("block", [b"\x01" * 4095, b"\x01" * 4097, bytes(50 * MIB)])
def test_a_stream_of_another_length_is_an_error(block: bytes) -> None:
    """Fails if a block is cut off or filled up, or a bomb goes off."""
    packed = zlib.compress(block, 9)
    head = struct.pack(">IIQQ", 4096, 1, OFFSETS + 16, OFFSETS + 16 + len(packed))
    content = b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") + head + packed
    image = CLOOP.open(MemoryStorage(content), OPENER)
    with bounded_memory(64 * MIB), pytest.raises(CorruptImageError, match="block 0"):
        image.read_at(0, 4096)


def test_a_wrong_checksum_is_an_error() -> None:
    """Fails if bytes that the stream itself calls wrong are given out."""
    content = bytearray(old_formats.cloop(DISK, block_size=4096))
    content[-1] ^= 1  # the last byte of the last block's Adler-32
    image = CLOOP.open(MemoryStorage(bytes(content)), OPENER)
    assert image.read_at(0, 8192) == DISK[:8192]
    with pytest.raises(CorruptImageError, match="block 2"):
        image.read_at(8192, 4096)


NOISE = random.Random(1).randbytes(7 * 4096)


@pytest.mark.parametrize("header_last", [False, True])
def test_version_4_is_read_with_its_header_at_either_end(header_last: bool) -> None:
    """Fails if a way to compress, or a place of the offsets, is misread."""
    for disk in (NOISE, DISK, bytes(4096)):
        content = old_formats.cloop4(disk, block_size=4096, header_last=header_last)
        storage = MemoryStorage(content, name="disk.cloop")
        assert formats.detect(storage) == "cloop"
        with CLOOP.open(storage, OPENER) as image:
            assert image.read_at(0, image.size) == disk
            assert image.info().options["version"] == 4
        assert problems(storage) == []


@pytest.mark.parametrize("codec", [3, 4, 15])
def test_blocks_that_cannot_be_decompressed_are_refused_at_once(codec: int) -> None:
    """Fails if such an image is only refused half way through a copy."""
    content = bytearray(old_formats.cloop4(DISK, block_size=4096))
    content[OFFSETS] |= codec << 4
    with pytest.raises(UnsupportedFeatureError, match="expected blocks in zlib, xz or none"):
        CLOOP.open(MemoryStorage(bytes(content)), OPENER)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_damaged_block_of_version_4_is_an_error(number: int) -> None:
    """Fails if what a decoder objects to, or a short block, is given out or crashes."""
    content = bytearray(old_formats.cloop4(NOISE, block_size=4096))
    (start,) = struct.unpack_from(">Q", content, OFFSETS + 8 * number)
    start &= (1 << 60) - 1
    if number == 1:  # nothing in it could be wrong but its length
        struct.pack_into(">Q", content, OFFSETS + 8, 1 << 60 | start + 1)
    else:
        content[start + 20] ^= 0xFF
    image = CLOOP.open(MemoryStorage(bytes(content)), OPENER)
    with bounded_memory(64 * MIB), pytest.raises(CorruptImageError, match=f"block {number}"):
        image.read_at(4096 * number, 4096)


@pytest.mark.parametrize("count", [4, 8, 0x7FFFFF])
def test_a_table_in_front_of_the_last_header_has_to_fit(count: int) -> None:
    """Fails if offsets are read from before the file's start."""
    content = old_formats.cloop4(DISK, block_size=4096, header_last=True)[-136 - 32 :]
    storage = MemoryStorage(content[:-4] + struct.pack(">I", count), name="disk.cloop")
    with bounded_memory(64 * MIB), pytest.raises(CorruptImageError, match="block_count at 0xa4"):
        CLOOP.open(storage, OPENER)


def problems(storage: MemoryStorage) -> list[str]:
    assert isinstance(CLOOP, Checkable)
    return [found.where for found in CLOOP.check(storage, OPENER, repair=False)]


def test_check_finds_offsets_that_lie() -> None:
    """Fails if an order or an end that cannot be is not seen, or a sound image is not sound."""
    assert problems(MemoryStorage(old_formats.cloop(DISK, block_size=4096))) == []
    assert problems(patched(OFFSETS + 8, "Q", 0)) == ["block 0"]
    assert problems(patched(OFFSETS + 24, "Q", 1200)) == ["block 2"]
