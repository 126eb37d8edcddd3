"""Btrfs whose structures are wrong: an error or a doubt for each, never a map that is believed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.filesystems.btrfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.btrfs_volume import (
    SUPERBLOCK_AT,
    SUPERBLOCK_BYTES,
    can_make,
    change,
    field_of_dump_super,
    leaf_of_dump_tree,
    make,
)
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mkfs.btrfs", "btrfs")

NODE: Final = 16384
ITEMS_AT: Final = 101
ITEM: Final = struct.Struct("<QBQII")
SUPERBLOCK: Final = (SUPERBLOCK_AT, SUPERBLOCK_BYTES)


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound one, each of whose trees is one leaf in two copies."""
    path = tmp_path_factory.mktemp("btrfs") / "volume"
    options = ("-O", "^block-group-tree") if can_make("block-group-tree") else ()
    return make(path, "-n", str(NODE), *options, size=256 * MIB)


@pytest.fixture
def copy(volume: Path, tmp_path: Path) -> Path:
    run("cp", "--sparse=always", volume, tmp_path / "copy")
    return tmp_path / "copy"


def item_of(path: Path, leaf: int, kind: int) -> tuple[int, int]:
    """Where the first item of a kind has its key, and its data, both from the leaf's start."""
    with path.open("rb") as file:
        file.seek(leaf)
        data = file.read(NODE)
    (count,) = struct.unpack_from("<I", data, 96)
    for index in range(count):
        at = ITEMS_AT + index * ITEM.size
        _, found, _, start, _ = ITEM.unpack_from(data, at)
        if found == kind:
            return at, ITEMS_AT + start
    raise AssertionError(kind)


def change_leaf(
    path: Path, tree: str, at: int, data: bytes, *, kind: int | None = None, part: str = "data"
) -> None:
    """Change all copies of a leaf: at a place from its start, or from that of an item."""
    for leaf in leaf_of_dump_tree(path, tree):
        base = 0
        if kind is not None:
            base = item_of(path, leaf, kind)[part == "data"]
        change(path, leaf + base + at, data, sealed=(leaf, NODE))


def test_it_is_sound_before_it_is_changed(volume: Path) -> None:
    """Fails if the tests below prove nothing."""
    found = allocation_of(volume, FILE_SYSTEM.allocation)
    assert (found.doubts, found.notes) == ((), ())


