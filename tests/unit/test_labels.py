"""Partition maps of Apple and labels of BSD and Sun: as they are, as they lie, and mixed."""

from __future__ import annotations

import json
import random
import struct

import pytest

from imprint.core.events import Severity
from imprint.core.units import MIB
from imprint.endpoints.survey import describe, open_partition
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage, FaultyStorage
from imprint.testing.tables import (
    apm_disk,
    apm_entry,
    bsd_label,
    disk_with,
    gpt_disk,
    mbr_entry,
    mbr_record,
    sun_label,
    xor16,
)
from imprint.volumes import TABLE_BYTES_MAX, PartitionTable, read_table

SECTOR = 512


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(MemoryStorage(disk))
    assert table is not None
    return table


def places(table: PartitionTable) -> list[tuple[int, int, int]]:
    """Number, first sector and count of sectors of what is no container."""
    return [
        (item.index, item.start // SECTOR, item.length // SECTOR)
        for item in table.partitions
        if not item.is_container
    ]


def errors(table: PartitionTable) -> list[str]:
    return [item.where for item in table.findings if item.severity is Severity.ERROR]


MAP = (
    apm_entry(4, 1, 63, "Apple_partition_map", name="Apple"),
    apm_entry(4, 64, 100, "Apple_HFS", name="Größe"),
    apm_entry(4, 164, 36, "Apple_Free", name="Extra"),
    apm_entry(4, 200, 50, "Apple_Bootstrap", status=0x3B),
)


def test_an_apple_map_has_its_names_types_and_free_room() -> None:
    """Fails if a field stands elsewhere, or room that is free is looked into as a volume."""
    table = read(apm_disk(*MAP))
    assert (table.kind, table.sector_size, table.uuid) == ("apm", 512, None)
    assert places(table) == [(1, 1, 63), (2, 64, 100), (3, 164, 36), (4, 200, 50)]
    assert [item.name for item in table.partitions] == ["Apple", "Größe", "Extra", ""]
    assert [item.flags for item in table.partitions] == [(), (), (), ("boot",)]
    assert [item.is_free for item in table.partitions] == [False, False, True, False]
    assert table.partitions[1].code == "Apple_HFS"
    assert table.findings == ()
    assert table.gaps(MIB) == [(0, 512), (164 * 512, 36 * 512), (250 * 512, (2048 - 250) * 512)]


@pytest.mark.parametrize(
    ("block_size", "driver"), [(2048, None), (512, 2048), (2048, 512), (1024, 0), (4096, 7)]
)
def test_an_apple_map_is_found_in_blocks_of_any_size(block_size: int, driver: int | None) -> None:
    """Fails if a disc's map is missed, or block 0 is believed where the map says otherwise."""
    table = read(apm_disk(*MAP, block_size=block_size, driver_block_size=driver))
    assert table.sector_size == block_size
    assert (table.partitions[1].start, table.partitions[1].length) == (
        64 * block_size,
        100 * block_size,
    )


def test_an_apple_map_that_breaks_off_is_told() -> None:
    """Fails if partitions vanish without a word, or a huge count is believed."""
    torn = read(apm_disk(*MAP[:2]))
    assert [item.index for item in torn.partitions] == [1, 2]
    assert errors(torn) == ["partition 3"]
    huge = apm_disk(*(apm_entry(0xFFFFFFFF, 1, 1, "Apple_HFS") for _ in range(1900)))
    counting = CountingStorage(MemoryStorage(huge))
    table = read_table(counting)
    assert table is not None
    assert len(table.partitions) == 256
    assert len(table.findings) < 40
    assert counting.bytes_read < TABLE_BYTES_MAX


def test_two_letters_are_no_apple_map() -> None:
    """Fails if any data with PM in its second sector is taken for a table."""
    stray = disk_with((512, b"PM" + bytes(2) + struct.pack(">I", 3)))
    assert read_table(MemoryStorage(stray)) is None


def test_partitions_that_overlap_are_told_in_every_kind_of_table() -> None:
    """Fails if only MBR and GPT are looked at."""
    apple = apm_disk(apm_entry(2, 1, 63, "Apple_HFS"), apm_entry(2, 50, 63, "Apple_HFS"))
    bsd = disk_with((512, bsd_label((10, 100, 7), (50, 100, 7))))
    sun = disk_with((0, sun_label((1, 100, 2), (2, 100, 4))))
    for disk in (apple, bsd, sun):
        assert errors(read(disk)) == ["partition 2"]
        assert "overlap" in read(disk).findings[0].what


def test_partitions_behind_the_disks_end_are_told_in_every_kind_of_table() -> None:
    """Fails if an image of half a disk looks whole."""
    apple = apm_disk(apm_entry(1, 2000, 100, "Apple_HFS"))
    bsd = disk_with((512, bsd_label((2000, 100, 7))))
    sun = disk_with((0, sun_label((100, 1000, 2))))
    assert [errors(read(disk)) for disk in (apple, bsd, sun)] == [["partition 1"]] * 3


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("place", [512, 4096, 64, 128])
def test_a_bsd_label_is_read_in_either_byte_order_and_at_all_its_places(
    endian: str, place: int
) -> None:
    """Fails if the disk of a SPARC, or of an Alpha, has no partitions."""
    label = bsd_label((16, 100, 7), (116, 84, 1), (0, 2048, 0), (200, 300, 8), endian=endian)
    table = read(disk_with((place, label)))
    assert (table.kind, table.sector_size, table.findings) == ("bsd", 512, ())
    assert places(table) == [(1, 16, 100), (2, 116, 84), (3, 200, 300)]
    assert [item.name for item in table.partitions] == ["a", "b", "d"]
    assert [item.code for item in table.partitions] == ["0x07", "0x01", "0x08"]


def test_a_bsd_label_counts_in_its_own_sectors() -> None:
    """Fails if a disk with sectors of 2048 bytes has its partitions at a quarter."""
    table = read(disk_with((512, bsd_label((16, 100, 7), sector_size=2048))))
    assert (table.sector_size, table.partitions[0].start) == (2048, 16 * 2048)


def test_the_third_bsd_partition_is_the_disk_and_no_overlap() -> None:
    """Fails if every sound BSD disk is told to be damaged."""
    table = read(disk_with((512, bsd_label((16, 100, 7), (116, 84, 1), (0, 2048, 7)))))
    assert [(item.name, item.is_container) for item in table.partitions] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]
    assert table.findings == ()


