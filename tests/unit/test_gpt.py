"""GUID partition tables that are damaged, cut off, or made to deceive."""

from __future__ import annotations

import pytest

from imprint.core.events import Severity
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage, FaultyStorage
from imprint.testing.tables import (
    GPT_BACKUP_ENTRIES_LBA,
    GPT_LAST_LBA,
    SECTOR_BYTES,
    gpt_disk,
    gpt_entry,
    mbr_entry,
    mbr_record,
    put_backup_gpt,
    put_gpt,
)
from imprint.volumes import TABLE_BYTES_MAX, PartitionTable, read_table

ROWS = [(1, 64 * SECTOR_BYTES, 64 * SECTOR_BYTES, "one"), (3, 65536, 65536, "")]


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(MemoryStorage(disk))
    assert table is not None
    return table


def rows(table: PartitionTable) -> list[tuple[int, int, int, str]]:
    return [(item.index, item.start, item.length, item.name) for item in table.partitions]


def test_a_gpt_by_the_specification_is_read() -> None:
    """Fails if the tests below damage a table that was not right before."""
    table = read(gpt_disk())
    assert (table.kind, table.sector_size, rows(table)) == ("gpt", 512, ROWS)
    assert table.findings == ()
    assert table.partitions[1].flags == ("required", "legacy-boot")
    # The first three parts of a GUID are little-endian.
    assert table.uuid == "03020100-0504-0706-0809-0a0b0c0d0e0f"
    assert table.partitions[0].code == "03020100-0504-0706-0809-0a0b0c0d0e0f"
    assert table.partitions[0].uuid == "13121110-1514-1716-1819-1a1b1c1d1e1f"
    assert table.find(3) == table.partitions[1]
    assert table.find(2) is None


@pytest.mark.parametrize(
    ("at", "where", "what"),
    [
        (SECTOR_BYTES, "primary GPT at 0x200", "signature"),
        (SECTOR_BYTES + 20, "primary GPT at 0x200", "header does not match its checksum"),
        (SECTOR_BYTES + 40, "primary GPT at 0x200", "header does not match its checksum"),
        (2 * SECTOR_BYTES, "primary GPT at 0x200", "entries do not match their checksum"),
        (GPT_LAST_LBA * SECTOR_BYTES, "backup GPT at 0xffe00", "signature"),
        (GPT_LAST_LBA * SECTOR_BYTES + 60, "backup GPT at 0xffe00", "header does not match"),
        (GPT_BACKUP_ENTRIES_LBA * SECTOR_BYTES, "backup GPT at 0xffe00", "entries do not match"),
    ],
)
def test_a_damaged_copy_is_told_and_the_other_one_counts(at: int, where: str, what: str) -> None:
    """Fails if one bad byte in a table loses the partitions, or passes in silence."""
    disk = gpt_disk()
    disk[at] ^= 0xFF

    table = read(disk)

    assert rows(table) == ROWS
    assert [(item.severity, item.where) for item in table.findings] == [(Severity.WARNING, where)]
    assert what in table.findings[0].what


def test_an_unreadable_primary_is_a_finding_too() -> None:
    """Fails if a bad sector where the table is makes the whole disk unreadable."""
    bad = [(SECTOR_BYTES, SECTOR_BYTES)]
    table = read_table(FaultyStorage(MemoryStorage(gpt_disk()), verbs=["read"], bad=bad))
    assert table is not None
    assert rows(table) == ROWS
    assert "could not be read" in table.findings[0].what


def test_entries_that_no_copy_has_whole_are_shown_as_an_error() -> None:
    """Fails if partitions that may be wrong are shown as if they were right."""
    disk = gpt_disk()
    disk[2 * SECTOR_BYTES + 57] ^= 1
    disk[GPT_BACKUP_ENTRIES_LBA * SECTOR_BYTES + 57] ^= 1

    table = read(disk)

    assert len(table.partitions) == 2
    assert table.findings[-1].severity is Severity.ERROR


