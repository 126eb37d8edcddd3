"""A window shows a part of a source, and nothing else of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.contracts import Storage, Traits
from imprint.core.errors import FormatError, ReadError, TruncatedImageError
from imprint.core.extent import Extent, Kind
from imprint.core.image import Image
from imprint.filters.peek import Peek
from imprint.filters.window import Window
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage, FaultyStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.info import ImageInfo

SIZE = 4096
CONTENT = bytes(index * 7 % 251 for index in range(SIZE))


class PatchworkLayer:
    """A disk of runs of many kinds; encoded units of 100 bytes hold their own number."""

    traits = Traits(grain=512)
    size = SIZE

    def __init__(self, runs: list[tuple[Kind, int]], storage: Storage) -> None:
        self._runs = runs
        self._storage = storage

    def map(self, offset: int, length: int) -> Extent:
        start = 0
        for kind, size in [*self._runs, (Kind.HOLE, SIZE)]:
            end = start + size
            if offset < end:
                length = min(length, end - offset)
                storage = self._storage if kind in (Kind.DATA, Kind.ENCODED) else None
                place = offset if kind is Kind.DATA else 7 if kind is Kind.ENCODED else 0
                return Extent(offset, length, kind, storage, place)
            start = end
        raise AssertionError

    def unit(self, offset: int) -> Extent:
        start = offset // 100 * 100
        length = min(100, SIZE - start)
        return Extent(start, length, Kind.ENCODED, self._storage, start)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        buffer[:] = bytes([unit.offset // 100]) * unit.length

    def info(self) -> ImageInfo:
        raise NotImplementedError

    def close(self) -> None:
        self._storage.close()


runs = st.lists(st.tuples(st.sampled_from(Kind), st.integers(1, 900)), max_size=8)


@given(runs=runs, data=st.data())
def test_a_window_is_the_same_bytes_and_kinds_counted_from_its_start(
    runs: list[tuple[Kind, int]], data: st.DataObject
) -> None:
    """Fails if a partition shows its neighbour's bytes, or its map lies elsewhere."""
    image = Image(PatchworkLayer(runs, MemoryStorage(CONTENT)), name="disk")
    whole = image.read_at(0, SIZE)
    kinds = [extent.kind for extent in image.extents(0, SIZE) for _ in range(extent.length)]
    start = data.draw(st.integers(0, SIZE))
    length = data.draw(st.integers(0, SIZE - start))
    window = Window(image, start, length)
    offset = data.draw(st.integers(0, length))
    count = data.draw(st.integers(0, length - offset))

    buffer = bytearray(count)
    window.readinto(memoryview(buffer), offset)
    found = list(window.extents(offset, count))

    first = start + offset
    assert bytes(buffer) == whole[first : first + count]
    assert [e.kind for e in found for _ in range(e.length)] == kinds[first : first + count]
    position = offset
    for extent in found:
        assert extent.offset == position
        position = extent.end
        if extent.kind is Kind.DATA:
            assert extent.storage_offset == start + extent.offset
    assert position == offset + count


@pytest.mark.parametrize(("offset", "length"), [(-1, 10), (0, SIZE + 1), (SIZE, 1), (0, -1)])
def test_a_window_that_is_not_inside_its_source_is_refused(offset: int, length: int) -> None:
    """Fails if a partition of a disk that was cut off reads as if it were whole."""
    with pytest.raises(TruncatedImageError, match="inside the disk"):
        Window(MemoryStorage(CONTENT), offset, length, name="disk#p2")


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 101), (100, 1), (50, 51)])
def test_nothing_outside_of_a_window_can_be_read(offset: int, length: int) -> None:
    """Fails if a reader of one partition gets at the next one."""
    window = Window(MemoryStorage(CONTENT), 200, 100, name="disk#p2")

    with pytest.raises(ReadError, match="disk#p2"):
        window.readinto(memoryview(bytearray(length)), offset)
    with pytest.raises(ReadError, match="disk#p2"):
        list(window.extents(offset, length))


def test_a_window_can_be_put_into_a_window() -> None:
    """Fails if offsets are taken from the wrong disk."""
    outer = Window(MemoryStorage(CONTENT), 1000, 2000)
    inner = Window(outer, 500, 100)
    buffer = bytearray(100)

    inner.readinto(memoryview(buffer), 0)

    assert bytes(buffer) == CONTENT[1500:1600]


@pytest.mark.parametrize(
    ("offset", "grain"), [(0, 65536), (1 << 20, 65536), (63 * 512, 512), (4096, 4096)]
)
def test_the_grain_is_what_both_borders_share(offset: int, grain: int) -> None:
    """Fails if a copy is cut where no cluster of the image begins."""

    class Coarse(CountingStorage):
        traits = Traits(grain=65536, logical_sector=4096)

        @property
        def size(self) -> int:
            return 1 << 30

    window = Window(Coarse(), offset, 1 << 20)

    assert window.traits == Traits(grain=grain, logical_sector=4096)


def test_a_window_is_named_and_closes_what_it_owns() -> None:
    """Fails if a partition that was opened leaves its image's files open."""
    closed = []

    class Closing(MemoryStorage):
        def close(self) -> None:
            closed.append(self.name)

    with Window(Closing(CONTENT, name="disk"), 0, 10, name="disk#p1") as window:
        assert window.name == "disk#p1"
        assert Window(MemoryStorage(CONTENT, name="disk"), 0, 10).name == "disk"

    assert closed == ["disk"]


def test_many_threads_read_a_window_at_once() -> None:
    """Fails if a window has state that one reader takes from another."""
    window = Window(MemoryStorage(CONTENT), 96, 4000)

    def read(offset: int) -> bytes:
        buffer = bytearray(16)
        window.readinto(memoryview(buffer), offset)
        return bytes(buffer)

    offsets = range(0, 3984, 16)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, offsets))

    assert found == [CONTENT[96 + offset :][:16] for offset in offsets]


def ranges() -> Iterator[tuple[int, int]]:
    yield from ((0, 10), (90, 20), (100, 5), (10**30, 8), (-5, 10), (-(10**9), 3), (99, 0))


def test_a_peek_reads_zeros_where_there_is_no_disk() -> None:
    """Fails if a structure that points outside of the disk needs a check at each place."""
    peek = Peek(MemoryStorage(b"\xff" * 100), budget=1000)

    for offset, length in ranges():
        inside = max(0, min(length, 100 - offset)) if offset >= 0 else 0
        assert peek.read(offset, length) == b"\xff" * inside + bytes(length - inside)


def test_a_peek_stops_at_its_budget() -> None:
    """Fails if a disk can make a parser read more than was meant."""
    storage = CountingStorage(MemoryStorage(b"\xff" * 100))
    peek = Peek(storage, budget=25, head=10)

    assert [peek.read(0, 10), peek.read(10, 10)] == [b"\xff" * 10] * 2
    assert peek.read(20, 10) == bytes(10)
    assert peek.read(20, 5) == b"\xff" * 5
    assert peek.read(25, 1) == bytes(1)
    assert peek.read(3, 7) == b"\xff" * 7, "the head is kept"
    assert storage.bytes_read == 25


def test_a_bad_sector_in_the_head_costs_only_itself() -> None:
    """Fails if nothing of a disk is recognised because one of its first sectors is bad."""
    storage = FaultyStorage(MemoryStorage(b"\xff" * 4096), verbs=["read"], bad=[(512, 512)])
    peek = Peek(storage, budget=9999, head=4096)

    assert peek.read(1024, 4) == b"\xff" * 4
    with pytest.raises((ReadError, FormatError)):
        peek.read(600, 4)
