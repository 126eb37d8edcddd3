"""QED headers and tables that lie: each is refused by name, before anything is allocated."""

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
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing import old_formats
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

QED = formats.get("qed")
OPENER = DictOpener()
DISK = b"\x01" * 4096 + bytes(4096) + b"\x02" * 4096


def patched(at: int, code: str, value: int) -> MemoryStorage:
    content = bytearray(old_formats.qed(DISK))
    struct.pack_into(f"<{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.qed")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0x00, "I", 0x00444552, CorruptImageError, "magic at 0x0"),
        (0x04, "I", 0, CorruptImageError, "cluster_size at 0x4"),
        (0x04, "I", 2048, CorruptImageError, "cluster_size at 0x4"),
        (0x04, "I", 6000, CorruptImageError, "cluster_size at 0x4"),
        (0x04, "I", 1 << 27, CorruptImageError, "cluster_size at 0x4"),
        (0x08, "I", 0, CorruptImageError, "table_size at 0x8"),
        (0x08, "I", 3, CorruptImageError, "table_size at 0x8"),
        (0x08, "I", 32, CorruptImageError, "table_size at 0x8"),
        (0x08, "I", 16, TruncatedImageError, "l1_table_offset at 0x28"),
        (0x0C, "I", 0, CorruptImageError, "header_size at 0xc"),
        (0x10, "Q", 8, UnsupportedFeatureError, "features at 0x10"),
        (0x10, "Q", 1 << 63, UnsupportedFeatureError, "features at 0x10"),
        (0x10, "Q", 1, CorruptImageError, "backing_size at 0x3c"),
        (0x28, "Q", 0, CorruptImageError, "l1_table_offset at 0x28"),
        (0x28, "Q", 4097, CorruptImageError, "l1_table_offset at 0x28"),
        (0x28, "Q", 1 << 62, TruncatedImageError, "l1_table_offset at 0x28"),
        (0x30, "Q", 511, CorruptImageError, "disk_size at 0x30"),
        (0x30, "Q", 1 << 62, CorruptImageError, "disk_size at 0x30"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
        QED.open(patched(at, code, value), OPENER)
    assert type(caught.value) is error
    assert str(caught.value).startswith("disk.qed: ")


@pytest.mark.parametrize("at", [4096, 8192])
@pytest.mark.parametrize(
    ("value", "error"),
    [(4097, CorruptImageError), (1 << 40, TruncatedImageError), (1 << 63, TruncatedImageError)],
)
def test_an_entry_that_lies_is_an_error(at: int, value: int, error: type[FormatError]) -> None:
    """Fails if a table or cluster that cannot be is read as zeros, or from elsewhere."""
    image = QED.open(patched(at, "Q", value), OPENER)
    with pytest.raises(error):
        image.read_at(0, 4096)


def test_features_that_do_no_harm_are_ignored() -> None:
    """Fails if an unknown compatible or autoclear bit forbids to read."""
    for at in (0x18, 0x20):
        assert QED.open(patched(at, "Q", 1 << 40), OPENER).read_at(0, 12288) == DISK


def test_a_backing_file_is_only_opened_through_the_gate() -> None:
    """Fails if the name in the image reaches anything but the opener, or zeros show it."""
    content = bytearray(old_formats.qed(DISK, name="base.img"))
    with pytest.raises(FormatError):
        QED.open(MemoryStorage(bytes(content)), OPENER)
    opener = DictOpener(files={"base.img": MemoryStorage(b"\x07" * 12288, name="base.img")})
    image = QED.open(MemoryStorage(bytes(content)), opener)
    assert image.read_at(0, 12288) == DISK[:4096] + b"\x07" * 4096 + DISK[8192:]
    content = bytearray(old_formats.qed(DISK, name="base.img", zeros=True))
    image = QED.open(MemoryStorage(bytes(content)), opener)
    assert image.read_at(0, 12288) == DISK


def problems(storage: MemoryStorage, *, repair: bool = False) -> list[str]:
    assert isinstance(QED, Checkable)
    return [found.where for found in QED.check(storage, OPENER, repair=repair)]


def test_check_finds_entries_that_lie() -> None:
    """Fails if a place outside the file, or one of two clusters, is not seen."""
    content = old_formats.qed(DISK)
    assert problems(MemoryStorage(content)) == []
    assert problems(MemoryStorage(old_formats.qed(DISK, zeros=True))) == []
    for value in (4097, 1 << 40, 4096):
        assert problems(patched(4096, "Q", value)) == ["L1 entry 0"]
    (first,) = struct.unpack_from("<Q", content, 8192)
    for value in (4097, 1 << 40, first, 0x2000):
        assert problems(patched(8192 + 16, "Q", value)) == ["cluster 2 of the disk"]
    assert problems(MemoryStorage(content + bytes(4096))) == ["the file"]


def test_repair_clears_the_mark_of_a_sound_image_only() -> None:
    """Fails if the mark stays, or goes where the tables are wrong."""
    mark = ["Header.features at 0x10"]
    storage = patched(0x10, "Q", 2)
    assert problems(storage) == problems(storage, repair=True) == mark
    assert problems(storage) == []
    assert bytes(storage.content) == old_formats.qed(DISK)
    content = bytearray(old_formats.qed(DISK))
    struct.pack_into("<Q", content, 0x10, 2)
    struct.pack_into("<Q", content, 8192, 1 << 40)
    storage = MemoryStorage(bytes(content))
    assert problems(storage, repair=True) == ["cluster 0 of the disk", *mark]
    assert bytes(storage.content) == content