def test_a_gpt_with_no_copy_left_is_a_table_that_is_lost() -> None:
    """Fails if such a disk is called one without a table, as if there had never been one."""
    disk = gpt_disk()
    disk[SECTOR_BYTES], disk[GPT_LAST_LBA * SECTOR_BYTES] = 0, 0

    table = read(disk)

    assert (table.kind, table.partitions) == ("gpt", ())
    assert [item.severity for item in table.findings] == [Severity.ERROR]


def test_a_disk_that_was_cut_off_has_its_partitions_and_findings() -> None:
    """Fails if half an image shows no partitions, or hides that they are not all there."""
    table = read(gpt_disk()[: 100 * SECTOR_BYTES])
    assert rows(table) == ROWS
    assert [item.where for item in table.findings] == ["backup GPT", "partition 1", "partition 3"]


def test_a_disk_that_has_grown_is_told() -> None:
    """Fails if an enlarged image cannot be read, or is said to be damaged."""
    table = read(gpt_disk() + bytes(MIB))
    assert rows(table) == ROWS
    assert [item.severity for item in table.findings] == [Severity.INFO]


def test_two_copies_that_differ_are_told() -> None:
    """Fails if nobody learns that the other copy has other partitions."""
    disk = gpt_disk()
    put_backup_gpt(disk, bytes(128 * 128))

    table = read(disk)

    assert rows(table) == ROWS
    assert "other ones" in table.findings[0].what


def test_without_a_protective_mbr_a_whole_gpt_counts_with_a_warning() -> None:
    """Fails if a wiped first sector hides the table behind it."""
    disk = gpt_disk()
    disk[:SECTOR_BYTES] = bytes(SECTOR_BYTES)

    table = read(disk)

    assert (table.kind, rows(table)) == ("gpt", ROWS)
    assert [item.severity for item in table.findings] == [Severity.WARNING]
    disk[SECTOR_BYTES] = 0
    assert read_table(MemoryStorage(disk)) is None, "the backup outlives its table"


def test_an_mbr_counts_before_a_gpt_that_it_does_not_announce() -> None:
    """Fails if the remains of an old GPT hide the MBR that was made later."""
    disk = gpt_disk()
    disk[:SECTOR_BYTES] = mbr_record(mbr_entry(0x83, 200, 100))

    table = read(disk)

    assert (table.kind, rows(table)) == ("mbr", [(1, 200 * 512, 100 * 512, "")])
    assert "has a GPT too" in table.findings[0].what


@pytest.mark.parametrize(
    ("count", "size"),
    [(0xFFFFFFFF, 128), (1 << 20, 128), (0, 128), (128, 0), (128, 127), (2, 0xFFFFFF80)],
)
def test_a_gpt_that_claims_absurd_entries_is_not_believed(count: int, size: int) -> None:
    """Fails if a number in a header decides how much memory is taken."""
    disk = gpt_disk()
    put_gpt(disk, bytes(128 * 128), entry_count=count, entry_size=size)
    counting = CountingStorage(MemoryStorage(disk))

    table = read_table(counting)

    assert table is not None
    assert rows(table) == ROWS
    assert counting.bytes_read <= TABLE_BYTES_MAX


def test_the_largest_gpt_is_read_in_bounds_and_told_in_few_lines() -> None:
    """Fails if 2048 overlapping partitions take too much, or fill the screen."""
    disk = gpt_disk()
    put_gpt(disk, gpt_entry(64, 2000) * 2048, other_lba=2, entries_lba=100, entry_count=2048)
    counting = CountingStorage(MemoryStorage(disk))

    table = read_table(counting)

    assert table is not None
    assert len(table.partitions) == 2048
    assert len(table.findings) < 50
    assert counting.bytes_read <= TABLE_BYTES_MAX


@pytest.mark.parametrize(("first", "last"), [(200, 100), (1 << 63, (1 << 64) - 1), (0, 1 << 62)])
def test_an_entry_that_can_be_on_no_disk_is_left_out(first: int, last: int) -> None:
    """Fails if a partition has a length below zero, or one that no arithmetic expects."""
    disk = gpt_disk()
    put_gpt(disk, gpt_entry(first, last).ljust(128 * 128, b"\0"))

    table = read(disk)

    assert table.partitions == ()
    assert "left out" in table.findings[-1].what
