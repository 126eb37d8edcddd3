"""Master boot records that lie, and boot sectors that are none."""

from __future__ import annotations

import pytest

from imprint.core.events import Severity
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage
from imprint.testing.tables import SECTOR_BYTES, mbr_disk, mbr_entry, mbr_record
from imprint.volumes import TABLE_BYTES_MAX, PartitionTable, read_table

EXTENDED = mbr_entry(5, 100, 1000)
DATA = mbr_entry(0x83, 1, 10)


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(MemoryStorage(disk))
    assert table is not None
    return table


def link(lba: int) -> bytes:
    """An extended boot record with a partition and a link to ``lba`` of the disk."""
    return mbr_record(DATA, mbr_entry(5, lba - 100, 50))


@pytest.mark.parametrize(
    "records",
    [
        {100: link(150), 150: link(1100)},
        {100: link(150), 150: link(150)},
        {100: link(100)},
        {100: link(150), 150: link(190), 190: link(150)},
    ],
    ids=["out", "self", "first", "cycle"],
)
def test_a_chain_of_logical_partitions_ends_whatever_it_says(records: dict[int, bytes]) -> None:
    """Fails if a chain that loops, or leads astray, is followed for ever or in silence."""
    table = read(mbr_disk({0: mbr_record(EXTENDED), **records}))
    assert [item.index for item in table.partitions] == [1, *range(5, 5 + len(records))]
    assert [item.severity for item in table.findings] == [Severity.ERROR]


def test_an_extended_partition_on_the_mbr_itself_has_no_chain() -> None:
    """Fails if the primary partitions are read a second time as logical ones."""
    table = read(mbr_disk({0: mbr_record(mbr_entry(5, 0, 1000), DATA)}))
    assert [item.index for item in table.partitions] == [1, 2]
    assert any("leads back" in item.what for item in table.findings)


def test_a_chain_that_goes_backwards_is_followed() -> None:
    """Fails if logical partitions that were not made in order are lost; Linux has them."""
    first = mbr_record(mbr_entry(0x83, 400, 10), mbr_entry(5, 300, 20))
    records = {100: first, 400: link(300), 300: mbr_record(DATA)}
    table = read(mbr_disk({0: mbr_record(EXTENDED), **records}))
    assert [item.start // SECTOR_BYTES for item in table.partitions] == [100, 500, 401, 301]
    assert [item.index for item in table.partitions] == [1, 5, 6, 7]
    assert table.findings == ()


def test_an_endless_chain_is_cut_off_in_bounds() -> None:
    """Fails if a disk of boot records can keep a reader busy."""
    records = {lba: mbr_record(DATA, mbr_entry(5, lba, 1)) for lba in range(1, 1500)}
    disk = mbr_disk({**records, 0: mbr_record(mbr_entry(5, 1, 1500))})
    counting = CountingStorage(MemoryStorage(disk))

    table = read_table(counting)

    assert table is not None
    assert 250 < len(table.partitions) < 260
    assert any("found more" in item.what for item in table.findings)
    assert len(table.findings) < 80
    assert counting.bytes_read <= TABLE_BYTES_MAX


def test_partitions_that_overlap_are_told_and_kept() -> None:
    """Fails if two partitions that share sectors look like any other two."""
    record = mbr_record(mbr_entry(0x83, 10, 100), mbr_entry(0x83, 50, 100))
    table = read(mbr_disk({0: record}))
    assert len(table.partitions) == 2
    assert [(item.where, item.severity) for item in table.findings] == [
        ("partition 2", Severity.ERROR)
    ]
    assert "overlap" in table.findings[0].what


def test_a_partition_behind_the_disks_end_is_told_and_kept() -> None:
    """Fails if the image of half a disk hides what the other half had."""
    record = mbr_record(mbr_entry(0x83, 10, 100), mbr_entry(7, 5000, 100))
    table = read(mbr_disk({0: record}))
    assert [item.index for item in table.partitions] == [1, 2]
    assert [item.where for item in table.findings] == ["partition 2"]


def test_a_logical_partition_outside_of_its_extended_one_is_left_out() -> None:
    """Fails if a chain can name partitions anywhere on the disk."""
    outside = mbr_record(mbr_entry(0x83, 1, 1500), mbr_entry(5, 50, 50))
    table = read(mbr_disk({0: mbr_record(EXTENDED), 100: outside, 150: mbr_record(DATA)}))
    assert [(item.index, item.start) for item in table.partitions[1:]] == [(5, 151 * 512)]
    assert "left out" in table.findings[0].what


def test_a_chain_without_its_record_is_told() -> None:
    """Fails if logical partitions vanish without a word."""
    table = read(mbr_disk({0: mbr_record(EXTENDED)}))
    assert [item.index for item in table.partitions] == [1]
    assert "logical partitions may be missing" in table.findings[0].what


@pytest.mark.parametrize(
    "record",
    [
        bytes(SECTOR_BYTES),
        b"\xff" * SECTOR_BYTES,
        mbr_record(mbr_entry(0x83, 1, 10, status=0x20)),
        mbr_record(mbr_entry(0x83, 0x7000_0000, 10)),
        bytes(510) + b"\xaa\x55",
    ],
    ids=["zeros", "ones", "status", "outside", "swapped"],
)
def test_what_is_no_table_is_none(record: bytes) -> None:
    """Fails if boot code is read as entries."""
    assert read_table(MemoryStorage(record + bytes(MIB))) is None


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024])
def test_disks_that_are_too_small_for_a_table_have_none(size: int) -> None:
    """Fails if an empty file is an error instead of a disk without a table."""
    assert read_table(MemoryStorage(bytes(size))) is None


def test_a_sector_size_that_the_caller_knows_counts() -> None:
    """Fails if an image of a disk with large sectors cannot be read although they are known."""
    table = read_table(MemoryStorage(mbr_disk({0: mbr_record(DATA)})), sector_size=4096)
    assert table is not None
    assert (table.sector_size, table.partitions[0].start) == (4096, 4096)
