"""A volume of which some blocks are elsewhere: what is read, and what is said of it."""

from __future__ import annotations

import pytest

from imprint.core.errors import ReadError
from imprint.core.extent import Kind
from imprint.filesystems.ext.checksums import crc32
from imprint.filters.replayed import Replayed
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults

CONTENT = bytes(range(10)) * 10
"""Ten blocks of ten bytes, and block 9 is the journal's."""

EXPECTED = CONTENT[:10] + b"held here!" + CONTENT[20:50] + b"ab" + CONTENT[92:100] + CONTENT[60:]


def replayed(source: MemoryStorage | BadMedium) -> Replayed:
    return Replayed(source, 10, moved={5: 90, 1: 90}, begun={5: b"ab"}, held={1: b"held here!"})


def test_every_range_is_read_from_where_its_blocks_are() -> None:
    """Fails if a read that begins or ends within a block takes the wrong bytes."""
    volume = replayed(MemoryStorage(CONTENT))
    for start in range(100):
        for end in range(start, 101):
            buffer = bytearray(end - start)
            volume.readinto(memoryview(buffer), start)
            assert bytes(buffer) == EXPECTED[start:end], (start, end)


def test_what_was_replaced_is_never_read() -> None:
    """Fails if a sector that cannot be read costs a block of which there is a copy."""
    volume = replayed(BadMedium(MemoryStorage(CONTENT), Faults(bad=((10, 10), (50, 10)))))
    buffer = bytearray(100)
    volume.readinto(memoryview(buffer), 0)
    assert bytes(buffer) == EXPECTED


def test_what_was_replaced_is_not_said_to_lie_there() -> None:
    """Fails if somebody copies the old bytes from the place that an extent names."""
    volume = replayed(MemoryStorage(CONTENT))
    found = [(item.offset, item.length, item.kind) for item in volume.extents(0, 100)]
    expected = [
        (0, 10, Kind.DATA),
        (10, 10, Kind.ENCODED),
        (20, 30, Kind.DATA),
        (50, 10, Kind.ENCODED),
        (60, 40, Kind.DATA),
    ]
    assert found == expected
    assert [item.length for item in volume.extents(55, 10)] == [5, 5]


@pytest.mark.parametrize(("offset", "length"), [(95, 6), (-1, 2), (101, 0)])
def test_what_is_outside_is_refused(offset: int, length: int) -> None:
    """Fails if a place from a damaged table is read from somewhere else."""
    with pytest.raises(ReadError):
        replayed(MemoryStorage(CONTENT)).readinto(memoryview(bytearray(length)), offset)


def test_the_old_checksum_of_journals_is_that_of_the_catalogue() -> None:
    """Fails if journals of version 1 are refused that are sound: its name is CRC-32/MPEG-2."""
    assert crc32(b"123456789") == 0x0376E6E7
    assert crc32(b"6789", crc32(b"12345")) == 0x0376E6E7