def test_openbsds_numbers_have_48_bits() -> None:
    """Fails if what lies behind 2 TiB is looked for at the disk's start."""
    table = read(disk_with((512, bsd_label((5 << 32, 3 << 33, 7), version=1))))
    assert places(table) == [(1, 5 << 32, 3 << 33)]
    assert table.uuid == "0102030405060708"
    old = read(disk_with((512, bsd_label((5 << 32, (3 << 33) + 9, 7)))))
    assert places(old) == [(1, 0, 9)]


def test_a_bsd_label_with_a_wrong_checksum_is_shown_and_not_trusted() -> None:
    """Fails if a damaged label looks sound, or hides where the partitions were."""
    label = bsd_label((16, 100, 7))
    label[50] ^= 1
    table = read(disk_with((512, label)))
    assert places(table) == [(1, 16, 100)]
    assert errors(table) == ["BSD label"]


FREEBSD, OPENBSD, NETBSD = 0xA5, 0xA6, 0xA9


def nested(kind: int, *entries: tuple[int, int, int], more: bytes = b"") -> PartitionTable:
    """A table whose first partition, sectors 100 to 1099, has a BSD label."""
    record = mbr_record(mbr_entry(kind, 100, 1000), more)
    return read(disk_with((0, record), (101 * SECTOR, bsd_label(*entries))))


def test_bsd_partitions_in_an_mbr_are_numbered_behind_the_logical_ones() -> None:
    """Fails if ``#p6`` is another partition than ``sda6``."""
    record = mbr_record(mbr_entry(FREEBSD, 100, 900), mbr_entry(5, 1000, 1000))
    chain = mbr_record(mbr_entry(0x83, 1, 50))
    label = bsd_label((110, 20, 7), (200, 30, 1), (100, 900, 0))
    disk = disk_with((0, record), (1000 * SECTOR, chain), (101 * SECTOR, label))
    table = read(disk)
    assert places(table) == [(5, 1001, 50), (6, 110, 20), (7, 200, 30)]
    assert [item.index for item in table.partitions if item.is_container] == [1, 2]
    assert table.findings == ()
    disk[200 * SECTOR] = 0x55
    window = open_partition(MemoryStorage(disk, name="disk"), 7)
    head = bytearray(1)
    window.readinto(memoryview(head), 0)
    assert (window.size, head[0]) == (30 * SECTOR, 0x55)


def test_freebsds_numbers_count_from_its_slice_if_the_third_one_begins_at_zero() -> None:
    """Fails if partitions are placed before their slice, or behind its end."""
    assert places(nested(FREEBSD, (10, 20, 7), (50, 30, 1), (0, 1000, 0))) == [
        (5, 110, 20),
        (6, 150, 30),
    ]
    assert places(nested(FREEBSD, (110, 20, 7), (150, 30, 1), (100, 1000, 0))) == [
        (5, 110, 20),
        (6, 150, 30),
    ]
    # In the labels of the others, the third one is the whole disk.
    assert places(nested(OPENBSD, (110, 20, 7), (150, 30, 1), (0, 2048, 0))) == [
        (5, 110, 20),
        (6, 150, 30),
    ]


