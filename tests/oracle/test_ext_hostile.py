"""Volumes of ext4 that lie: each lie is refused, or doubted."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, FormatError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.ext import FILE_SYSTEM
from imprint.filesystems.ext.checksums import crc16
from imprint.filesystems.ext.layout import GroupDescriptor, Superblock
from imprint.storage.memory import MemoryStorage
from imprint.testing.ext_volume import make
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.allocation import Allocation

pytestmark = pytest.mark.oracle("mke2fs", "debugfs")

SUPERBLOCK: Final = 1024
DESCRIPTORS: Final = 2048
PLAIN: Final = "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,64bit -J size=1"
SUMMED: Final = "-t ext4 -b 1024 -J size=1"
SUMMED_16: Final = "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg -J size=1"
NEVER: Final = 0xFFFF_FFFF


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("ext")
    return {
        command: make(folder / "disk", command, size=20 * MIB).read_bytes()
        for command in (PLAIN, SUMMED, SUMMED_16)
    }


def change(content: bytearray, at: int, field: str, value: int, *, group: int = -1) -> None:
    kind: type[Superblock | GroupDescriptor] = Superblock if group < 0 else GroupDescriptor
    place = kind.FIELDS[field]
    struct.pack_into(f"<{place.code}", content, at + max(0, group) * 64 + place.at, value)


def number(content: bytes | bytearray, at: int, length: int = 4) -> int:
    return int.from_bytes(content[at : at + length], "little")


def read(content: bytes | bytearray) -> Allocation:
    volume = MemoryStorage(content, name="volume")
    allocation = FILE_SYSTEM.allocation(volume)
    assert allocation.used.end <= len(content)
    return allocation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("magic", 0xEF52),
        ("log_block_size", 7),
        ("log_block_size", NEVER),
        ("block_count_low", 0),
        ("block_count_low", 1),
        ("block_count_low", 20 * 1024 + 1),
        ("block_count_high", 1),
        ("block_count_high", NEVER),
        ("first_data_block", 0),
        ("first_data_block", NEVER),
        ("blocks_per_group", 0),
        ("blocks_per_group", 8),
        ("blocks_per_group", 8191),
        ("blocks_per_group", 8200),
        ("inodes_per_group", 0),
        ("inodes_per_group", 8193),
        ("inode_count", 1),
        ("inode_size", 0),
        ("inode_size", 160),
        ("inode_size", 2048),
        ("descriptor_size", 0),
        ("descriptor_size", 32),
        ("descriptor_size", 2048),
        ("journal_inode", NEVER),
        ("journal_inode", 12),  # not in use
        ("journal_inode", 7),  # its tree leads to the room for descriptors
    ],
)
def test_a_superblock_that_contradicts_itself_is_refused(
    images: dict[str, bytes], field: str, value: int
) -> None:
    """Fails if a size or place is used that was never checked."""
    content = bytearray(images[PLAIN])
    change(content, SUPERBLOCK, field, value)
    with pytest.raises(CorruptImageError):
        read(content)


@pytest.mark.parametrize(
    ("field", "bits"),
    [
        *(("compat", 1 << bit) for bit in (6, 7, 8, 13, 31)),
        *(("incompat", 1 << bit) for bit in (0, 3, 5, 11, 12, 18, 31)),
        *(("ro_compat", 1 << bit) for bit in (7, 11, 17, 31)),
    ],
)
def test_features_that_are_not_known_are_refused(
    images: dict[str, bytes], field: str, bits: int
) -> None:
    """Fails if blocks may be kept where nobody looks: a journal's device is one of these."""
    content = bytearray(images[PLAIN])
    at = SUPERBLOCK + Superblock.FIELDS[field].at
    struct.pack_into("<I", content, at, number(content, at) | bits)
    with pytest.raises(UnsupportedFeatureError):
        read(content)


def test_a_journal_on_another_device_is_refused(images: dict[str, bytes]) -> None:
    """Fails if a log is taken for empty that nobody has looked at."""
    content = bytearray(images[PLAIN])
    change(content, SUPERBLOCK, "journal_inode", 0)
    with pytest.raises(UnsupportedFeatureError, match="another device"):
        read(content)


