"""Contents of files as sources."""

from __future__ import annotations

import pytest

from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.filesystems.contents import OnDemand, Run, extents_of, held, mapped
from imprint.filesystems.remains import slack
from imprint.filesystems.tree import Entry, Type
from imprint.filters.cutoff import filled_up, present
from imprint.filters.mapped import Mapped
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
        [Run(0, 4096, 100)],
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


def test_what_lies_behind_the_end_of_the_volume_is_bad() -> None:
    """Fails if a file is refused of which only the end is missing, or it is taken for zeros."""
    source = mapped(VOLUME, [Run(0, 0, 50), Run(50, 4000, 200), Run(300, 9000, 50)], 350, name="f")
    assert [(item.offset, item.length, item.kind) for item in source.extents(0, 350)] == [
        (0, 50, Kind.DATA),
        (50, 96, Kind.DATA),
        (146, 104, Kind.BAD),
        (250, 50, Kind.HOLE),
        (300, 50, Kind.BAD),
    ]
    buffer = bytearray(146)
    source.readinto(memoryview(buffer), 0)
    assert buffer == bytes(VOLUME.content[:50]) + bytes(VOLUME.content[4000:4096])
    with pytest.raises(ReadError, match="volume's 4096 bytes, found 0xfa0"):
        source.readinto(memoryview(buffer), 1)


@pytest.mark.parametrize(
    ("kept", "bad", "expected"),
    [(100, [], 100), (60, [], 60), (0, [], 0), (100, [(20, 10)], 100), (60, [(20, 10)], 60)],
)
def test_what_is_present_ends_where_only_bad_is_left(
    kept: int, bad: list[tuple[int, int]], expected: int
) -> None:
    """Fails if a bad area in the middle is taken for the end of a disk."""
    disk = Mapped(MemoryStorage(bytes(kept)), Runs.of(bad))
    assert present(filled_up(disk, 100, name="disk")) == expected


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