UNSUPPORTED: Final = {
    "RAID5/6": (0xBC, u64(0x341 | 1 << 7)),
    "zones": (0xBC, u64(0x341 | 1 << 12)),
    "extent tree v2": (0xBC, u64(0x341 | 1 << 13)),
    "RAID stripe tree": (0xBC, u64(0x341 | 1 << 14)),
    "unknown feature": (0xBC, u64(0x341 | 1 << 50)),
    "old references": (0xBC, u64(0x340)),
    "unknown read-only feature": (0xB4, u64(0x3 | 1 << 40)),
    "two devices": (0x88, u64(2)),
    "seed": (0x38, u64(1 | 1 << 32)),
    "dump of metadata": (0x38, u64(1 | 1 << 33)),
    "conversion": (0x38, u64(1 | 1 << 38)),
    "checksums by xxhash": (0xC4, u16(1)),
    "unknown checksums": (0xC4, u16(9)),
    "chunks on another device": (0xC9, u64(2)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_known_is_refused(name: str, copy: Path) -> None:
    """Fails if a feature is ignored that may change what the structures mean."""
    at, data = UNSUPPORTED[name]
    change(copy, SUPERBLOCK_AT + at, data, sealed=SUPERBLOCK)
    with pytest.raises(UnsupportedFeatureError):
        allocation_of(copy, FILE_SYSTEM.allocation)


WRONG_SUPERBLOCK: Final = {
    "magic": (0x40, b"_BHRfS_N"),
    "its own place": (0x30, u64(0)),
    "identity": (0x20, bytes(16)),
    "generation": (0x48, u64(1 << 60)),
    "root outside": (0x50, u64(1 << 63)),
    "root not aligned": (0x50, u64(0x1D2C001)),
    "chunk root in no system chunk": (0x58, u64(30588928)),
    "chunk root generation": (0xA4, u64(99)),
    "log where there is none": (0x60, u64(30408704)),
    "log outside": (0x60, u64((1 << 64) - 4096)),
    "no device": (0x88, u64(0)),
    "sector size": (0x90, u32(4097)),
    "node size": (0x94, u32(1 << 31)),
    "node smaller than a sector": (0x94, u32(2048)),
    "long array of chunks": (0xA0, u32(0xFFFFFFFF)),
    "cut array of chunks": (0xA0, u32(20)),
    "no chunks": (0xA0, u32(0)),
    "device larger than the volume": (0xD1, u64(1 << 50)),
    "device smaller than its chunks": (0xD1, u64(2 << 20)),
    "level": (0xC6, b"\x08"),
    "level of the root": (0xC6, b"\x01"),
    "level of the log": (0xC8, b"\xff"),
    "chunk of another kind": (0x32B + 8, b"\x01"),
    "chunk of no length": (0x32B + 17, u64(0)),
    "chunk of other stripes": (0x32B + 17 + 44, u16(1)),
    "chunk at another place": (0x32B + 17 + 56, u64(23 << 20)),
}


@pytest.mark.parametrize("name", WRONG_SUPERBLOCK)
def test_a_superblock_that_contradicts_itself_is_refused(name: str, copy: Path) -> None:
    """Fails if numbers are believed that cannot be."""
    at, data = WRONG_SUPERBLOCK[name]
    change(copy, SUPERBLOCK_AT + at, data, sealed=SUPERBLOCK)
    with pytest.raises(CorruptImageError):
        allocation_of(copy, FILE_SYSTEM.allocation)


WRONG_NODE: Final = {
    "identity": (32, bytes(16)),
    "place": (48, u64(0)),
    "generation": (80, u64(3)),
    "many items": (96, u32(0xFFFFFFFF)),
    "level": (100, b"\x01"),
}


@pytest.mark.parametrize("tree", ["root", "chunk", "extent", "device", "10"])
@pytest.mark.parametrize("name", WRONG_NODE)
def test_a_node_that_is_not_what_points_to_it_is_refused(name: str, tree: str, copy: Path) -> None:
    """Fails if a node of another tree, commit or file system is believed."""
    change_leaf(copy, tree, *WRONG_NODE[name])
    with pytest.raises(CorruptImageError):
        allocation_of(copy, FILE_SYSTEM.allocation)


WRONG_ITEM: Final = {
    "no extent tree": ("root", 132, "key", 0, u64(77)),
    "root item in part": ("root", 132, "key", 21, u32(100)),
    "root item outside of the leaf": ("root", 132, "key", 17, u32(0xFFFFFFFF)),
    "root at no place": ("root", 132, "data", 176, u64(1 << 62)),
    "root of high level": ("root", 132, "data", 238, b"\x09"),
    "extent in no chunk": ("extent", 169, "key", 0, u64(4096)),
    "extent behind all chunks": ("extent", 169, "key", 0, u64((1 << 64) - 4096)),
    "extent over the next": ("extent", 169, "key", 8, b"\xa8\xff\xff\xff"),
    "extent of no length": ("extent", 169, "key", 8, b"\xa8" + u64(0)),
    "block group in part": ("extent", 192, "key", 21, u32(3)),
    "chunk in part": ("chunk", 228, "key", 21, u32(30)),
    "chunk over another": ("chunk", 228, "key", 9, u64(22 << 20)),
    "stripe outside": ("chunk", 228, "data", 56, u64(1 << 60)),
    "stripe over another": ("chunk", 228, "data", 56, u64(40 << 20)),
    "stripe at no sector": ("chunk", 228, "data", 56, u64((1 << 20) + 1)),
    "device extent in part": ("device", 204, "key", 21, u32(9)),
    "device extent too long": ("device", 204, "data", 24, u64((1 << 64) - 1)),
    "free space too long": ("10", 199, "key", 9, u64((1 << 64) - 1)),
    "bitmap in part": ("10", 199, "key", 8, b"\xc8"),
}


@pytest.mark.parametrize("name", WRONG_ITEM)
def test_an_item_that_contradicts_others_is_refused(name: str, copy: Path) -> None:
    """Fails if an item is believed that cannot be, or leads out of its leaf."""
    tree, kind, part, at, data = WRONG_ITEM[name]
    change_leaf(copy, tree, at, data, kind=kind, part=part)
    with pytest.raises(CorruptImageError):
        allocation_of(copy, FILE_SYSTEM.allocation)


DOUBTED: Final = {
    "counts 5 bytes": ("extent", 192, "data", 0, u64(5)),
    "block groups are not the chunks": ("extent", 192, "data", 16, u64(4)),
    "the extents of the device": ("device", 204, "key", 9, u64(2 << 20)),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_what_is_told_in_two_ways_leaves_a_doubt(name: str, copy: Path) -> None:
    """Fails if one of two is believed that contradict each other."""
    tree, kind, part, at, data = DOUBTED[name]
    change_leaf(copy, tree, at, data, kind=kind, part=part)
    assert any(name in doubt for doubt in allocation_of(copy, FILE_SYSTEM.allocation).doubts)


def test_a_free_space_tree_with_what_is_used_leaves_a_doubt(copy: Path) -> None:
    """Fails if one of the two trees is believed that the allocator has."""
    key = u64(field_of_dump_super(copy, "root")) + b"\xc7" + u64(NODE)
    change_leaf(copy, "10", 0, key, kind=199, part="key")
    assert "the free-space tree" in allocation_of(copy, FILE_SYSTEM.allocation).doubts[0]


def test_the_count_of_the_superblock_is_compared(copy: Path) -> None:
    """Fails if extents are believed that are not as many as the superblock counts."""
    change(copy, SUPERBLOCK_AT + 0x78, u64(4096), sealed=SUPERBLOCK)
    doubts = allocation_of(copy, FILE_SYSTEM.allocation).doubts
    assert len(doubts) == 1
    assert "counts 4096 bytes" in doubts[0]


def test_a_mark_of_damage_leaves_a_doubt(copy: Path) -> None:
    """Fails if a file system is believed that says itself that it is damaged."""
    change(copy, SUPERBLOCK_AT + 0x38, u64(1 | 1 << 2), sealed=SUPERBLOCK)
    assert "damaged" in allocation_of(copy, FILE_SYSTEM.allocation).doubts[0]


def test_a_newer_copy_of_the_superblock_leaves_a_doubt(copy: Path) -> None:
    """Fails if a copy is believed that was made piece by piece while the disk was written to."""
    place = 64 * MIB
    change(copy, place + 0x48, u64(99), sealed=(place, SUPERBLOCK_BYTES))
    assert "newer" in allocation_of(copy, FILE_SYSTEM.allocation).doubts[0]
    change(copy, place + 0x48, u64(100), sealed=None)  # one that is damaged says nothing
    assert allocation_of(copy, FILE_SYSTEM.allocation).doubts == ()


def test_every_checksum_is_looked_at_and_one_sound_copy_is_enough(copy: Path) -> None:
    """Fails if rot is believed, or a file system is refused that the kernel would mount."""
    before = allocation_of(copy, FILE_SYSTEM.allocation)
    first, second = leaf_of_dump_tree(copy, "extent")
    change(copy, first + 5000, b"\x55", sealed=None)
    found = allocation_of(copy, FILE_SYSTEM.allocation)
    assert found.used == before.used
    assert found.doubts == ()
    assert "damaged in one of their copies: 1" in found.notes[0]
    change(copy, second + 5000, b"\x55", sealed=None)
    with pytest.raises(CorruptImageError, match="checksum"):
        allocation_of(copy, FILE_SYSTEM.allocation)


def test_the_checksum_of_the_superblock_is_looked_at(copy: Path) -> None:
    """Fails if a superblock that rots is believed."""
    change(copy, SUPERBLOCK_AT + 0x12B, b"label", sealed=None)
    with pytest.raises(CorruptImageError, match="checksum"):
        allocation_of(copy, FILE_SYSTEM.allocation)


def test_a_tree_that_cannot_be_followed_is_no_proof(copy: Path) -> None:
    """Fails if the walk ends well although a tree that only it reads is damaged."""
    assert field_of_dump_super(copy, "log_root") == 0
    change_leaf(copy, "fs", 96, u32(0xFFFFFFFF))
    assert allocation_of(copy, FILE_SYSTEM.allocation).doubts == ()
    storage = FileStorage.open(copy)
    try:
        with pytest.raises(CorruptImageError):
            list(FILE_SYSTEM.reached(storage))
    finally:
        storage.close()


def test_what_is_behind_its_end_is_kept(copy: Path) -> None:
    """Fails if the tail of a partition that its file system does not fill is dropped."""
    end = copy.stat().st_size
    with copy.open("r+b") as file:
        file.truncate(end + 3 * MIB + 512)
    found = allocation_of(copy, FILE_SYSTEM.allocation)
    assert found.used.covers(end, 3 * MIB + 512)
    assert found.doubts == ()
