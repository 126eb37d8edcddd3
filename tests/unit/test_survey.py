"""What is on a disk, from any bytes, and partitions by their number."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import ReadError, TruncatedImageError, UsageError
from imprint.core.units import KIB, MIB
from imprint.endpoints.survey import IDENTIFY_MAX, describe, open_partition
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage, FaultyStorage
from imprint.testing.tables import (
    GPT_DISK_BYTES,
    SECTOR_BYTES,
    gpt_disk,
    gpt_entry,
    mbr_disk,
    mbr_entry,
    mbr_record,
    put_gpt,
)
from imprint.volumes import TABLE_BYTES_MAX, read_table

DATA = mbr_entry(0x83, 1, 10)
RECORDS = {
    0: mbr_record(mbr_entry(5, 100, 1000), DATA),
    100: mbr_record(DATA, mbr_entry(5, 50, 50)),
}
TABLES = {"gpt": bytes(gpt_disk()), "mbr": bytes(mbr_disk(RECORDS))}


def test_a_partition_is_opened_by_its_number() -> None:
    """Fails if an address of a partition reads another one."""
    disk = gpt_disk()
    disk[128 * SECTOR_BYTES] = 0x77
    storage = MemoryStorage(disk, name="disk")

    window = open_partition(storage, 3)

    buffer = bytearray(2)
    window.readinto(memoryview(buffer), 0)
    assert (window.name, window.size, bytes(buffer)) == ("disk#p3", 65536, b"\x77\0")
    with pytest.raises(UsageError, match="has no partition 2; it has: 1, 3"):
        open_partition(storage, 2)
    with pytest.raises(UsageError, match="no partition table"):
        open_partition(MemoryStorage(bytes(MIB)), 1)
    with pytest.raises(TruncatedImageError):
        open_partition(MemoryStorage(disk[: 100 * SECTOR_BYTES]), 3)


def test_a_description_of_a_disk_with_many_partitions_is_bounded() -> None:
    """Fails if a table of 2048 entries makes us look into each of them."""
    disk = gpt_disk()
    put_gpt(disk, gpt_entry(64, 2000) * 2048, other_lba=2, entries_lba=100, entry_count=2048)
    counting = CountingStorage(MemoryStorage(disk))

    found = describe(counting)

    assert len(found.volumes) == 2048
    assert any(f"first {IDENTIFY_MAX}" in item.what for item in found.findings)
    assert counting.bytes_read < (IDENTIFY_MAX + 2) * 128 * KIB


def test_a_disk_whose_first_sector_is_bad_is_described() -> None:
    """Fails if the facts of a damaged disk cannot be had because it is damaged."""
    bad = FaultyStorage(MemoryStorage(gpt_disk()), verbs=["read"], bad=[(0, SECTOR_BYTES)])

    with pytest.raises(ReadError):
        read_table(bad)
    found = describe(bad)

    assert (found.table, found.volumes) == (None, ())
    assert found.findings[0].where == "partition table"


def test_a_bad_sector_hides_one_file_system_and_not_the_others() -> None:
    """Fails if a partition that can be read is not looked into for the sake of another."""
    disk = gpt_disk()
    for lba in (64, 128):
        start = lba * SECTOR_BYTES
        disk[start + 8 : start + 24] = b"LABELONE\0\0\0\0\0\0\0\0"
        disk[start : start + 48] = b"LUKS\xba\xbe\0\x01".ljust(48, b"\0")
    bad = [(64 * SECTOR_BYTES, SECTOR_BYTES)]

    found = describe(FaultyStorage(MemoryStorage(disk), verbs=["read"], bad=bad))

    kinds = [volume.filesystem.kind if volume.filesystem else None for volume in found.volumes]
    assert kinds == [None, "crypto_LUKS"]
    assert "partition 1" in [item.where for item in found.findings]


@given(
    kind=st.sampled_from(sorted(TABLES)),
    changes=st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, GPT_DISK_BYTES),
)
def test_any_bytes_give_a_table_or_none(
    kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    """Fails if a disk can make the readers raise, read too much, or describe nonsense."""
    disk = bytearray(TABLES[kind])
    for at, value in changes:
        disk[at] = value
    for content in (disk, disk[:cut]):
        counting = CountingStorage(MemoryStorage(content))
        table = read_table(counting)
        assert counting.bytes_read <= TABLE_BYTES_MAX
        found = describe(MemoryStorage(content))
        json.dumps(found.to_json())
        assert found.table == table
        for item in table.partitions if table is not None else ():
            assert item.start >= 0
            assert item.length > 0


@given(content=st.binary(max_size=3000), protective=st.booleans())
def test_noise_gives_a_table_or_none(content: bytes, protective: bool) -> None:
    """Fails if a disk of noise with the right signature is too much."""
    disk = bytearray(content.ljust(600, b"\x01"))
    disk[510:512] = b"\x55\xaa"
    if protective:
        disk[450] = 0xEE
        disk[512:520] = b"EFI PART"
    describe(MemoryStorage(disk))


def test_a_partition_that_is_cut_off_closes_its_disk_too() -> None:
    """Fails if an image stays open for as long as the program runs."""
    closed: list[bool] = []

    class Disk(MemoryStorage):
        def close(self) -> None:
            closed.append(True)
            super().close()

    disk = gpt_disk()
    for length in (len(disk), 150 * SECTOR_BYTES):
        closed.clear()
        part = open_partition(Disk(disk[:length], name="disk"), 3, may_be_cut=True)
        assert (part.name, part.size) == ("disk#p3", 65536)
        part.close()
        assert closed == [True]
