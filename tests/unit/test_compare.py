"""Comparing disks: the first difference, whatever the maps look like."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.storage.memory import MemoryStorage
from imprint.transfer.compare import compare

MIB = 1 << 20


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 3 * MIB),
    where=st.floats(0, 1, exclude_max=True),
    extra=st.sampled_from([0, 0, 1, 511, MIB + 3]),
    workers=st.integers(1, 3),
)
def test_the_first_differing_byte_is_named(
    size: int, where: float, extra: int, workers: int
) -> None:
    """Fails if a difference is missed, or named at another offset."""
    first = bytearray(b"\x05" * size)
    second = bytearray(first)
    offset = int(size * where)
    second[offset] ^= 0x80
    second[-1] ^= 0x01 if offset != size - 1 else 0
    second += bytes(extra)
    found = compare(MemoryStorage(first), MemoryStorage(second), workers=workers)
    assert found.first_difference == offset
    assert not found.equal


def test_a_longer_disk_with_a_zero_tail_is_equal() -> None:
    """Fails if padding that a format demands makes two disks different."""
    found = compare(MemoryStorage(b"\x01" * 1000), MemoryStorage(b"\x01" * 1000 + bytes(24)))
    assert found.equal
    assert found.sizes == (1000, 1024)


def test_a_longer_disk_with_content_in_its_tail_differs_there() -> None:
    """Fails if what is behind the shorter disk's end is not looked at."""
    found = compare(MemoryStorage(b"\x01" * 1000), MemoryStorage(b"\x01" * 1000 + b"\0\0\x07"))
    assert found.first_difference == 1002
