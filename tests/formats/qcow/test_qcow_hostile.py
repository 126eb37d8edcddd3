"""QCOW headers and tables that lie: each is refused by name, before anything is allocated."""

from __future__ import annotations

import struct

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.formats import Checkable, CreateSpec, Match
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing import old_formats
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

QCOW = formats.get("qcow")
OPENER = DictOpener()
DISK = b"\x01" * 4096 + bytes(4096) + b"\x02" * 4096


def patched(at: int, code: str, value: int, *, compress: bool = False) -> MemoryStorage:
    content = bytearray(old_formats.qcow(DISK, cluster_bits=12, l2_bits=9, compress=compress))
    struct.pack_into(f">{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.qcow")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0x00, "I", 0x514649FA, CorruptImageError, "magic at 0x0"),
        (0x04, "I", 2, UnsupportedFeatureError, "version at 0x4"),
        (0x08, "Q", 1 << 40, CorruptImageError, "backing_size at 0x10"),
        (0x18, "Q", 1 << 63, CorruptImageError, "disk_size at 0x18"),
        (0x18, "Q", 1 << 50, TruncatedImageError, "l1_table_offset at 0x28"),
        (0x20, "B", 8, CorruptImageError, "cluster_bits at 0x20"),
        (0x20, "B", 17, CorruptImageError, "cluster_bits at 0x20"),
        (0x21, "B", 5, CorruptImageError, "l2_bits at 0x21"),
        (0x21, "B", 255, CorruptImageError, "l2_bits at 0x21"),
        (0x24, "I", 2, UnsupportedFeatureError, "crypt_method at 0x24"),
        (0x28, "Q", 0, CorruptImageError, "l1_table_offset at 0x28"),
        (0x28, "Q", (1 << 64) - 1, TruncatedImageError, "l1_table_offset at 0x28"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
        QCOW.open(patched(at, code, value), OPENER)
    assert type(caught.value) is error
    assert str(caught.value).startswith("disk.qcow: ")


@pytest.mark.parametrize("value", [1 << 40, 8 * MIB, (1 << 63) - 1])
def test_a_table_behind_the_end_is_an_error(value: int) -> None:
    """Fails if a lost L2 table reads as a hole."""
    image = QCOW.open(patched(48, "Q", value), OPENER)
    with pytest.raises(TruncatedImageError):
        image.read_at(0, 4096)


@pytest.mark.parametrize("value", [8 * MIB, (1 << 63) - 1])
def test_a_cluster_behind_the_end_is_an_error(value: int) -> None:
    """Fails if a lost cluster reads as zeros."""
    image = QCOW.open(patched(4096, "Q", value), OPENER)
    with pytest.raises(TruncatedImageError):
        image.read_at(0, 4096)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (1 << 63 | 5 << 51 | 0, CorruptImageError),  # of the header's bytes
        (1 << 63 | 4000 << 51 | 8 * MIB, TruncatedImageError),
        (1 << 63 | 0 << 51 | 4096, CorruptImageError),  # nothing at all
    ],
)
def test_a_compressed_cluster_that_is_none_is_an_error(
    value: int, error: type[FormatError]
) -> None:
    """Fails if garbage inflates to something."""
    image = QCOW.open(patched(4096, "Q", value, compress=True), OPENER)
    with pytest.raises(error):
        image.read_at(0, 4096)


def test_a_backing_file_is_only_opened_through_the_gate() -> None:
    """Fails if the name in the image reaches anything but the opener."""
    content = old_formats.qcow(DISK, cluster_bits=12, l2_bits=9, name="../base.img")
    with pytest.raises(FormatError):
        QCOW.open(MemoryStorage(content), OPENER)
    base = MemoryStorage(b"\x07" * 8192, name="../base.img")
    opener = DictOpener(files={"../base.img": base})
    image = QCOW.open(MemoryStorage(content), opener)
    assert image.read_at(0, len(DISK)) == DISK[:4096] + b"\x07" * 4096 + DISK[8192:]
    assert image.info().parent == "../base.img"
    assert Reference("../base.img").format is None


def test_qcow2_is_not_taken_for_it() -> None:
    """Fails if the version is not looked at: the magic is the same."""
    assert QCOW.probe(patched(4, "I", 2)) is Match.NO
    assert formats.detect(patched(4, "I", 1)) == "qcow"


def test_writing_is_refused_by_name() -> None:
    """Fails if a format that is only read ends in something else than a clear refusal."""
    with pytest.raises(UnsupportedFeatureError, match="only read"):
        QCOW.edit(patched(4, "I", 1), OPENER)
    with pytest.raises((UnsupportedFeatureError, UsageError), match="only read"):
        QCOW.create(MemoryStorage(), CreateSpec(MIB, OPENER))
    with pytest.raises(UnsupportedFeatureError, match="only read"):
        QCOW.measure(MemoryStorage(), CreateSpec(MIB, OPENER))


def problems(storage: MemoryStorage) -> list[str]:
    assert isinstance(QCOW, Checkable)
    return [found.where for found in QCOW.check(storage, OPENER, repair=False)]


def test_check_finds_entries_that_lie() -> None:
    """Fails if a place outside the file, or one of two clusters, is not seen."""
    for compress in (False, True):
        content = old_formats.qcow(DISK, cluster_bits=12, l2_bits=9, compress=compress)
        assert problems(MemoryStorage(content)) == []
    for value in (0, 4097, 1 << 40, (1 << 63) - 1):
        assert problems(patched(48, "Q", value)) == ["L1 entry 0"] * bool(value)
    for value in (4097, 1 << 40, 4096, 1 << 63 | 4000 << 51 | 8 * MIB, 1 << 63 | 4096):
        assert problems(patched(4096 + 16, "Q", value)) == ["cluster 2 of the disk"]
