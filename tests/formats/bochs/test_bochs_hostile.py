"""Bochs headers and catalogs that lie: refused by name, before anything is allocated."""

from __future__ import annotations

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
from imprint.storage.memory import MemoryStorage
from imprint.testing import old_formats
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

BOCHS = formats.get("bochs")
OPENER = DictOpener()
DISK = b"\x01" * 4096 + bytes(4096) + b"\x02" * 4096


def patched(at: int, code: str, value: int | bytes) -> MemoryStorage:
    content = bytearray(old_formats.bochs(DISK))
    struct.pack_into(f"<{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.bochs")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0x00, "I", 0, CorruptImageError, "magic at 0x0"),
        (0x20, "16s", b"Sparse", UnsupportedFeatureError, "kind at 0x20"),
        (0x30, "16s", b"Sparse", UnsupportedFeatureError, "subtype at 0x30"),
        (0x40, "I", 0x30000, UnsupportedFeatureError, "version at 0x40"),
        (0x44, "I", 0, CorruptImageError, "header_size at 0x44"),
        (0x44, "I", 0xFFFFFFFF, TruncatedImageError, "table at"),
        (0x48, "I", 2, CorruptImageError, "catalog_entries at 0x48"),
        (0x48, "I", 0xFFFFFFFF, UnsupportedFeatureError, "catalog_entries at 0x48"),
        (0x48, "I", 1 << 20, TruncatedImageError, "table at"),
        (0x4C, "I", 0, CorruptImageError, "bitmap_size at 0x4c"),
        (0x4C, "I", 0xFFFFFFFF, UnsupportedFeatureError, "bitmap_size at 0x4c"),
        (0x50, "I", 0, CorruptImageError, "extent_size at 0x50"),
        (0x50, "I", 513, CorruptImageError, "extent_size at 0x50"),
        (0x50, "I", 16 * MIB, UnsupportedFeatureError, "extent_size at 0x50"),
        (0x58, "Q", (1 << 64) - 1, CorruptImageError, "catalog_entries at 0x48"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int | bytes, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
        BOCHS.open(patched(at, code, value), OPENER)
    assert type(caught.value) is error
    assert str(caught.value).startswith("disk.bochs: ")


@pytest.mark.parametrize("value", [2, 1000, 0xFFFFFFFE])
def test_an_extent_behind_the_end_is_an_error(value: int) -> None:
    """Fails if what is lost reads as zeros."""
    image = BOCHS.open(patched(512, "I", value), OPENER)
    with pytest.raises(TruncatedImageError, match=f"extent {value}"):
        image.read_at(0, 4096)
    assert image.read_at(4096, 8192) == DISK[4096:]


def problems(storage: MemoryStorage) -> list[str]:
    assert isinstance(BOCHS, Checkable)
    return [found.where for found in BOCHS.check(storage, OPENER, repair=False)]


def test_check_finds_extents_that_lie() -> None:
    """Fails if a place outside the file, or one of two extents, is not seen."""
    assert problems(MemoryStorage(old_formats.bochs(DISK))) == []
    assert problems(patched(512, "I", 2)) == ["catalog entry 0"]
    assert problems(patched(512 + 4, "I", 0)) == ["catalog entry 2"]


@pytest.mark.parametrize(
    ("subtype", "name"), [(b"Undoable", "disk.img.redolog"), (b"Volatile", "disk.img.Ab3dEf")]
)
def test_the_image_below_is_known_by_the_name(subtype: bytes, name: str) -> None:
    """Fails if anything but the opener is asked for it, or it is not looked for."""
    content = old_formats.bochs(DISK, subtype=subtype)
    below = MemoryStorage(b"\x07" * len(DISK), name="disk.img")
    with BOCHS.open(
        MemoryStorage(content, name=name), DictOpener(files={"disk.img": below})
    ) as image:
        assert image.read_at(0, len(DISK)) == DISK[:4096] + b"\x07" * 4096 + DISK[8192:]
        assert image.info().parent == "disk.img"
    for wrong in ("redolog", "other.redolog", ""):
        with pytest.raises(ReferenceRefusedError):
            BOCHS.open(MemoryStorage(content, name=wrong), DictOpener(files={"disk.img": below}))