@pytest.mark.parametrize("field", ["block_bitmap_low", "inode_bitmap_low", "inode_table_low"])
@pytest.mark.parametrize("value", [0, 1, 20 * 1024, NEVER])
def test_places_of_groups_outside_are_refused(
    images: dict[str, bytes], field: str, value: int
) -> None:
    """Fails if a bitmap is read from where there is none."""
    content = bytearray(images[PLAIN])
    change(content, DESCRIPTORS, field, value, group=1)
    with pytest.raises(CorruptImageError):
        read(content)


def test_groups_that_share_a_place_are_refused(images: dict[str, bytes]) -> None:
    """Fails if one bitmap is believed for two groups."""
    for field in ("block_bitmap_low", "inode_table_low"):
        content = bytearray(images[PLAIN])
        value = number(content, DESCRIPTORS + GroupDescriptor.FIELDS[field].at)
        change(content, DESCRIPTORS, field, value, group=1)
        with pytest.raises(CorruptImageError, match="overlap"):
            read(content)


@pytest.mark.parametrize("command", [SUMMED, SUMMED_16])
def test_a_wrong_checksum_is_refused(images: dict[str, bytes], command: str) -> None:
    """Fails if damaged structures are believed. A bit of each kind is turned over."""
    sound = images[command]
    read(sound)
    places = [DESCRIPTORS + 64 + 12, DESCRIPTORS + 2]
    if command == SUMMED:
        bitmap = number(sound, DESCRIPTORS)
        places += [SUPERBLOCK + 0x78, bitmap * 1024 + 700]
    for place in places:
        content = bytearray(sound)
        content[place] ^= 0x10
        with pytest.raises(CorruptImageError, match="checksum"):
            read(content)


def test_the_checksum_of_the_journal_is_compared(images: dict[str, bytes]) -> None:
    """Fails if a damaged journal is taken for an empty one."""
    content = bytearray(images[SUMMED])
    at = content.index(bytes.fromhex("c03b3998 00000004"))
    content[at + 0x4C] ^= 1
    struct.pack_into(">I", content, at + 0x28, 0x12)  # 64bit and checksums 3
    with pytest.raises(CorruptImageError, match="checksum"):
        read(content)


def test_the_checksum_of_16_bits_is_that_of_its_catalogue() -> None:
    """Fails if the polynomial is another: the value is CRC-16/ARC's for its check string."""
    assert crc16(b"123456789", 0) == 0xBB3D


@pytest.mark.parametrize(
    ("field", "value", "doubt"),
    [
        ("state", 0, "not unmounted"),
        ("state", 3, "having errors"),
        ("free_block_count_low", 77, "superblock counts 77"),
    ],
)
def test_a_superblock_that_was_left_in_disorder_is_doubted(
    images: dict[str, bytes], field: str, value: int, doubt: str
) -> None:
    """Fails if a map is trusted that may be behind the times."""
    content = bytearray(images[PLAIN])
    change(content, SUPERBLOCK, field, value)
    assert any(doubt in found for found in read(content).doubts)


def test_counts_that_do_not_fit_are_doubted(images: dict[str, bytes]) -> None:
    """Fails if a bitmap is trusted that lost a block, its own for example."""
    content = bytearray(images[PLAIN])
    change(content, DESCRIPTORS, "free_count_low", 5, group=1)
    assert "group 1 does not fit" in read(content).doubts[0]

    content = bytearray(images[PLAIN])
    bitmap = number(content, DESCRIPTORS) * 1024
    content[bitmap : bitmap + 1024] = bytes(1024)
    found = read(content)
    assert any("group 0" in doubt for doubt in found.doubts)
    assert any("as free" in doubt for doubt in found.doubts)
    assert found.used.covers(bitmap, 1024)


