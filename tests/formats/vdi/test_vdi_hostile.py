"""Headers and maps that lie: each must be refused by name, before anything is allocated."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.formats import Checkable, CreateSpec
from imprint.core.units import GIB, MIB
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

VDI = formats.get("vdi")
OPENER = DictOpener()
BLOCK = 4096
DATA = 1 * MIB


def image(subformat: str = "dynamic") -> bytearray:
    """Eight blocks, of which the first three are written."""
    storage = MemoryStorage()
    spec = CreateSpec(8 * BLOCK, OPENER, {"block_size": BLOCK, "subformat": subformat})
    target = VDI.create(storage, spec)
    target.write(memoryview(b"\x01" * 3 * BLOCK), 0)
    target.commit()
    return storage.content


def patched(at: int, code: str, *values: int) -> MemoryStorage:
    content = image()
    struct.pack_into(f"<{code}", content, at, *values)
    return MemoryStorage(content, name="disk.vdi")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0x40, "I", 0xBEDA1070, CorruptImageError, "signature at 0x40"),
        (0x44, "I", 0x00010000, UnsupportedFeatureError, "version at 0x44"),
        (0x44, "I", 0x00000002, UnsupportedFeatureError, "version at 0x44"),
        (0x44, "I", 0x00020001, UnsupportedFeatureError, "version at 0x44"),
        (0x48, "I", 0x17F, CorruptImageError, "header_size at 0x48"),
        (0x4C, "I", 0, UnsupportedFeatureError, "image_type at 0x4c"),
        (0x4C, "I", 3, UnsupportedFeatureError, "image_type at 0x4c"),
        (0x4C, "I", 4, CorruptImageError, "parent_uuid at 0x1a8"),
        (0x154, "I", 0, CorruptImageError, "map_offset at 0x154"),
        (0x154, "I", 0x1C7, CorruptImageError, "map_offset at 0x154"),
        (0x154, "I", 0xFFFFFFFF, CorruptImageError, "map_offset at 0x154"),
        (0x154, "I", DATA, CorruptImageError, "data_offset at 0x158"),
        (0x158, "I", 0, CorruptImageError, "data_offset at 0x158"),
        (0x158, "I", 512 + 31, CorruptImageError, "data_offset at 0x158"),
        (0x170, "Q", 8 * BLOCK + 1, CorruptImageError, "block_count at 0x180"),
        (0x170, "Q", 1 << 63, CorruptImageError, "block_count at 0x180"),
        (0x178, "I", 0, CorruptImageError, "block_size at 0x178"),
        (0x178, "I", 3, CorruptImageError, "block_size at 0x178"),
        (0x178, "I", 256, UnsupportedFeatureError, "block_size at 0x178"),
        (0x178, "I", 512 * MIB, UnsupportedFeatureError, "block_size at 0x178"),
        (0x180, "I", 7, CorruptImageError, "block_count at 0x180"),
        (0x180, "I", 0xFFFFFFFF, UnsupportedFeatureError, "block_count at 0x180"),
        (0x180, "I", 1 << 25, CorruptImageError, "map_offset at 0x154"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    storage = patched(at, code, value)
    for open_ in (VDI.open, VDI.edit):
        with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
            open_(storage, OPENER)
        assert type(caught.value) is error
        assert str(caught.value).startswith("disk.vdi: ")


@pytest.mark.parametrize("length", [0, 0x43, 0x1C7, 0x1C8, 0x200, 0x21F])
def test_a_file_without_its_map_is_refused(length: int) -> None:
    """Fails if a header or map that is cut off is taken for a whole one."""
    with pytest.raises(CorruptImageError):
        VDI.open(MemoryStorage(image()[:length]), OPENER)


def test_what_is_not_cut_off_can_be_read() -> None:
    """Fails if a file that lost its end gives nothing, or zeros for what is lost."""
    storage = MemoryStorage(image()[: DATA + 2 * BLOCK + 100], name="disk.vdi")
    disk = VDI.open(storage, OPENER)
    assert disk.read_at(0, 2 * BLOCK) == b"\x01" * 2 * BLOCK
    assert disk.read_at(3 * BLOCK, BLOCK) == bytes(BLOCK)
    with pytest.raises(TruncatedImageError):
        disk.read_at(2 * BLOCK, BLOCK)
    storage.resize(DATA + 2 * BLOCK)
    with pytest.raises(TruncatedImageError, match="block 2"):
        disk.read_at(2 * BLOCK, BLOCK)


def test_a_fixed_file_that_is_cut_off_is_not_read_as_zeros(tmp_path: Path) -> None:
    """Fails if what lies behind the end of the file passes for a hole in it."""
    path = tmp_path / "disk.vdi"
    path.write_bytes(image("fixed")[: DATA + 3 * BLOCK])
    with path.open("r+b") as file:
        file.truncate(DATA + 4 * BLOCK + 100)  # a hole at the end
    with VDI.open(FileStorage.open(path), OPENER) as disk:
        assert disk.read_at(0, 4 * BLOCK)[: 3 * BLOCK] == b"\x01" * 3 * BLOCK
        for start in (4 * BLOCK, 5 * BLOCK):
            with pytest.raises(TruncatedImageError):
                disk.read_at(start, BLOCK)


def test_an_offset_beyond_what_the_kernel_takes_is_an_error(tmp_path: Path) -> None:
    """Fails if slot × stride overflows the 63 bits of a file offset as another exception."""
    content = image()
    struct.pack_into("<I", content, 0x178, 256 * MIB)
    struct.pack_into("<I", content, 0x17C, 0xFFFFFFFF)
    struct.pack_into("<I", content, 0x200, 0xFFFFFFFD)
    path = tmp_path / "disk.vdi"
    path.write_bytes(content)
    with VDI.open(FileStorage.open(path), OPENER) as disk, pytest.raises(TruncatedImageError):
        disk.read_at(0, 512)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ((0, 0), "block 1: expected a slot of its own, found 0x0"),
        ((0, 3), "block 1: expected one of the file's 3 slots, found 0x3"),
        ((0, 0xFFFFFFFD), "block 1: expected one of the file's 3 slots"),
    ],
)
def test_a_map_that_lies_is_not_written_to(entries: tuple[int, ...], message: str) -> None:
    """Fails if an edit would overwrite another block's bytes, or the guest's."""
    storage = patched(512, "2I", *entries)
    VDI.open(storage, OPENER).close()
    with pytest.raises(CorruptImageError, match=message):
        VDI.edit(storage, OPENER)


def test_a_map_in_a_hole_of_a_huge_file_is_bounded(tmp_path: Path) -> None:
    """Fails if a sparse file of a few KiB makes us allocate what its length suggests."""
    content = image()
    struct.pack_into("<I", content, 0x154, GIB)
    struct.pack_into("<I", content, 0x158, 3 * GIB)
    struct.pack_into("<I", content, 0x180, 1 << 25)
    path = tmp_path / "disk.vdi"
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    with bounded_memory(200 * MIB):
        with VDI.open(FileStorage.open(path), OPENER) as disk:
            assert disk.read_at(0, 512) == bytes(512)
        del disk
        with pytest.raises(FormatError):  # every block claims slot 0
            VDI.edit(FileStorage.open(path), OPENER)


@pytest.mark.parametrize(
    ("at", "values", "severity", "where", "what"),
    [
        (512, (1, 1), "error", "block 1", "which another block has"),
        (512, (3,), "error", "block 0", "one of the file's 3 slots"),
        (0x184, (2,), "error", "blocks_allocated", "expected 3, found 2"),
        (0x184, (4,), "warning", "blocks_allocated", "expected 3, found 4"),
        (516, (0xFFFFFFFF,), "warning", "slots at 0x100000", "found 1"),
        (0x180, (9,), "info", "block_count", "expected 8 blocks"),
    ],
)
def test_a_check_finds_what_is_wrong(
    at: int, values: tuple[int, ...], severity: str, where: str, what: str
) -> None:
    """Fails if damage goes unnoticed, or is named wrongly."""
    assert isinstance(VDI, Checkable)
    storage = patched(at, f"{len(values)}I", *values)
    if at == 0x180:
        struct.pack_into("<I", storage.content, 512 + 4 * 8, 0xFFFFFFFF)
    before = bytes(storage.content)
    found = list(VDI.check(storage, OPENER, repair=False))
    assert storage.content == before
    matching = [finding for finding in found if finding.severity.value == severity]
    assert any(where in finding.where and what in finding.what for finding in matching)


@pytest.mark.parametrize("count", [0, 2, 4, 0xFFFFFFFF])
def test_a_repair_recounts_and_changes_nothing_else(count: int) -> None:
    """Fails if a wrong count stays, or a repair touches the map or the data."""
    assert isinstance(VDI, Checkable)
    storage = patched(0x184, "I", count)
    found = list(VDI.check(storage, OPENER, repair=True))
    assert [finding.repaired for finding in found] == [True]
    assert storage.content[0x184:0x188] == struct.pack("<I", 3)
    storage.content[0x184:0x188] = image()[0x184:0x188]
    assert list(VDI.check(storage, OPENER, repair=False)) == []


def test_a_check_of_a_map_of_garbage_ends() -> None:
    """Fails if a million wrong entries give a million findings."""
    assert isinstance(VDI, Checkable)
    storage = MemoryStorage()
    spec = CreateSpec(32 * MIB, OPENER, {"block_size": 512})
    VDI.create(storage, spec).commit()
    storage.write(memoryview(b"\x11" * (4 * 65536)), 512)
    found = list(VDI.check(storage, OPENER, repair=False))
    assert len(found) < 1100
    assert any("and 64536 more" in finding.what for finding in found)
