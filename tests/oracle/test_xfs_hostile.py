"""XFS whose structures are wrong: an error or a doubt for each, never a map that is believed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.xfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of
from imprint.testing.xfs_volume import change, field_of_xfs_db, log_of_xfs_db, make

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mkfs.xfs", "xfs_db")

SECTOR: Final = 512
BLOCK: Final = 4096
SEALS: Final = {"superblock": 224, "agf": 216, "agi": 312, "agfl": 32, "tree": 52}


def u16(value: int) -> bytes:
    return struct.pack(">H", value)


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound one, 24576 blocks of 4 KiB in 4 groups, whose group 1 is nearly empty."""
    return make(tmp_path_factory.mktemp("xfs") / "volume")


@pytest.fixture
def copy(volume: Path, tmp_path: Path) -> Path:
    run("cp", "--sparse=always", volume, tmp_path / "copy")
    return tmp_path / "copy"


UNSUPPORTED: Final = {
    "version 3": (100, u16(0xB4A3)),
    "realtime": (16, u64(1000)),
    "log elsewhere": (48, u64(0)),
    "unknown read-only feature": (212, u32(0x8D | 1 << 10)),
    "metadata folders": (216, u32(0x3 | 1 << 8)),
    "zoned": (216, u32(0x3 | 1 << 9)),
    "unknown feature": (216, u32(0x3 | 1 << 30)),
    "unknown log feature": (220, u32(1 << 5)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_known_is_refused(name: str, copy: Path) -> None:
    """Fails if a feature is ignored that may change what the structures mean."""
    place, data = UNSUPPORTED[name]
    change(copy, place, data, sealed=(0, SECTOR, SEALS["superblock"]))
    with pytest.raises(UnsupportedFeatureError):
        allocation_of(copy, FILE_SYSTEM.allocation)


WRONG_SUPERBLOCK: Final = {
    "magic": (0, b"XFSC"),
    "block size": (4, u32(1024)),
    "more blocks than the volume has": (8, u64(1 << 40)),
    "fewer blocks than groups": (8, u64(6144 * 3)),
    "many groups": (88, u32(0xFFFFFFFF)),
    "no groups": (88, u32(0)),
    "tiny groups": (84, u32(1)),
    "bits of a group": (124, b"\x01"),
    "mkfs not finished": (126, b"\x01"),
    "log outside": (48, u64(1 << 50)),
    "log too long": (96, u32(0xFFFFFFFF)),
    "inodes too large": (122, b"\x14"),
    "sector size": (102, u16(513)),
    "identity": (32, bytes(16)),
}


@pytest.mark.parametrize("name", WRONG_SUPERBLOCK)
def test_a_superblock_that_contradicts_itself_is_refused(name: str, copy: Path) -> None:
    """Fails if numbers are believed that cannot be."""
    place, data = WRONG_SUPERBLOCK[name]
    change(copy, place, data, sealed=(0, SECTOR, SEALS["superblock"]))
    with pytest.raises(CorruptImageError):
        allocation_of(copy, FILE_SYSTEM.allocation)


def place_of(copy: Path, what: str) -> tuple[int, int]:
    """Offset and length of a structure of group 1."""
    start = field_of_xfs_db(copy, "sb 0", "p agblocks") * BLOCK
    if what in ("agf", "agi", "agfl"):
        return start + (1 + ("agf", "agi", "agfl").index(what)) * SECTOR, SECTOR
    root = {"bnobt": "bnoroot", "cntbt": "cntroot"}[what]
    return start + field_of_xfs_db(copy, "agf 1", f"p {root}") * BLOCK, BLOCK


WRONG_IN_GROUP: Final = {
    "agf of another group": ("agf", 8, u32(2)),
    "agf length": ("agf", 12, u32(77)),
    "agf root outside": ("agf", 16, u32(0x7FFFFFFF)),
    "agf root in the headers": ("agf", 16, u32(0)),
    "agf roots swapped": ("agf", 16, u32(2)),
    "agf levels": ("agf", 28, u32(2)),
    "agf many levels": ("agf", 28, u32(0xFFFFFFFF)),
    "agf no levels": ("agf", 32, u32(0)),
    "agf free blocks": ("agf", 52, u32(5)),
    "agf longest": ("agf", 56, u32(5)),
    "agf list beyond": ("agf", 44, u32(0xFFFFFFFF)),
    "agf list count": ("agf", 48, u32(100)),
    "agf identity": ("agf", 64, bytes(16)),
    "agi magic": ("agi", 0, b"XAGF"),
    "agi identity": ("agi", 296, bytes(16)),
    "agfl of another group": ("agfl", 4, u32(9)),
    "agfl block that is free": ("agfl", 36 + 4, u32(100)),
    "agfl block outside": ("agfl", 36 + 4, u32(0xFFFFFFF0)),
    "bnobt level": ("bnobt", 4, u16(1)),
    "bnobt too many records": ("bnobt", 6, u16(0xFFFF)),
    "bnobt no records": ("bnobt", 6, u16(0)),
    "bnobt place": ("bnobt", 16, u64(8)),
    "bnobt owner": ("bnobt", 48, u32(0)),
    "bnobt identity": ("bnobt", 32, bytes(16)),
    "bnobt extent too long": ("bnobt", 60, u32(0x7FFFFFFF)),
    "bnobt extent elsewhere": ("bnobt", 56, u32(9)),
    "bnobt extent in the headers": ("bnobt", 56, u32(0)),
    "cntbt extent elsewhere": ("cntbt", 56, u32(9)),
    "cntbt magic": ("cntbt", 0, b"AB3B"),
}


@pytest.mark.parametrize("name", WRONG_IN_GROUP)
def test_a_group_that_contradicts_itself_is_refused(name: str, copy: Path) -> None:
    """Fails if free space is believed that is told in two ways, or by another group."""
    what, at, data = WRONG_IN_GROUP[name]
    offset, length = place_of(copy, what)
    change(copy, offset + at, data, sealed=(offset, length, SEALS.get(what, SEALS["tree"])))
    with pytest.raises(CorruptImageError):
        allocation_of(copy, FILE_SYSTEM.allocation)


@pytest.mark.parametrize("what", ["agf", "agi", "agfl", "bnobt", "cntbt"])
def test_every_checksum_is_looked_at(what: str, copy: Path) -> None:
    """Fails if rot is noticed in some structures only."""
    offset, _ = place_of(copy, what)
    change(copy, offset + 420, b"\x55", sealed=None)
    with pytest.raises(CorruptImageError, match="checksum"):
        allocation_of(copy, FILE_SYSTEM.allocation)


def test_the_checksum_of_the_superblock_is_looked_at(copy: Path) -> None:
    """Fails if a superblock that rots is believed."""
    change(copy, 110, b"\x55", sealed=None)
    with pytest.raises(CorruptImageError, match="checksum"):
        allocation_of(copy, FILE_SYSTEM.allocation)


def test_a_free_count_that_does_not_fit_leaves_a_doubt(copy: Path) -> None:
    """Fails if the groups are believed although the superblock counts otherwise."""
    change(copy, 144, u64(77), sealed=(0, SECTOR, SEALS["superblock"]))
    found = allocation_of(copy, FILE_SYSTEM.allocation)
    assert len(found.doubts) == 1
    assert "counts 77 free blocks" in found.doubts[0]


def test_what_needs_repair_leaves_a_doubt(copy: Path) -> None:
    """Fails if a file system is believed that says itself that it is damaged."""
    features = field_of_xfs_db(copy, "sb 0", "p features_incompat")
    sealed = (0, SECTOR, SEALS["superblock"])
    change(copy, 216, u32(features | 1 << 4), sealed=sealed)
    assert "repair" in allocation_of(copy, FILE_SYSTEM.allocation).doubts[0]


def test_structures_that_are_newer_than_the_log_leave_a_doubt(copy: Path) -> None:
    """Fails if a copy is believed that was made piece by piece while the disk was written to."""
    offset, length = place_of(copy, "bnobt")
    change(copy, offset + 24, u64(9 << 32), sealed=(offset, length, SEALS["tree"]))
    assert "newer" in allocation_of(copy, FILE_SYSTEM.allocation).doubts[0]


WRONG_LOG: Final = {
    "no record": (0, bytes(4)),
    "version": (8, u32(9)),
    "too long": (12, u32(0x7FFFFFFF)),
    "big-endian": (300, u32(2)),
    "another identity": (304, bytes(16)),
    "long headers": (320, u32(0xFFFFFFFF)),
    "cycle": (4, u32(7)),
    "not an unmount record": (SECTOR + 9, b"\x00"),
}


@pytest.mark.parametrize("name", WRONG_LOG)
def test_a_log_that_is_not_understood_leaves_a_doubt(name: str, copy: Path) -> None:
    """Fails if a log is called clean that the kernel might replay, or refuse."""
    at, data = WRONG_LOG[name]
    change(copy, log_of_xfs_db(copy)[0] + at, data, sealed=None)
    found = allocation_of(copy, FILE_SYSTEM.allocation)
    assert found.doubts
    assert "not unmounted" in found.doubts[0]


def test_a_dirty_version_4_leaves_a_doubt(tmp_path: Path) -> None:
    """Fails if a log is believed that no kernel here could be asked about."""
    path = make(tmp_path / "volume", "-m", "crc=0")
    change(path, log_of_xfs_db(path)[0] + SECTOR + 9, b"\x00", sealed=None)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert "version 4" in found.doubts[0]


def test_what_cannot_be_replayed_is_not_walked(copy: Path) -> None:
    """Fails if inodes are followed that the log has newer ones of."""
    change(copy, log_of_xfs_db(copy)[0] + SECTOR + 9, b"\x00", sealed=None)
    storage = FileStorage.open(copy)
    try:
        with pytest.raises(UnsupportedFeatureError):
            list(FILE_SYSTEM.reached(storage))
    finally:
        storage.close()
