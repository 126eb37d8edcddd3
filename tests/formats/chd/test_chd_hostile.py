"""CHD headers, maps and hunks that lie: refused by name, in bounded memory."""

from __future__ import annotations

import binascii
import contextlib
import random
import struct

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.units import MIB
from imprint.formats.chd.layer import decompress
from imprint.storage.memory import MemoryStorage
from imprint.testing import old_formats
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

CHD = formats.get("chd")
OPENER = DictOpener()
DISK = b"\x01" * 4096 + bytes(4096) + b"\x02" * 4096 + b"\x01" * 4096


def patched(at: int, code: str, value: int | bytes, *, compress: bool = True) -> MemoryStorage:
    content = bytearray(old_formats.chd(DISK, compress=compress))
    struct.pack_into(f">{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.chd")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0, "I", 0, CorruptImageError, "tag at 0x0"),
        (8, "I", 120, CorruptImageError, "length at 0x8"),
        (12, "I", 4, UnsupportedFeatureError, "version 4"),
        (16, "4s", b"cdzl", UnsupportedFeatureError, "'cdzl'"),
        (32, "Q", (1 << 64) - 1, CorruptImageError, "disk_size at 0x20"),
        (32, "Q", 1 << 60, UnsupportedFeatureError, "disk_size at 0x20"),
        (32, "Q", 4096 << 23, CorruptImageError, "map"),
        (40, "Q", (1 << 64) - 1, TruncatedImageError, "MapHeader"),
        (40, "Q", 124, CorruptImageError, "MapHeader"),
        (48, "Q", 1 << 40, CorruptImageError, "metadata"),
        (56, "I", 0, CorruptImageError, "hunk_size at 0x38"),
        (56, "I", 0xFFFFFFFF, UnsupportedFeatureError, "hunk_size at 0x38"),
        (60, "I", 0, CorruptImageError, "unit_size at 0x3c"),
        (104, "B", 1, UnsupportedFeatureError, "parent_sha1 at 0x68"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int | bytes, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    with bounded_memory(200 * MIB), pytest.raises(FormatError, match=message) as caught:
        CHD.open(patched(at, code, value), OPENER)
    assert type(caught.value) is error
    assert str(caught.value).startswith("disk.chd: ")


def test_a_changed_map_is_found_by_its_checksum() -> None:
    """Fails if the map's CRC is not compared."""
    content = bytearray(old_formats.chd(DISK, compress=True))
    content[-2] ^= 1
    with pytest.raises(CorruptImageError, match="map: expected the CRC-16"):
        CHD.open(MemoryStorage(bytes(content)), OPENER)


def test_a_changed_hunk_is_found_by_its_checksum() -> None:
    """Fails if a hunk's CRC is not compared."""
    content = bytearray(old_formats.chd(DISK, compress=True))
    content[124 + 3] ^= 0x10
    image = CHD.open(MemoryStorage(bytes(content)), OPENER)
    with pytest.raises(CorruptImageError, match="hunk 0"):
        image.read_at(0, 4096)
    with pytest.raises(CorruptImageError, match="hunk 0"):
        image.read_at(3 * 4096, 4096)  # the same as the first
    assert image.read_at(4096, 8192) == DISK[4096:12288]


@pytest.mark.parametrize("codec", [b"lzma", b"zstd", b"huff", b"flac"])
def test_what_another_codec_wrote_is_an_error(codec: bytes) -> None:
    """Fails if a decoder that is fed with garbage gives anything, or another exception."""
    image = CHD.open(patched(16, "4s", codec), OPENER)
    for start in range(0, 3 * 4096, 4096):
        with bounded_memory(64 * MIB), pytest.raises(CorruptImageError, match="hunk"):
            image.read_at(start, 4096)


@pytest.mark.parametrize("codec", [b"zlib", b"lzma", b"zstd", b"huff", b"flac"])
def test_noise_is_a_hunk_or_an_error_in_every_codec(codec: bytes) -> None:
    """Fails if any bytes make a decoder crash, hang or eat memory."""
    randomness = random.Random(codec)
    for _ in range(150):
        packed = randomness.choice((b"", b"L\xff\xf8\xc9\x18\x00", b"B\xff\xf8"))
        packed += randomness.randbytes(randomness.choice((1, 20, 500)))
        # Some codecs take anything for data; the image's CRC then tells.
        with bounded_memory(64 * MIB), contextlib.suppress(CorruptImageError):
            assert len(decompress(codec, packed, 4096)) == 4096


def test_hunks_that_refer_to_each_other_are_an_error() -> None:
    """Fails if a loop of references is followed without end."""
    count = 8
    kinds = [5] * count  # each is the same as the next one, the last as the first
    fields = [(4, 4)] * 16 + [(kind, 4) for kind in kinds]
    fields += [((index + 1) % count, 16) for index in range(count)]
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    bits = int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    rows = b"".join(
        b"\x05\0\0\0" + ((index + 1) % count).to_bytes(6, "big") + bytes(2)
        for index in range(count)
    )
    content = bytearray(old_formats.chd(b"", compress=True)[:124])
    struct.pack_into(">Q", content, 32, count * 4096)
    crc = binascii.crc_hqx(rows, 0xFFFF)
    content += struct.pack(">I6xHBBBx", len(bits), crc, 24, 16, 0) + bits
    image = CHD.open(MemoryStorage(bytes(content)), OPENER)
    with pytest.raises(CorruptImageError, match="expected a hunk that is stored"):
        image.read_at(0, 4096)


def test_metadata_that_form_a_loop_are_an_error() -> None:
    """Fails if the list is followed without end."""
    content = bytearray(old_formats.chd(DISK, compress=False))
    struct.pack_into(">Q", content, 48, len(content))
    content += struct.pack(">4sIQ", b"TEXT", 0, len(content))
    with pytest.raises(CorruptImageError, match="metadata"):
        CHD.open(MemoryStorage(bytes(content)), OPENER)


@pytest.mark.parametrize("tag", [b"CHT2", b"CHGD", b"AVAV"])
def test_what_is_no_hard_disk_is_refused(tag: bytes) -> None:
    """Fails if the sectors and subchannels of a CD pass for a disk."""
    content = bytearray(old_formats.chd(DISK, compress=False))
    struct.pack_into(">Q", content, 48, len(content))
    content += struct.pack(">4sIQ", tag, 0, 0)
    with pytest.raises(UnsupportedFeatureError, match="hard disk"):
        CHD.open(MemoryStorage(bytes(content)), OPENER)


def test_a_plain_hunk_behind_the_end_is_an_error() -> None:
    """Fails if what is lost reads as zeros."""
    image = CHD.open(patched(124, "I", 1000, compress=False), OPENER)
    with pytest.raises(TruncatedImageError, match="hunk 0"):
        image.read_at(0, 4096)
