"""The helpers of tests: a judge that cannot find anything wrong is none."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.contracts import Reference
from imprint.core.errors import PassphraseError, ReadError, ReferenceRefusedError, TargetError
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.disks import writes
from imprint.testing.faults import FaultyStorage, RecordingStorage
from imprint.testing.format_faults import History, bounded_memory
from imprint.testing.opener import DictOpener


def recorded() -> RecordingStorage:
    """Two writes, a flush, two more."""
    storage = RecordingStorage(bytes(2048))
    storage.write(memoryview(b"A" * 512), 0)
    storage.write(memoryview(b"B" * 512), 512)
    storage.flush()
    storage.write(memoryview(b"C" * 1024), 0)
    storage.write(memoryview(b"D" * 512), 1536)
    return storage


def test_a_recording_replays_every_prefix() -> None:
    """Fails if a replay differs from what was done."""
    storage = recorded()
    assert storage.replay(0).content == bytes(2048)
    assert storage.replay(2).content == b"A" * 512 + b"B" * 512 + bytes(1024)
    assert storage.replay(5).content == storage.replay(99).content
    assert bytes(storage.replay(5).content[:1024]) == b"C" * 1024


def test_only_what_came_after_the_flush_can_be_lost() -> None:
    """Fails if a crash takes something back that had been flushed."""
    storage = recorded()
    assert storage.unflushed(5) == range(3, 5)
    assert storage.unflushed(3) == range(3, 3)
    assert storage.unflushed(2) == range(2)
    lost = storage.replay(5, dropped=storage.unflushed(5))
    assert lost.content == storage.replay(3).content
    seen = {bytes(disk.content) for count, disk in storage.crashes(random.Random(1)) if count == 5}
    for content in seen:
        assert content[1024:1536] == bytes(512)
        assert content[:512] in (b"A" * 512, b"C" * 512)
    assert len(seen) >= 3


def test_a_torn_write_tears_between_sectors() -> None:
    """Fails if a crash splits a sector, which disks do not."""
    storage = RecordingStorage(bytes(2048))
    storage.write(memoryview(b"x" * 1500), 100)
    for _, disk in storage.crashes(random.Random(2), variants=50):
        written = disk.content.count(b"x")
        assert written in (0, 412, 924, 1436, 1500)


def test_a_history_tells_legal_from_illegal() -> None:
    """Fails if a lost or invented sector passes for a legal outcome of a crash."""
    storage = RecordingStorage(bytes(1024))
    history = History(storage, bytes(1024))
    history.write(0, 512, 1)
    storage.write(memoryview(b"\1" * 512), 0)
    history.flushed()
    at = len(storage.operations)
    history.write(512, 512, 2)
    storage.write(memoryview(b"\2" * 512), 512)
    history.check(at, b"\1" * 512 + bytes(512))
    history.check(at + 1, b"\1" * 512 + b"\2" * 512)
    for wrong in (bytes(1024), b"\1" * 512 + b"\3" * 512, b"\1" * 512):
        with pytest.raises(AssertionError):
            history.check(at + 1, wrong)


def test_a_fault_comes_when_and_where_it_is_told_to() -> None:
    """Fails if an error is raised too early, too late, as the wrong kind, or not at all."""
    storage = FaultyStorage(MemoryStorage(bytes(4096)), fail_at=1, lasting=False)
    buffer = memoryview(bytearray(512))
    storage.readinto(buffer, 0)
    with pytest.raises(ReadError, match="input/output error"):
        storage.readinto(buffer, 0)
    storage.readinto(buffer, 0)
    bad = FaultyStorage(MemoryStorage(bytes(4096)), bad=[(1000, 10)], verbs={"read"})
    bad.readinto(buffer, 0)
    bad.write(buffer, 900)
    with pytest.raises(ReadError):
        bad.readinto(buffer, 1009)
    full = FaultyStorage(fail_at=0, code=errno.ENOSPC)
    with pytest.raises(TargetError, match="no space left"):
        full.write(buffer, 0)


def test_a_full_storage_does_not_grow() -> None:
    """Fails if a hostile size makes a test's storage allocate it."""
    storage = FaultyStorage(size_max=1000)
    storage.resize(1000)
    with pytest.raises(TargetError):
        storage.resize(1 << 60)
    with pytest.raises(TargetError):
        storage.zero(900, 200)
    assert storage.size == 1000


def test_too_much_memory_is_noticed() -> None:
    """Fails if an allocation beyond the limit succeeds, or the limit stays."""
    # More than other tests can have left free in this process.
    with bounded_memory(64 * MIB), pytest.raises(MemoryError):
        bytearray(16384 * MIB)
    assert len(bytearray(256 * MIB)) == 256 * MIB


def test_an_opener_gives_only_what_it_was_given() -> None:
    """Fails if a test's gate finds a parent that nobody gave it."""
    image = MemoryStorage(name="child.img")
    parent = MemoryStorage(b"x" * 512, name="a.img")
    opener = DictOpener(files={"a.img": parent, "b.vdi": image})
    assert opener.parent(Reference("a.img"), image).size == 512
    assert list(opener.siblings(image, ".img")) == [parent]
    assert list(opener.siblings(image, ".vdi")) == []
    assert opener.data_file(Reference("a.img"), image) is parent
    for call in (opener.parent, opener.data_file):
        with pytest.raises(ReferenceRefusedError):
            call(Reference("c.img"), image)
    with pytest.raises(PassphraseError):
        opener.passphrase("child.img")


@given(data=st.data(), size=st.integers(1, 5000), grain=st.sampled_from([1, 7, 512]))
def test_random_writes_lie_inside_the_disk(data: st.DataObject, size: int, grain: int) -> None:
    """Fails if a strategy draws a write that no disk could take."""
    size *= grain
    for offset, length, byte in data.draw(writes(size, grain=grain)):
        assert 0 <= offset < offset + length <= size
        assert offset % grain == length % grain == 0
        assert 1 <= byte <= 255


@pytest.mark.oracle("qemu-img")
def test_a_tool_that_fails_fails_the_test() -> None:
    """Fails if an oracle's error passes for agreement."""
    with pytest.raises(oracles.OracleError, match="exit code 1"):
        oracles.qemu_img("info", "/does/not/exist")
    assert oracles.qemu_img("info", "/does/not/exist", accept=(1,)).exit_code == 1
