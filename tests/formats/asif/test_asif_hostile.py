"""ASIF headers, tables and bitmaps that lie: refused by name, in bounded memory."""

from __future__ import annotations

import struct

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.events import Severity
from imprint.core.formats import Checkable
from imprint.core.units import KIB, MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.asif_image import STABLE_UUID, UUID, asif
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

ASIF = formats.get("asif")
OPENER = DictOpener()
CHUNK = 32 * KIB
DISK = b"\x01" * CHUNK + bytes(CHUNK) + b"\x02" * 1024 + bytes(2048) + b"\x03" * CHUNK
CONTENT = asif(DISK)
TABLE = struct.unpack_from(">Q", CONTENT, 1024 + 8)[0] * CHUNK
BITMAP = TABLE + 8 * 2048


def patched(at: int, code: str, value: int) -> MemoryStorage:
    content = bytearray(CONTENT)
    struct.pack_into(f">{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.asif")


def problems(storage: MemoryStorage) -> list[str]:
    assert isinstance(ASIF, Checkable)
    found = ASIF.check(storage, OPENER, repair=False)
    return [f"{item.where}: {item.what}" for item in found if item.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0x00, "I", 0, CorruptImageError, "magic at 0x0"),
        (0x04, "I", 2, UnsupportedFeatureError, "version at 0x4"),
        (0x08, "I", 0, CorruptImageError, "header_size at 0x8"),
        (0x0C, "I", 1, UnsupportedFeatureError, "flags at 0xc"),
        (0x10, "Q", 0, CorruptImageError, "directory_0 at 0x10"),
        (0x10, "Q", (1 << 64) - 1, TruncatedImageError, "directory_0 at 0x10"),
        (0x18, "Q", 1 << 40, TruncatedImageError, "directory_1 at 0x18"),
        (0x30, "Q", (1 << 64) - 1, CorruptImageError, "sector_count at 0x30"),
        (0x38, "Q", (1 << 64) - 1, CorruptImageError, "sector_count_max at 0x38"),
        (0x38, "Q", 1 << 50, TruncatedImageError, "directory_0 at 0x10"),
        (0x40, "I", 0, CorruptImageError, "chunk_size at 0x40"),
        (0x40, "I", 513, CorruptImageError, "chunk_size at 0x40"),
        (0x40, "I", 512, CorruptImageError, "chunk_size at 0x40"),
        (0x40, "I", 0xFFFFFE00, UnsupportedFeatureError, "chunk_size at 0x40"),
        (0x44, "H", 0, UnsupportedFeatureError, "sector_size at 0x44"),
        (0x44, "H", 0xFFFF, UnsupportedFeatureError, "sector_size at 0x44"),
        (0x46, "H", 1, UnsupportedFeatureError, "segments at 0x46"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
        ASIF.open(patched(at, code, value), OPENER)
    assert type(caught.value) is error
    assert str(caught.value).startswith("disk.asif: ")


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (1024 + 8, 1 << 50, TruncatedImageError),  # a table behind the end
        (TABLE, 1 << 62 | 1 << 54, TruncatedImageError),  # a chunk behind the end
        (TABLE, 1 << 62, UnsupportedFeatureError),  # whole, and nowhere
        (TABLE, 3 << 62, UnsupportedFeatureError),
        (TABLE, 1, UnsupportedFeatureError),  # never written, and somewhere
        (TABLE, 2 << 62 | 1, UnsupportedFeatureError),
        (TABLE, 1 << 62 | 1 << 55 | 1, UnsupportedFeatureError),  # a reserved bit
    ],
)
def test_an_entry_that_lies_is_an_error_and_found(
    at: int, value: int, error: type[FormatError]
) -> None:
    """Fails if it reads as zeros or from elsewhere, or if the check does not see it."""
    storage = patched(at, "Q", value)
    assert problems(storage)
    with pytest.raises(error):
        ASIF.open(storage, OPENER).read_at(0, CHUNK)


@pytest.mark.parametrize(
    ("at", "code", "value", "error"),
    [
        (BITMAP, "Q", 0, CorruptImageError),
        (BITMAP, "Q", 1 << 40, TruncatedImageError),
    ],
)
def test_a_lost_bitmap_is_an_error(
    at: int, code: str, value: int, error: type[FormatError]
) -> None:
    """Fails if a chunk that was written in part is read whole, or as zeros."""
    storage = patched(at, code, value)
    assert problems(storage)
    image = ASIF.open(storage, OPENER)
    assert image.read_at(0, 2 * CHUNK) == DISK[: 2 * CHUNK]
    with pytest.raises(error):
        image.read_at(2 * CHUNK, 512)


def test_a_state_that_nobody_has_described_is_refused() -> None:
    """Fails if the second bit of a sector is ignored."""
    (bitmap,) = struct.unpack_from(">Q", CONTENT, BITMAP)
    image = ASIF.open(patched(bitmap * CHUNK + 2 * CHUNK // 512 // 4, "B", 0b1010), OPENER)
    with pytest.raises(UnsupportedFeatureError, match="states 0 and 1"):
        image.read_at(2 * CHUNK, 512)


def test_a_place_that_is_used_twice_is_found() -> None:
    """Fails if two chunks of the disk may share one of the file unnoticed."""
    assert problems(MemoryStorage(CONTENT)) == []
    (entry,) = struct.unpack_from(">Q", CONTENT, TABLE)
    (found,) = problems(patched(TABLE + 8, "Q", entry))
    assert found.startswith("chunk 1 of the disk: expected a place of its own")


def test_the_higher_sequence_number_counts() -> None:
    """Fails if the directory is chosen by its place."""
    with pytest.raises(FormatError):
        ASIF.open(patched(512, "Q", 8), OPENER).read_at(0, 512)
    assert ASIF.open(patched(512, "Q", 7 - 1), OPENER).read_at(0, len(DISK)) == DISK


def test_uuids_are_shown_and_what_is_not_understood_is_said() -> None:
    """Fails if metadata behind the disk's end are not found, or unknown ones pass in silence."""
    info = ASIF.open(MemoryStorage(CONTENT), OPENER).info()
    assert info.uuid == str(UUID)
    assert info.options["stable_uuid"] == STABLE_UUID
    assert info.notes == info.warnings == ()
    changed = CONTENT.replace(b"<key>user metadata</key>", b"<key>base image id</key>")
    (warning,) = ASIF.open(MemoryStorage(changed), OPENER).info().warnings
    assert "base image id" in warning
