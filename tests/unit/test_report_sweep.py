"""Hashing many files in one pass, against hashes of the same bytes put together by hand."""

from __future__ import annotations

import hashlib
import random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled
from imprint.core.events import Event, Progress, ignore
from imprint.endpoints.report import sweeping
from imprint.endpoints.report.gathering import HOLE
from imprint.endpoints.report.results import DONE, FAILED, WANTED, Results
from imprint.endpoints.report.sweeping import WINDOW_BYTES, Sweep
from imprint.filesystems.contents import held
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage, WrappedStorage

Parts = list[tuple[int, int]]

SIZE: Final = 3 * WINDOW_BYTES
NOISE: Final = random.Random(11).randbytes(SIZE)


def content_of(parts: Parts) -> bytes:
    return b"".join(
        bytes(length) if start == HOLE else NOISE[start : start + length] for start, length in parts
    )


def digests_of(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest() + hashlib.sha256(content).digest()


def swept(volume: WrappedStorage, files: list[Parts], workers: int = 2) -> Results:
    results = Results(("md5", "sha256"))
    numbers = [results.add(WANTED) for _ in files]
    results.close()
    sweep = Sweep(volume, results, workers=workers)
    for number, parts in zip(numbers, files, strict=True):
        sweep.add_parts(number, parts)
    sweep.run(ignore, CancelToken())
    return results


class Counting(WrappedStorage):
    """Notes what was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(MemoryStorage(data))
        self.reads: list[tuple[int, int]] = []

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """As the inner storage."""
        self.reads.append((offset, len(buffer)))
        super().readinto(buffer, offset)


_PART = st.one_of(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 70_000)),
    st.tuples(st.just(HOLE), st.integers(1, 70_000)),
    st.tuples(st.integers(0, 9), st.integers(WINDOW_BYTES - 2, 2 * WINDOW_BYTES + 3)),
)


@settings(max_examples=25)
@given(files=st.lists(st.lists(_PART, min_size=1, max_size=5), max_size=12))
def test_every_file_has_the_hashes_of_its_bytes(files: list[Parts]) -> None:
    """Fails if parts of a file are hashed in another order, twice, or not at all.

    Files overlap, lie backwards, have holes in front, within and behind, and are longer than
    what is read at once.
    """
    cut = [
        [(start, length if start == HOLE else min(length, SIZE - start)) for start, length in parts]
        for parts in files
    ]
    results = swept(Counting(NOISE), cut)
    for number, parts in enumerate(cut):
        assert results.states[number] == DONE
        assert results.row(number) == digests_of(content_of(parts))


def test_what_is_in_order_is_read_once_and_in_order() -> None:
    """Fails if the disk is read back and forth, or a byte of it twice."""
    noise = random.Random(2)
    files: list[Parts] = []
    position = 0
    while position + 2 * WINDOW_BYTES < SIZE:
        length = noise.choice((100, 4096, 30_000))
        files.append([(position, length), (position + WINDOW_BYTES, 50)])
        position += length
    noise.shuffle(files)
    volume = Counting(NOISE)
    results = swept(volume, files, workers=1)
    assert set(results.states) == {DONE}
    ends = [0, *(offset + length for offset, length in volume.reads)]
    assert all(offset >= end for (offset, _), end in zip(volume.reads, ends, strict=False))


@pytest.mark.parametrize("workers", [1, 2])
def test_too_many_unfinished_files_are_read_by_themselves(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Fails if the number of open hashers is not bounded, or what is not opened is lost."""
    monkeypatch.setattr(sweeping, "OPEN_MAX", 3)
    files: list[Parts] = [
        [(number * 10, 10), (SIZE - 1000 + number * 10, 10)] for number in range(20)
    ]
    results = swept(Counting(NOISE), files, workers)
    assert [results.row(number) for number in range(20)] == [
        digests_of(content_of(parts)) for parts in files
    ]


def test_a_bad_area_costs_the_files_in_it_and_no_others() -> None:
    """Fails if a file that can be read is given up, or one that cannot be read has hashes."""
    volume = FaultyStorage(MemoryStorage(NOISE), bad=[(5000, 512)], verbs=("read",))
    files: list[Parts] = [
        [(0, 5000)],
        [(4900, 200)],
        [(5600, 400)],
        [(6000, 100), (WINDOW_BYTES + 7, 100)],
        [(5100, 100), (WINDOW_BYTES + 200, 100)],
        [(WINDOW_BYTES, 300), (5300, 100)],
    ]
    results = swept(volume, files)
    assert list(results.states) == [DONE, FAILED, DONE, DONE, FAILED, FAILED]
    assert set(results.errors) == {1, 4, 5}
    for number in (0, 2, 3):
        assert results.row(number) == digests_of(content_of(files[number]))


def test_places_outside_of_the_volume_cost_only_their_file() -> None:
    """Fails if a file that lies nowhere ends the report."""
    files: list[Parts] = [
        [(SIZE + 10, 10)],
        [(SIZE - 10, 20)],
        [(SIZE + 10, 10), (0, 10)],
        [(5, 10), (SIZE - 5, 50)],
        [(0, 20)],
    ]
    results = swept(Counting(NOISE), files)
    assert list(results.states) == [FAILED, FAILED, FAILED, FAILED, DONE]


def test_contents_that_are_made_are_hashed_too() -> None:
    """Fails if what does not lie on the volume is left out."""
    results = Results(("md5", "sha256"))
    numbers = [results.add(WANTED) for _ in range(5)]
    results.close()
    sweep = Sweep(Counting(NOISE), results, workers=2)
    for number in numbers:
        sweep.add_content(number, held("it", b"x" * number * 1000))
    told: list[Event] = []
    sweep.run(told.append, CancelToken())
    assert [results.row(number) for number in numbers] == [
        digests_of(b"x" * number * 1000) for number in numbers
    ]
    last = told[-1]
    assert isinstance(last, Progress)
    assert last.done == last.total == 10_000


def test_it_can_be_stopped() -> None:
    """Fails if Ctrl-C has to wait for the whole disk."""
    results = Results(("md5",))
    number = results.add(WANTED)
    results.close()
    sweep = Sweep(Counting(NOISE), results, workers=2)
    sweep.add_plain(number, 0, SIZE)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        sweep.run(ignore, cancel)
    assert results.states[number] == WANTED
