"""CHD headers, maps and hunks that lie: refused by name, in bounded memory."""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import random
import struct

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ReferenceRefusedError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.formats.chd.layer import decompress
from imprint.storage.memory import MemoryStorage
from imprint.testing import old_formats
from imprint.testing.format_faults import bounded_memory
from imprint.testing.old_chd import old_chd
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
        (12, "I", 6, UnsupportedFeatureError, "version 6"),
        (12, "I", 0, UnsupportedFeatureError, "version 0"),
        (12, "I", 4, CorruptImageError, "length at 0x8"),
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


OLD_DISK = DISK + bytes(range(256)) * 16


def patched_old(version: int, at: int, code: str, value: int) -> MemoryStorage:
    content = bytearray(old_chd(OLD_DISK, version))
    struct.pack_into(f">{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.chd")


@pytest.mark.parametrize(
    ("version", "place", "value", "error", "message"),
    [
        (1, (8, "I"), 80, CorruptImageError, "length at 0x8"),
        (1, (16, "I"), 1, UnsupportedFeatureError, "flags at 0x10"),
        (1, (20, "I"), 3, UnsupportedFeatureError, "codec at 0x14"),
        (1, (24, "I"), 0, CorruptImageError, "hunk_sectors at 0x18"),
        (1, (24, "I"), 0xFFFFFFFF, UnsupportedFeatureError, "hunk_sectors at 0x18"),
        (1, (28, "I"), 0xFFFFFFFF, UnsupportedFeatureError, "hunk_count at 0x1c"),
        (1, (32, "I"), 0xFFFFFFFF, CorruptImageError, "cylinders at 0x20"),
        (2, (76, "I"), 0, CorruptImageError, "size of a sector"),
        (3, (16, "I"), 1, CorruptImageError, "flags at 0x10"),
        (3, (20, "I"), 3, UnsupportedFeatureError, "codec at 0x14"),
        (3, (24, "I"), 1, CorruptImageError, "hunk_count at 0x18"),
        (3, (28, "Q"), (1 << 64) - 1, CorruptImageError, "disk_size at 0x1c"),
        (3, (36, "Q"), 1 << 40, CorruptImageError, "metadata"),
        (3, (76, "I"), 0, CorruptImageError, "hunk_size at 0x4c"),
        (4, (44, "I"), 0xFFFFFFFF, UnsupportedFeatureError, "hunk_size at 0x2c"),
        (4, (28, "Q"), 4096 << 22, CorruptImageError, "hunk_count at 0x18"),
        (4, (12, "I"), 3, CorruptImageError, "length at 0x8"),
        (4, (20, "I"), 0, CorruptImageError, "no compressed hunks"),
    ],
)
def test_an_old_header_that_lies_is_refused_by_field(
    version: int, place: tuple[int, str], value: int, error: type[FormatError], message: str
) -> None:
    """Fails if a field of versions 1 to 4 is believed, or the message does not lead to it."""
    with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
        CHD.open(patched_old(version, *place, value), OPENER)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("version", "at", "code", "value", "error"),
    [
        (1, 76 + 8 * 4, "Q", 1 << 44 | 1 << 43, TruncatedImageError),
        (1, 76 + 8 * 4, "Q", 0xFFFFF << 44, CorruptImageError),
        (3, 120 + 16 * 4, "Q", 1 << 60, TruncatedImageError),
        (3, 120 + 16 * 4 + 8, "I", 0, CorruptImageError),  # the CRC-32
        (3, 120 + 16 * 4 + 15, "B", 0, CorruptImageError),  # of no kind
        (3, 120 + 16 * 4 + 15, "B", 4, CorruptImageError),  # the same as a hunk far away
        (4, 108 + 16 * 4 + 15, "B", 6, CorruptImageError),
    ],
)
def test_an_old_map_that_lies_is_an_error_and_found(
    version: int, at: int, code: str, value: int, error: type[FormatError]
) -> None:
    """Fails if a hunk is read from elsewhere, or the check does not see what it can see."""
    storage = patched_old(version, at, code, value)
    image = CHD.open(storage, OPENER)
    assert image.read_at(0, len(DISK)) == DISK
    with pytest.raises(error):
        image.read_at(len(DISK), 4096)
    assert isinstance(CHD, Checkable)
    found = list(CHD.check(storage, OPENER, repair=False))
    assert len(found) == (0 if code == "I" else 1)  # a wrong checksum is for verify


def test_an_old_disk_is_read_in_every_version() -> None:
    """Fails if rows of maps, or hunks of eight bytes again and again, are misread."""
    for version in (1, 2, 3, 4):
        for compress in (False, True):
            content = old_chd(OLD_DISK, version, compress=compress, without_crc=(4,))
            with CHD.open(MemoryStorage(content), OPENER) as image:
                assert image.read_at(0, image.size) == OLD_DISK
                assert image.info().options["version"] == version


def test_a_hunk_of_a_parent_that_is_not_named_is_an_error() -> None:
    """Fails if it reads as zeros."""
    child = bytearray(old_chd(DISK, 3, parent=OLD_DISK))
    child[16:20] = bytes(4)  # no parent
    child[120 + 15] = 5
    with pytest.raises(CorruptImageError, match="hunk of a parent"):
        CHD.open(MemoryStorage(bytes(child)), OPENER)


def test_a_parent_with_another_digest_is_refused() -> None:
    """Fails if any image that somebody calls the parent is taken for it."""
    parent, other = old_chd(OLD_DISK, 4), old_chd(DISK, 4)
    child = MemoryStorage(old_chd(DISK * 2, 4, parent=OLD_DISK), name="child.chd")
    known = {"a.chd": MemoryStorage(other, name="a.chd"), "b.chd": MemoryStorage(b"no")}
    with pytest.raises(ReferenceRefusedError):
        CHD.open(child, DictOpener(files=known))
    known["c.chd"] = MemoryStorage(parent, name="c.chd")
    with CHD.open(child, DictOpener(files=known)) as image:
        assert image.read_at(0, image.size) == DISK * 2
    digest = hashlib.sha1(hashlib.sha1(OLD_DISK).digest()).hexdigest()
    wrong = DictOpener({digest: CHD.open(MemoryStorage(other), OPENER)})
    with pytest.raises(ReferenceRefusedError, match=f"digest {digest}"):
        CHD.open(child, wrong)


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