def test_a_journal_that_nobody_would_replay_is_doubted(images: dict[str, bytes]) -> None:
    """Fails if a log with transactions is passed over; and one to replay that is empty is not."""
    content = bytearray(images[PLAIN])
    at = content.index(bytes.fromhex("c03b3998 00000004"))
    struct.pack_into(">I", content, at + 0x1C, 1)
    assert "not empty" in read(content).doubts[0]
    struct.pack_into(">I", content, at + 0x20, 5)
    assert "met an error" in read(content).doubts[0]

    content = bytearray(images[PLAIN])
    change(content, SUPERBLOCK, "incompat", number(content, SUPERBLOCK + 0x60) | 4)
    change(content, SUPERBLOCK, "free_block_count_low", 77)  # never right while it is mounted
    assert read(content).doubts == ()


@pytest.mark.parametrize(
    ("at", "value"), [(0x0C, 4096), (0x10, 1 << 30), (0x14, 0), (0x1C, 5000), (0, 1), (4, 2)]
)
def test_a_journal_that_makes_no_sense_is_refused(
    images: dict[str, bytes], at: int, value: int
) -> None:
    """Fails if a log is looked for outside of its ring."""
    content = bytearray(images[PLAIN])
    place = content.index(bytes.fromhex("c03b3998 00000004"))
    struct.pack_into(">I", content, place + at, value)
    with pytest.raises(CorruptImageError):
        read(content)


def test_a_journal_with_features_that_are_not_known_is_refused(images: dict[str, bytes]) -> None:
    """Fails if a log is replayed that says something else."""
    content = bytearray(images[PLAIN])
    place = content.index(bytes.fromhex("c03b3998 00000004"))
    struct.pack_into(">I", content, place + 0x28, 0x40)
    with pytest.raises(UnsupportedFeatureError):
        read(content)


def test_a_log_that_goes_round_for_ever_ends(images: dict[str, bytes]) -> None:
    """Fails if a ring of descriptors that is never committed keeps us busy."""
    content = bytearray(images[PLAIN])
    change(content, SUPERBLOCK, "incompat", number(content, SUPERBLOCK + 0x60) | 4)
    place = content.index(bytes.fromhex("c03b3998 00000004"))
    struct.pack_into(">II", content, place + 0x18, 1, 1)
    for block in range(1, 1024):
        revoked = struct.pack(">IIII", 0xC03B3998, 5, 1, 16)
        content[place + block * 1024 : place + block * 1024 + 16] = revoked
    assert read(content).notes == ("0 transactions of its journal were replayed",)
    content[place + 1024 : place + 1024 + 28] = struct.pack(
        ">IIIIHHI", 0xC03B3998, 1, 1, NEVER, 0, 10, 0
    )
    with pytest.raises(CorruptImageError):
        read(content)


def test_trees_that_lead_nowhere_or_round_are_refused(tmp_path: Path) -> None:
    """Fails if walking a tree does not end, or reads what is not there."""
    content_folder = tmp_path / "content"
    content_folder.mkdir()
    (content_folder / "file").write_bytes(b"x" * 600_000)
    path = make(tmp_path / "disk", "-t ext2 -b 1024", "-d", content_folder, size=4 * MIB)
    sound = path.read_bytes()
    told = run("debugfs", "-R", "imap file", path).stdout
    inode = int(told.split("at block ")[1].split(",")[0]) * 1024 + int(told.split("0x")[1][:4], 16)
    single, double = number(sound, inode + 88), number(sound, inode + 92)
    assert single
    assert double
    for at, value in ((inode + 92, 1 << 30), (double * 1024, double), (inode + 40, 1 << 30)):
        content = bytearray(sound)
        struct.pack_into("<I", content, at, value)
        with pytest.raises(CorruptImageError):
            Runs.of(FILE_SYSTEM.reached(MemoryStorage(content)))
        read(content)  # which does not look at trees


def test_every_way_to_cut_a_volume_off_is_an_error(images: dict[str, bytes]) -> None:
    """Fails if the end of a file is an error of another kind."""
    for command, sound in images.items():
        for size in (0, 1000, 1100, 2048, 2100, 4096, 300_000, len(sound) - 1):
            with pytest.raises(FormatError):
                read(sound[:size])
            with pytest.raises(FormatError):
                list(FILE_SYSTEM.reached(MemoryStorage(sound[:size], name=command)))
