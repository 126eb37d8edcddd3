"""Contents of files as sources."""

from __future__ import annotations

import pytest

from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.extent import Kind
from imprint.filesystems.contents import OnDemand, Run, extents_of, held, mapped
from imprint.filesystems.remains import slack
from imprint.filesystems.tree import Entry, Type
from imprint.storage.memory import MemoryStorage

VOLUME = MemoryStorage(bytes(range(256)) * 16)


def content(runs: list[Run], size: int, valid: int | None = None) -> bytes:
    source = mapped(VOLUME, runs, size, name="file", valid=valid)
    buffer = bytearray(b"?" * size)
    source.readinto(memoryview(buffer), 0)
    extents = list(source.extents(0, size))
    assert sum(extent.length for extent in extents) == size
    for extent in extents:
        part = buffer[extent.offset : extent.end]
        if extent.kind is Kind.HOLE:
            assert not any(part)
        else:
            start = extent.storage_offset
            assert part == VOLUME.content[start : start + extent.length]
    return bytes(buffer)


def test_runs_are_put_together_and_gaps_are_holes() -> None:
    """Fails if a hole has bytes, or the last block is not cut."""
    raw = bytes(VOLUME.content)
    runs = [Run(0, 512, 100), Run(300, 0, 50)]
    assert content(runs, 400) == raw[512:612] + bytes(200) + raw[:50] + bytes(50)
    assert content(runs, 310) == raw[512:612] + bytes(200) + raw[:10]
    assert content([], 10) == bytes(10)
    assert content([], 0) == b""


def test_what_was_never_written_reads_as_zeros() -> None:
    """Fails if old bytes of others show behind the initialised size."""
    raw = bytes(VOLUME.content)
    assert content([Run(0, 512, 100)], 100, valid=30) == raw[512:542] + bytes(70)
    assert content([Run(0, 512, 100)], 100, valid=0) == bytes(100)


@pytest.mark.parametrize(
    "runs",
    [
        [Run(0, 4000, 100)],
        [Run(0, -1, 10)],
        [Run(0, 0, 50), Run(40, 50, 50)],
        [Run(-10, 0, 50)],
        [Run(0, 0, -1)],
        [Run(0, 1 << 70, 50)],
    ],
)
def test_runs_that_cannot_be_are_refused(runs: list[Run]) -> None:
    """Fails if a file is read from outside of its volume, or overlaps itself."""
    with pytest.raises(CorruptImageError):
        mapped(VOLUME, runs, 100, name="file")


def test_plain_entries_are_read_in_the_order_of_their_extents() -> None:
    """Fails if extents that are not of the content are read as well; slack is what is left."""
    entry = Entry("/f", 1, Type.FILE, 150, extents=((512, 100), (0, 100), (700, 9)), is_plain=True)
    assert list(extents_of(entry)) == [Run(0, 512, 100), Run(100, 0, 100)]
    assert slack(entry) == ((50, 50), (700, 9))  # what was reserved for it, too
    assert slack(entry._replace(size=209)) == ()
    assert slack(entry._replace(is_plain=False)) == ()


def test_bytes_on_demand_are_asked_for_in_bounded_pieces() -> None:
    """Fails if a large read is one question, or a short answer is taken for all."""
    asked: list[tuple[int, int]] = []

    def make(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return b"x" * length

    source = OnDemand("file", 3 << 20, make)
    buffer = bytearray((2 << 20) + 5)
    source.readinto(memoryview(buffer), 10)
    assert buffer == b"x" * len(buffer)
    assert asked == [(10, 1 << 20), (10 + (1 << 20), 1 << 20), (10 + (2 << 20), 5)]
    assert [extent.kind for extent in source.extents(0, 5)] == [Kind.ENCODED]
    with pytest.raises(ReadError):
        source.readinto(memoryview(buffer), 1 << 20)
    with pytest.raises(ReadError, match="expected 5 bytes, found 4"):
        OnDemand("file", 9, lambda _, length: b"y" * (length - 1)).readinto(
            memoryview(bytearray(5)), 0
        )
    small = bytearray(3)
    held("file", b"abcdef").readinto(memoryview(small), 2)
    assert small == b"cde"