def test_an_empty_bsd_partition_has_a_number_of_its_own() -> None:
    """Fails if numbers behind an empty entry are others than those of Linux, or there twice."""
    record = mbr_record(mbr_entry(FREEBSD, 100, 900), mbr_entry(NETBSD, 1000, 500))
    first = bsd_label((110, 0, 7), (200, 30, 1), (100, 900, 0), (300, 0, 7))
    second = bsd_label((1010, 20, 7))
    disk = disk_with((0, record), (101 * SECTOR, first), (1001 * SECTOR, second))
    assert places(read(disk)) == [(6, 200, 30), (8, 1010, 20)]
    assert places(read(disk_with((512, first)))) == [(2, 200, 30)]


def test_what_openbsd_lists_of_other_slices_is_left_out_and_no_damage() -> None:
    """Fails if a partition is there twice, or every such disk counts as damaged."""
    table = nested(OPENBSD, (110, 20, 7), (1200, 100, 8), more=mbr_entry(0x0C, 1200, 100))
    assert places(table) == [(2, 1200, 100), (5, 110, 20)]
    assert [item.severity for item in table.findings] == [Severity.INFO]


@pytest.mark.parametrize("entry", [(50, 100, 7), (1050, 100, 7), (5000, 10, 7)])
def test_a_bsd_partition_that_leaves_its_slice_is_left_out_and_told(
    entry: tuple[int, int, int],
) -> None:
    """Fails if a label can name sectors that are somebody else's."""
    table = nested(NETBSD, (110, 20, 7), entry)
    assert places(table) == [(5, 110, 20)]
    assert errors(table) == ["partition 1, BSD partition b"]


def test_a_slice_that_is_one_partition_is_that_partition() -> None:
    """Fails if a slice that FreeBSD uses as a whole has no number that can be addressed."""
    assert places(nested(FREEBSD, (0, 1000, 7), (0, 0, 0), (0, 1000, 0))) == [(1, 100, 1000)]
    without = read(disk_with((0, mbr_record(mbr_entry(FREEBSD, 100, 1000)))))
    assert places(without) == [(1, 100, 1000)]


def test_of_a_dangerously_dedicated_disk_the_label_counts() -> None:
    """Fails if the made-up entry of FreeBSD's boot code is taken for a partition."""
    record = mbr_record(b"", b"", b"", mbr_entry(FREEBSD, 0, 50000))
    table = read(disk_with((0, record), (512, bsd_label((16, 100, 7)))))
    assert (table.kind, places(table)) == ("bsd", [(1, 16, 100)])


def test_a_sun_label_counts_in_cylinders_and_its_third_slice_is_the_disk() -> None:
    """Fails if the length of a cylinder is not that of the label."""
    label = sun_label((0, 160, 2), (10, 320, 3), (0, 1600, 5), (30, 48, 0x83))
    label[142 + 4 + 2 + 1] = 0x01  # the flags of the second slice: not mountable
    label[510:512] = bytes(2)
    struct.pack_into("<H", label, 510, xor16(label))
    table = read(disk_with((0, label)))
    assert (table.kind, table.findings) == ("sun", ())
    assert places(table) == [(1, 0, 160), (2, 160, 320), (4, 480, 48)]
    assert table.partitions[1].flags == ("unmountable",)
    assert [item.code for item in table.partitions] == ["0x02", "0x03", "0x05", "0x83"]
    assert [item.index for item in table.partitions if item.is_container] == [3]


def test_a_sun_label_without_a_table_of_contents_has_slices_too() -> None:
    """Fails if labels of SunOS 4 are not read."""
    table = read(disk_with((0, sun_label((0, 160, 0), (10, 32, 0), (0, 192, 0), has_tags=False))))
    assert places(table) == [(1, 0, 160), (2, 160, 32)]
    assert table.findings == ()


def test_a_sun_label_with_a_wrong_checksum_is_none() -> None:
    """Fails if two bytes at the end of any sector make a table."""
    label = sun_label((0, 160, 2))
    label[0] ^= 1
    assert read_table(MemoryStorage(disk_with((0, label)))) is None


