"""Overwriting a device as a whole, played on a storage in memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import (
    RefusedError,
    TargetError,
    TargetTooSmallError,
    TruncatedImageError,
)
from imprint.core.units import KIB, MIB
from imprint.storage.device_target import HELD_BYTES, DeviceTarget
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage, RecordingStorage

OLD = b"\xee"
SIZE = 3 * MIB + 512
TAIL = SIZE - HELD_BYTES


def _old(size: int = SIZE) -> MemoryStorage:
    return MemoryStorage(OLD * size)


def _read(target: DeviceTarget) -> bytes:
    buffer = bytearray(target.size)
    target.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def _new(size: int = SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_nothing_that_looks_like_a_disk_shows_before_commit() -> None:
    """Fails if a half-written disk could be taken for a whole one."""
    device, new = _old(), _new()
    target = DeviceTarget(device, SIZE)
    target.write(memoryview(new), 0)
    assert device.content[:HELD_BYTES] == bytes(HELD_BYTES)
    assert device.content[HELD_BYTES:TAIL] == new[HELD_BYTES:TAIL]
    assert device.content[TAIL:] == bytes(HELD_BYTES)
    target.commit()
    assert device.content == new


def test_the_old_tables_are_gone_before_the_first_new_byte() -> None:
    """Fails if a crash early on leaves the old partition table over new content."""
    device = RecordingStorage(OLD * SIZE)
    target = DeviceTarget(device, SIZE)
    target.write(memoryview(b"new"), MIB + 4096)
    verbs = [(operation.verb, operation.offset) for operation in device.operations]
    assert verbs == [("zero", 0), ("zero", TAIL), ("flush", 0), ("write", MIB + 4096)]


def test_opening_alone_changes_nothing() -> None:
    """Fails if a source that cannot be read costs the target its content."""
    device = RecordingStorage(OLD * SIZE)
    target = DeviceTarget(device, SIZE)
    target.write(memoryview(b""), 0)
    target.zero(5, 0)
    target.abort()
    assert device.operations == []


def test_abort_leaves_no_tables() -> None:
    """Fails if a disk that was given up half-way can be mistaken for one that works."""
    device = _old()
    target = DeviceTarget(device, SIZE)
    target.write(memoryview(_new()), 0)
    target.abort()
    target.abort()
    target.close()
    assert device.content[:HELD_BYTES] == bytes(HELD_BYTES)
    assert device.content[TAIL:] == bytes(HELD_BYTES)


def test_what_is_not_written_stays() -> None:
    """Fails if a copy that writes only what differs loses the table that was right already."""
    device = _old()
    target = DeviceTarget(device, SIZE)
    target.write(memoryview(b"new"), 2 * MIB)
    expected = bytearray(OLD * SIZE)
    expected[2 * MIB : 2 * MIB + 3] = b"new"
    assert _read(target) == expected
    target.commit()
    assert device.content == expected


@pytest.mark.parametrize(
    ("disk_size", "zeros_from"),
    [(MIB, TAIL), (TAIL, TAIL), (TAIL + 512, TAIL + 512), (SIZE, SIZE)],
)
def test_a_larger_device_keeps_no_old_backup_table(disk_size: int, zeros_from: int) -> None:
    """Fails if the last MiB still holds the GPT of the disk that is gone."""
    device, new = _old(), _new(disk_size)
    target = DeviceTarget(device, disk_size)
    assert target.size == disk_size
    target.write(memoryview(new), 0)
    target.commit()
    assert device.content[:disk_size] == new
    middle = max(disk_size, HELD_BYTES)
    assert device.content[middle:zeros_from] == OLD * (zeros_from - middle)
    assert device.content[zeros_from:] == bytes(SIZE - zeros_from)


@pytest.mark.parametrize("size", [512, 4096, 4608, MIB, MIB + 512, 1440 * KIB, 2 * MIB])
def test_small_devices_are_held_back_whole(size: int) -> None:
    """Fails if head and tail overlap, as on a floppy disk."""
    device, new = _old(size), _new(size)
    target = DeviceTarget(device, size)
    for start in range(0, size, 100_000):
        target.write(memoryview(new)[start : start + 100_000], start)
    assert device.content == bytes(size)
    assert _read(target) == new
    target.commit()
    assert device.content == new


@given(
    steps=st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([0, 1, 4095, MIB - 1, MIB, MIB + 1, TAIL - 1, TAIL, TAIL + 1]),
            st.integers(1, 2 * MIB + 1000),
        ),
        max_size=8,
    )
)
def test_it_behaves_as_a_plain_storage_does(steps: list[tuple[bool, int, int]]) -> None:
    """Fails if a write is split wrongly where held-back ranges begin and end."""
    device = _old()
    target = DeviceTarget(device, SIZE)
    expected = bytearray(OLD * SIZE)
    for index, (is_zero, offset, wanted) in enumerate(steps):
        length = min(wanted, SIZE - offset)
        data = bytes(length) if is_zero else _new(length, index)
        expected[offset : offset + length] = data
        if is_zero:
            target.zero(offset, length)
        else:
            target.write(memoryview(data), offset)
    assert _read(target) == expected
    target.commit()
    assert device.content == expected


def test_the_power_may_fail_at_any_moment() -> None:
    """Fails if there is an order of events after which a broken disk has its first sectors.

    Whenever the first 4 KiB are those of the new disk, all of it has to be there; and whenever
    they are those of the old one, all of that has.
    """
    old, new = OLD * SIZE, _new()
    device = RecordingStorage(old)
    target = DeviceTarget(device, SIZE)
    for start in range(0, SIZE, MIB):
        target.write(memoryview(new)[start : start + MIB], start)
    target.commit()
    whole = 0
    for _, crashed in device.crashes(random.Random(7), variants=3):
        content = bytes(crashed.content)
        if content[:4096] == new[:4096]:
            assert content == new
            whole += 1
        elif content[MIB:TAIL] != old[MIB:TAIL]:
            assert OLD * 16 not in content[:4096]
    assert whole


@pytest.mark.parametrize("fail_at", range(14))
def test_after_a_failure_no_table_is_left(fail_at: int) -> None:
    """Fails if a device that stops accepting writes during commit looks whole after abort."""
    inner = _old()
    faulty = FaultyStorage(inner, fail_at=fail_at, lasting=False, verbs=("write", "zero", "flush"))
    target = DeviceTarget(faulty, SIZE)
    try:
        target.write(memoryview(_new()), 0)
        target.flush()
        target.commit()
    except TargetError:
        target.abort()
        if fail_at:  # the first zeroing itself: then the body is untouched
            assert inner.content[:HELD_BYTES] == bytes(HELD_BYTES)
            assert inner.content[TAIL:] == bytes(HELD_BYTES)
    else:
        assert fail_at > 10
        assert inner.content == _new()


def test_abort_on_a_dead_device_is_quiet() -> None:
    """Fails if the error of the clean-up hides the one that led to it."""
    faulty = FaultyStorage(_old(), fail_at=4, verbs=("write", "zero", "flush"))
    target = DeviceTarget(faulty, SIZE)
    target.write(memoryview(_new(4096)), MIB)
    with pytest.raises(TargetError):
        target.write(memoryview(_new(4096)), MIB + 4096)
    target.abort()


def test_an_old_head_that_cannot_be_read_is_no_obstacle() -> None:
    """Fails if a disk with a bad first sector cannot be overwritten: that is what heals it."""
    inner = _old()
    target = DeviceTarget(FaultyStorage(inner, bad=[(0, 512)], verbs=["read"]), SIZE)
    target.write(memoryview(_new()), 0)
    target.commit()
    assert inner.content == _new()


def test_it_does_not_accept_more_than_fits() -> None:
    """Fails if a write behind the end of the disk reaches the device."""
    device = _old()
    target = DeviceTarget(device, 2 * MIB)
    with pytest.raises(TargetTooSmallError):
        target.write(memoryview(bytes(2)), 2 * MIB - 1)
    with pytest.raises(TargetTooSmallError):
        target.zero(2 * MIB, 1)
    with pytest.raises(TruncatedImageError):
        target.readinto(memoryview(bytearray(2)), 2 * MIB - 1)
    with pytest.raises(RefusedError):
        target.resize(MIB)
    target.resize(2 * MIB)
    target.abort()
    assert device.content == OLD * SIZE


def test_it_copies_from_other_storages() -> None:
    """Fails if copying across the border of what is held back misplaces bytes."""
    device, data = _old(), _new(2 * MIB + 300)
    target = DeviceTarget(device, SIZE)
    assert not target.can_offload(MemoryStorage(data))
    target.copy_range(MemoryStorage(data), 100, 70_000, 2 * MIB)
    target.copy_range(MemoryStorage(data), 0, 0, 0)
    target.commit()
    assert device.content[70_000 : 70_000 + 2 * MIB] == data[100 : 100 + 2 * MIB]


def test_it_says_what_it_is() -> None:
    """Fails if a writer would leave holes on a device, which are the old content."""
    target = DeviceTarget(_old(), 2 * MIB)
    assert not target.traits.reads_zero
    assert target.is_writable
    assert (target.size, target.device_size, target.stored_size) == (2 * MIB, SIZE, SIZE)
    assert [(part.offset, part.length) for part in target.extents(5, 7)] == [(5, 7)]
    assert list(target.extents(5, 0)) == []
    target.close()
