"""Disks put together from pieces, and disks of which a part counts, against bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.filters.pieces import Piece, Pieces
from imprint.filters.used import UsedOnly
from imprint.storage.memory import MemoryStorage

SIZE = 64
CONTENT = bytes(range(1, SIZE + 1))


def read(source: Pieces | UsedOnly, offset: int, length: int) -> bytes:
    buffer = bytearray(b"?" * length)
    source.readinto(memoryview(buffer), offset)
    return bytes(buffer)


def by_extents(source: Pieces | UsedOnly, offset: int, length: int) -> bytes:
    """What the map says that is there; fails if the extents do not cover the range exactly."""
    found, position = bytearray(), offset
    for extent in source.extents(offset, length):
        assert extent.offset == position
        position = extent.end
        data = bytearray(extent.length)
        if extent.kind is Kind.DATA:
            assert extent.storage is not None
            extent.storage.readinto(memoryview(data), extent.storage_offset)
        found += data
    assert position == offset + length
    return bytes(found)


ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))


@given(
    runs=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 9)), max_size=6),
    wanted=ranges,
)
def test_what_does_not_count_reads_as_zeros(
    runs: list[tuple[int, int]], wanted: tuple[int, int]
) -> None:
    """Fails if a byte that counts is lost, or a stale one comes through."""
    used = Runs.of(runs).clip(0, SIZE)
    disk = UsedOnly(MemoryStorage(CONTENT), used)
    expected = bytes(byte if used.covers(place, 1) else 0 for place, byte in enumerate(CONTENT))
    start, end = min(wanted), max(wanted)
    assert read(disk, start, end - start) == expected[start:end]
    assert by_extents(disk, start, end - start) == expected[start:end]


@given(
    parts=st.lists(
        st.tuples(st.sampled_from((None, 0, 1)), st.integers(0, SIZE - 9), st.integers(1, 9)),
        min_size=1,
        max_size=6,
    ),
    data=st.data(),
)
def test_pieces_are_read_where_they_are(
    parts: list[tuple[int | None, int, int]], data: st.DataObject
) -> None:
    """Fails if a piece comes from the wrong member or place, or a gap is not zeros."""
    members = (MemoryStorage(CONTENT), MemoryStorage(CONTENT[::-1]))
    contents = (CONTENT, CONTENT[::-1])
    pieces, expected = [], b""
    for member, place, length in parts:
        pieces.append(Piece(len(expected), length, member, place))
        expected += bytes(length) if member is None else contents[member][place : place + length]
    disk = Pieces("pieces", members, pieces)
    assert disk.size == len(expected)
    start = data.draw(st.integers(0, len(expected)))
    length = data.draw(st.integers(0, len(expected) - start))
    assert read(disk, start, length) == expected[start : start + length]
    assert by_extents(disk, start, length) == expected[start : start + length]
