"""Disks fitted to other sizes and sectors: decided in memory, before anything is written."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.contracts import Traits
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    RefusedError,
    TargetError,
    TargetTooSmallError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Event, Finding, Severity
from imprint.core.extent import Kind
from imprint.core.units import KIB, MIB, TIB
from imprint.endpoints import tools
from imprint.endpoints.fitted import FittedSource
from imprint.endpoints.fitting import Fit, Room, plan_fitting
from imprint.storage.device_target import DeviceTarget
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import RecordingStorage
from imprint.testing.tables import (
    GPT_DISK_BYTES,
    SECTOR_BYTES,
    gpt_disk,
    gpt_entry,
    mbr_disk,
    mbr_entry,
    mbr_record,
    put_backup_gpt,
    put_gpt,
)
from imprint.transfer.copy import copy
from imprint.volumes import read_table
from imprint.volumes.changing import Patch

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.endpoints.fitting import Fitting
    from imprint.volumes import PartitionTable

LUKS = b"LUKS\xba\xbe\0\1"
"""The mark of something that stays as it is in a larger partition, so that no tool is run."""


def fitted(
    disk: bytes | bytearray, size: int, fit: Fit, *, sector_size: int | None = None
) -> tuple[Fitting, Source, list[Finding]]:
    events: list[Event] = []
    source = MemoryStorage(disk)
    fitting = plan_fitting(source, Room(size, sector_size or fit.sector_size), fit, events.append)
    findings = [event for event in events if isinstance(event, Finding)]
    return fitting, fitting.apply(source), findings


def content(source: Source) -> bytearray:
    buffer = bytearray(source.size)
    source.readinto(memoryview(buffer), 0)
    return buffer


def table_of(source: Source, sector_size: int | None = None) -> PartitionTable:
    table = read_table(source, sector_size=sector_size)
    assert table is not None
    assert table.findings == ()
    return table


def luks_disk() -> bytearray:
    """A GPT whose last partition holds something that can have a larger one."""
    disk = gpt_disk()
    disk[128 * SECTOR_BYTES : 128 * SECTOR_BYTES + len(LUKS)] = LUKS
    return disk


def luks_mbr(*, logical: bool) -> bytearray:
    """The last partition begins at sector 200 and has 100; a logical one is the second."""
    if not logical:
        disk = mbr_disk({0: mbr_record(mbr_entry(0x83, 64, 100), mbr_entry(0x83, 200, 100))})
    else:
        disk = mbr_disk(
            {
                0: mbr_record(mbr_entry(0x83, 1, 50), mbr_entry(0x05, 64, 236)),
                64: mbr_record(mbr_entry(0x83, 2, 50), mbr_entry(0x05, 128, 108)),
                192: mbr_record(mbr_entry(0x83, 8, 100)),
            }
        )
    disk[200 * SECTOR_BYTES : 200 * SECTOR_BYTES + len(LUKS)] = LUKS
    return disk


@settings(max_examples=60, deadline=None)
@given(
    old=st.integers(1, 40_000),
    size=st.integers(1, 40_000),
    places=st.lists(st.tuples(st.integers(0, 39_999), st.integers(1, 9000)), max_size=4),
)
def test_a_fitted_disk_is_the_old_one_with_its_patches(
    old: int, size: int, places: list[tuple[int, int]]
) -> None:
    """Fails if a byte of a restored disk is neither the image's nor one of the table's."""
    noise = random.Random(old * size)
    disk = noise.randbytes(old)
    patches = [
        Patch(start, noise.randbytes(min(length, size - start)))
        for start, length in places
        if start < size
    ]
    expected = bytearray(disk[:size].ljust(size, b"\0"))
    for start, data in patches:
        expected[start : start + len(data)] = data

    source = FittedSource(MemoryStorage(disk), size, patches)

    assert source.size == size
    assert content(source) == expected
    position = 0
    for extent in source.extents(0, size):
        assert extent.offset == position
        position = extent.end
        if extent.kind is Kind.HOLE:
            assert not any(expected[extent.offset : extent.end])
    assert position == size
    first, last = source.untouched
    assert first == last or first >= old


def test_a_gpt_grows_with_the_disk() -> None:
    """Fails if the backup is not in the last sectors, or the partition does not end before."""
    size = 5 * MIB
    fitting, source, findings = fitted(luks_disk(), size, Fit(grow=True))
    table = table_of(source)

    assert [(item.index, item.start, item.end) for item in table.partitions] == [
        (1, 64 * SECTOR_BYTES, 128 * SECTOR_BYTES),
        (3, 128 * SECTOR_BYTES, 4 * MIB),  # the next multiple before the backup's 33 sectors
    ]
    assert fitting.grown is not None
    assert fitting.grown.to_json() == {
        "partition": 3,
        "from": 65536,
        "to": 4 * MIB - 65536,
        "filesystem": None,
    }
    assert [item.where for item in findings] == ["partition 3"]
    disk = content(source)
    assert disk[size - 512 :][:8] == b"EFI PART"
    assert not any(disk[GPT_DISK_BYTES - 33 * 512 : size - 33 * 512])  # the old backup is gone
    assert int.from_bytes(disk[446 + 12 : 446 + 16], "little") == size // 512 - 1


@pytest.mark.parametrize("logical", [False, True])
def test_the_last_partition_of_an_mbr_grows_with_the_disk(logical: bool) -> None:
    """Fails if a size is left behind in one of the places that have it."""
    _, source, _ = fitted(luks_mbr(logical=logical), 7 * MIB, Fit(grow=True))
    table = table_of(source)

    last = table.partitions[-1]
    assert (last.start, last.end) == (200 * SECTOR_BYTES, 7 * MIB)
    disk = content(source)
    if logical:
        outer = table.find(2)
        assert outer is not None
        assert outer.end == 7 * MIB
        link = disk[64 * 512 + 446 + 16 + 8 : 64 * 512 + 446 + 32]
        assert int.from_bytes(link[:4], "little") == 128  # from where the extended one begins
        assert int.from_bytes(link[4:], "little") == 7 * MIB // 512 - 192


def test_an_mbr_ends_at_two_tib() -> None:
    """Fails if a sector number is written that 32 bits cannot hold."""
    _, source, findings = fitted(luks_mbr(logical=False), 3 * TIB, Fit(grow=True))
    last = table_of(source).partitions[-1]
    assert last.end == 2 * TIB - MIB  # 2 ** 32 - 1 sectors, and then a whole MiB
    assert any("cannot reach beyond" in item.what for item in findings)


def test_sectors_change_there_and_back() -> None:
    """Fails if a table in other sectors names other bytes, or leaves a part of the old one."""
    size = 4 * MIB
    disk = bytearray(size)
    entries = gpt_entry(2048, 4095, name="one").ljust(128 * 128, b"\0")
    last = size // 512 - 1
    put_gpt(disk, entries, other_lba=last)
    put_gpt(disk, entries, lba=last, other_lba=1, entries_lba=last - 32)
    disk[:512] = mbr_record(mbr_entry(0xEE, 1, last))
    disk[MIB : 2 * MIB] = random.Random(1).randbytes(MIB)

    _, large, findings = fitted(disk, size, Fit(sector_size=4096))
    table = table_of(large, 4096)
    assert [(item.start, item.end) for item in table.partitions] == [(MIB, 2 * MIB)]
    converted = content(large)
    assert converted[MIB : 2 * MIB] == disk[MIB : 2 * MIB]
    assert converted[4096:][:8] == converted[size - 4096 :][:8] == b"EFI PART"
    assert converted.count(b"EFI PART") == 2
    assert any("boot loaders" in item.what for item in findings)

    _, small, _ = fitted(converted, size, Fit(sector_size=512))
    assert [(item.start, item.end) for item in table_of(small, 512).partitions] == [(MIB, 2 * MIB)]
    assert content(small).count(b"EFI PART") == 2


def damaged() -> bytearray:
    disk = luks_disk()
    disk[GPT_DISK_BYTES - 400] ^= 1
    disk[GPT_DISK_BYTES - 500] ^= 1
    return disk


def hybrid() -> bytearray:
    disk = luks_disk()
    disk[:512] = mbr_record(mbr_entry(0xEE, 1, 63), mbr_entry(0x83, 64, 64))
    return disk


def loader() -> bytearray:
    disk = bytearray(luks_disk())
    disk[40 * 512] = 1
    return disk


def unaligned() -> bytearray:
    disk = bytearray(gpt_disk())
    entries = gpt_entry(129, 255).ljust(128 * 128, b"\0")
    put_gpt(disk, entries)
    put_backup_gpt(disk, entries)
    return disk


def swap() -> bytearray:
    disk = gpt_disk()
    at = 128 * 512 + 4096 - 10
    disk[at : at + 10] = b"SWAPSPACE2"
    disk[128 * 512 + 1024 : 128 * 512 + 1032] = b"\1\0\0\0\x0f\0\0\0"
    return disk


def behind() -> bytearray:
    """An extended partition without any in it is the last."""
    records = {
        0: mbr_record(mbr_entry(0x83, 64, 64), mbr_entry(0x05, 200, 100)),
        200: mbr_record(),
    }
    disk = mbr_disk(records)
    disk[64 * 512 : 64 * 512 + len(LUKS)] = LUKS
    return disk


GROW, SHRINK = Fit(grow=True), Fit(shrink=True)


@pytest.mark.parametrize(
    ("disk", "size", "fit", "error", "what"),
    [
        (damaged(), 4 * MIB, GROW, UnsupportedFeatureError, "sound partition table"),
        (hybrid(), 4 * MIB, GROW, UnsupportedFeatureError, "hybrid"),
        (swap(), 4 * MIB, GROW, UnsupportedFeatureError, "cannot be grown"),
        (gpt_disk(), 4 * MIB, GROW, UnsupportedFeatureError, "something unknown"),
        (luks_disk(), GPT_DISK_BYTES, GROW, RefusedError, "larger than the image"),
        (luks_disk(), 700 * KIB, GROW, TargetTooSmallError, "are needed"),
        (luks_disk(), GPT_DISK_BYTES + 4096, GROW, RefusedError, "expected room behind"),
        (bytes(MIB), 4 * MIB, GROW, UnsupportedFeatureError, "found none"),
        (behind(), 4 * MIB, GROW, UnsupportedFeatureError, "is not the last"),
        (luks_disk(), 4 * MIB + 100, GROW, UsageError, "sectors of 512"),
        (luks_disk(), 144 * KIB, SHRINK, TargetTooSmallError, "partition 3 ends at"),
        (luks_disk(), 20 * KIB, SHRINK, TargetTooSmallError, "are needed"),
        (luks_disk(), MIB, Fit(size=MIB), UsageError, "--size needs"),
        (loader(), MIB, Fit(sector_size=4096), UnsupportedFeatureError, "boot loader"),
        (unaligned(), MIB, Fit(sector_size=4096), UnsupportedFeatureError, "multiples of 4096"),
        (luks_mbr(logical=False), 4 * MIB, Fit(sector_size=4096), UnsupportedFeatureError, "MBR"),
    ],
)
def test_what_cannot_be_fitted_is_refused_at_once(
    disk: bytes, size: int, fit: Fit, error: type[ImagingError], what: str
) -> None:
    """Fails if the user learns of it when the target is lost."""
    with pytest.raises(error, match=what):
        fitted(disk, size, fit)


def test_a_disk_shrinks_to_what_its_partitions_need() -> None:
    """Fails if a table that just fits is refused, or one that does not is accepted."""
    needed = 256 * SECTOR_BYTES + 33 * SECTOR_BYTES
    _, source, findings = fitted(luks_disk(), needed, Fit(shrink=True))
    assert source.size == needed
    assert [item.end for item in table_of(source).partitions][-1] == 256 * SECTOR_BYTES
    assert "in no partition" in findings[0].what
    with pytest.raises(TargetTooSmallError):
        fitted(luks_disk(), needed - SECTOR_BYTES, Fit(shrink=True))


def test_without_being_asked_nothing_changes_but_a_warning_is_given() -> None:
    """Fails if a restore onto a larger disk is not byte by byte, or says nothing of the backup."""
    disk = luks_disk()
    fitting, source, findings = fitted(disk, 4 * MIB, Fit(), sector_size=512)
    assert (fitting.size, fitting.patches) == (GPT_DISK_BYTES, ())
    assert content(source) == disk
    assert [(item.severity, item.where) for item in findings] == [(Severity.WARNING, "backup GPT")]


def test_an_mbr_on_other_sectors_is_warned_of() -> None:
    """Fails if a disk that its new device cannot read is restored without a word."""
    disk = luks_mbr(logical=False)
    fitting, _, findings = fitted(disk, len(disk), Fit(), sector_size=4096)
    assert fitting.patches == ()
    assert ["will not be found" in item.what for item in findings] == [True]


def test_both_wishes_together_fit_any_size() -> None:
    """Fails if a script has to know which of the two it needs."""
    both = Fit(grow=True, shrink=True)
    disk = luks_disk()
    for size, is_grown in ((4 * MIB, True), (GPT_DISK_BYTES, False), (512 * KIB, False)):
        fitting, source, _ = fitted(disk, size, both)
        assert (source.size, fitting.grown is not None) == (size, is_grown)
        table_of(source)


class SectorStorage(RecordingStorage):
    """A recorded device with sectors."""

    @property
    def traits(self) -> Traits:
        return Traits(grain=4096)


def test_a_device_never_has_two_damaged_tables() -> None:
    """Fails if there is a moment at which a power cut leaves a GPT without a whole copy."""
    size = 4 * MIB
    device = SectorStorage(bytes(random.Random(2).randbytes(size)))
    _, source, _ = fitted(luks_disk(), size, Fit(grow=True))
    expected = table_of(source).partitions

    copy(source, DeviceTarget(device, size))

    seen = set()
    for _, state in device.crashes(random.Random(3)):
        table = read_table(state)
        if table is None:
            seen.add("none")
            continue
        whole = not any(item.severity is Severity.ERROR for item in table.findings)
        if whole:
            assert table.partitions == expected
            seen.add("whole")
        else:
            raise AssertionError(table.findings)
    assert seen == {"none", "whole"}


@settings(max_examples=150, deadline=None)
@given(
    logical=st.sampled_from([None, False, True]),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    size=st.integers(0, 6 * MIB),
    fit=st.sampled_from([GROW, SHRINK, Fit(sector_size=4096), Fit(grow=True, shrink=True)]),
)
def test_any_table_is_fitted_or_refused(
    logical: bool | None, damage: list[tuple[int, int]], size: int, fit: Fit
) -> None:
    """Fails if a table that lies ends in anything but a sound one, or an error of ours."""
    disk = luks_disk() if logical is None else luks_mbr(logical=logical)
    for at, value in damage:
        if at < 512 or logical is not None:
            disk[at] = value
    if logical is None and damage:
        at, value = damage[0]
        entries = bytearray(disk[1024 : 1024 + 128 * 128])
        entries[at % 512] = value
        lbas = {"entries_lba": 2 + value % 3}
        put_gpt(disk, entries, **lbas)
        put_backup_gpt(disk, entries)
    try:
        fitting, source, _ = fitted(disk, size - size % 512, fit)
    except ImagingError:
        return
    if fitting.patches:
        table = read_table(source, sector_size=fit.sector_size)
        assert table is not None
        assert not any(item.severity is Severity.ERROR for item in table.findings)


def test_a_program_that_fails_says_why() -> None:
    """Fails if a tool's failure passes, hangs, or hides what it said."""
    assert tools.find("no such program") is None
    with pytest.raises(TargetError, match="found none"):
        tools.run("no such program")
    with pytest.raises(TargetError, match=r"ended with 2: .*no-such-thing"):
        tools.run("ls", "/no-such-thing")
    with pytest.raises(TargetError, match=r"did not end in 0 s"):
        tools.run("sleep", "9", timeout_s=0.1)
    assert tools.run("cat", stdin=b"hello") == "hello"


def test_a_chain_that_was_changed_meanwhile_is_not_followed() -> None:
    """Fails if an entry is written that belongs to another partition."""
    from imprint.volumes import mbr_writing
    from imprint.volumes.changing import Change

    disk = luks_mbr(logical=True)
    table = read_table(MemoryStorage(disk))
    assert table is not None
    disk[64 * 512 : 65 * 512] = bytes(512)
    with pytest.raises(CorruptImageError, match="extended boot record"):
        mbr_writing.fit(MemoryStorage(disk), table, Change(4 * MIB, 512, 6, 4 * MIB))