def test_a_slice_with_the_label_of_its_disk_is_no_disk() -> None:
    """Fails if ``#p1`` of a disk, or a copy of it, seems to have partitions that are cut off."""
    sun = disk_with((0, sun_label((0, 160, 2), (10, 320, 3), (0, 1600, 5))))
    first = open_partition(MemoryStorage(sun, name="disk"), 1)
    assert (first.size, read_table(first)) == (160 * SECTOR, None)
    label = bsd_label((100, 400, 7), (500, 600, 1), (100, 1000, 0))
    slices = disk_with((0, mbr_record(mbr_entry(FREEBSD, 100, 1000))), (101 * SECTOR, label))
    inner = open_partition(MemoryStorage(slices, name="disk"), 5)
    assert (inner.size, read_table(inner)) == (400 * SECTOR, None)


def test_of_several_tables_the_one_that_linux_takes_counts() -> None:
    """Fails if what is left of an old table hides the partitions that are in use."""
    apple = apm_disk(*MAP)
    with_mbr = bytearray(apple)
    with_mbr[446:512] = mbr_record(mbr_entry(0x83, 300, 10))[446:]
    assert [item.where for item in read(with_mbr).findings] == ["Apple partition map"]
    assert read(with_mbr).kind == "mbr"
    with_empty_mbr = bytearray(apple)
    with_empty_mbr[510:512] = b"\x55\xaa"
    assert read(with_empty_mbr).kind == "apm"
    with_gpt = gpt_disk()
    with_gpt[:2] = b"ER"
    assert read(with_gpt).kind == "gpt"


def test_what_a_hybrid_mbr_has_and_the_gpt_has_not_is_told() -> None:
    """Fails if a partition that only old systems see goes unmentioned."""
    disk = gpt_disk()
    same, alone, across = mbr_entry(7, 64, 64), mbr_entry(7, 300, 10), mbr_entry(7, 100, 64)
    protective = mbr_entry(0xEE, 1, 63)
    found = {}
    for name, entry in (("same", same), ("alone", alone), ("across", across)):
        disk[446:510] = (protective + entry).ljust(64, b"\0")
        found[name] = [item.severity for item in read(disk).findings]
    assert found == {
        "same": [Severity.INFO],
        "alone": [Severity.INFO, Severity.INFO],
        "across": [Severity.INFO, Severity.ERROR],
    }


def test_gaps_are_what_no_partition_has() -> None:
    """Fails if room in an extended partition is no gap, or what overlaps counts twice."""
    record = mbr_record(mbr_entry(0x83, 10, 20), mbr_entry(0x83, 20, 20), mbr_entry(5, 100, 100))
    logical = mbr_record(mbr_entry(0x83, 10, 20))
    found = describe(MemoryStorage(disk_with((0, record), (100 * 512, logical), size=512 * 300)))
    assert [(start // 512, length // 512) for start, length in found.gaps] == [
        (0, 10),
        (40, 70),
        (130, 170),
    ]
    assert found.to_json()["gaps"] == [
        {"start": start, "length": length} for start, length in found.gaps
    ]
    assert describe(MemoryStorage(bytes(MIB))).gaps == []


SEEDS = {
    "apm": bytes(apm_disk(*MAP)),
    "bsd": bytes(disk_with((512, bsd_label((16, 100, 7), (116, 84, 1), (0, 2048, 0))))),
    "nested": bytes(
        disk_with(
            (0, mbr_record(mbr_entry(FREEBSD, 100, 1000))),
            (101 * SECTOR, bsd_label((110, 20, 7), (150, 30, 1))),
        )
    ),
    "sun": bytes(disk_with((0, sun_label((0, 160, 2), (10, 320, 3))))),
}


@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_any_change_of_a_table_gives_a_table_or_none(kind: str) -> None:
    """Fails if a disk can make the readers raise, read too much, or describe nonsense."""
    dice = random.Random(kind)
    used = [at for at, byte in enumerate(SEEDS[kind]) if byte]
    for _ in range(300):
        disk = bytearray(SEEDS[kind])
        for _ in range(dice.randrange(1, 8)):
            disk[dice.choice(used) + dice.randrange(-3, 4)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
        counting = CountingStorage(MemoryStorage(disk))
        table = read_table(counting)
        assert counting.bytes_read <= TABLE_BYTES_MAX
        for item in table.partitions if table is not None else ():
            assert item.start >= 0
            assert item.length > 0
        json.dumps(describe(MemoryStorage(disk)).to_json())


@pytest.mark.parametrize("kind", sorted(SEEDS))
def test_a_bad_sector_beside_the_table_is_a_finding_at_most(kind: str) -> None:
    """Fails if a damaged disk cannot be described."""
    for sector in (1, 2, 8, 101):
        bad = [(sector * SECTOR, SECTOR)]
        found = describe(FaultyStorage(MemoryStorage(SEEDS[kind]), verbs=["read"], bad=bad))
        json.dumps(found.to_json())
