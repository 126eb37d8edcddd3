"""Sectors replaced in memory, and the checksum that structures carry."""

from __future__ import annotations

import random

import pytest

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import RefusedError, TruncatedImageError
from imprint.core.extent import Kind
from imprint.filters.overlay import OverlayStorage
from imprint.storage.memory import MemoryStorage


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_checksum_is_castagnolis(data: bytes, expected: int) -> None:
    """Fails if another CRC-32 is computed: the vectors are those of RFC 3720."""
    assert crc32c(data) == expected
    assert crc32c(data[10:], crc32c(memoryview(data)[:10])) == expected


def test_every_range_reads_through_the_replaced_sectors() -> None:
    """Fails if a border between replaced and not is off by one, or the end is another."""
    randomness = random.Random(1)
    below = randomness.randbytes(5 * 4096 + 100)
    sectors = {1: randomness.randbytes(4096), 5: randomness.randbytes(4096), 7: bytes(4096)}
    expected = bytearray(below.ljust(10 * 4096, b"\0"))
    for number, data in sectors.items():
        expected[number * 4096 : (number + 1) * 4096] = data
    storage = OverlayStorage(MemoryStorage(below), sectors, size=10 * 4096)
    assert storage.size == len(expected)
    for _ in range(200):
        offset = randomness.randrange(len(expected))
        length = randomness.randint(1, len(expected) - offset)
        buffer = bytearray(length)
        storage.readinto(memoryview(buffer), offset)
        assert buffer == expected[offset : offset + length]
        position = offset
        for extent in storage.extents(offset, length):
            assert extent.offset == position
            if extent.kind is Kind.HOLE:
                assert not any(expected[extent.offset : extent.end])
            else:
                assert extent.storage is storage
                assert extent.storage_offset == extent.offset
            position = extent.end
        assert position == offset + length


def test_nothing_is_written_through_it() -> None:
    """Fails if a replay in memory can reach the file."""
    storage = OverlayStorage(MemoryStorage(bytes(4096)), {0: b"\x01" * 4096})
    with pytest.raises(RefusedError):
        storage.write(memoryview(b"x"), 0)
    with pytest.raises(TruncatedImageError):
        storage.readinto(memoryview(bytearray(2)), 4095)
    assert not storage.is_writable
