"""Hashes that run side by side, and those of pieces."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.errors import UsageError
from imprint.storage.memory import MemoryStorage
from imprint.transfer.copy import copy
from imprint.transfer.hashing import HashSet, check_pieces
from imprint.transfer.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
NAMES = ("md5", "sha1", "sha256", "sha512")


def _expected(content: bytes) -> dict[str, str]:
    return {name: hashlib.new(name, content).hexdigest() for name in NAMES}


class _Slow:
    """Takes in bytes only when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.taken = bytearray()

    def update(self, data: memoryview, /) -> None:
        assert self.go.acquire(timeout=10)
        self.taken += data

    def hexdigest(self) -> str:
        return self.taken.hex()


class _Failing(_Slow):
    """A hasher that breaks."""

    def update(self, data: memoryview, /) -> None:
        raise MemoryError


def test_a_buffer_is_given_back_when_the_slowest_hasher_is_done_with_it() -> None:
    """Fails if a buffer may be filled anew while somebody still hashes what was in it."""
    fast, slow = hashlib.md5(), _Slow()
    lanes = Lanes([fast, slow])
    released: list[int] = []

    def release(number: int) -> Callable[[], None]:
        return lambda: released.append(number)

    # Said to be long: as many bytes as may wait are four buffers.
    for number in range(4):
        lanes.feed(memoryview(bytes([number])), 4 * MIB, release(number))
    assert released == []
    slow.go.release(2)
    lanes.feed(memoryview(b"\4"), 4 * MIB, release(4))
    assert released == [0]
    slow.go.release(3)
    lanes.drain()
    lanes.close()
    assert released == [0, 1, 2, 3, 4]
    assert slow.taken == bytes(range(5))
    assert fast.hexdigest() == hashlib.md5(bytes(range(5))).hexdigest()


def test_no_more_buffers_wait_because_only_a_little_of_each_is_fed() -> None:
    """Fails if a file in thousands of small pieces holds a buffer of megabytes for each."""
    slow = _Slow()
    lanes = Lanes([slow])
    released: list[int] = []
    slow.go.release(84)
    for _ in range(100):
        lanes.feed(memoryview(b"x"), 1, lambda: released.append(1))
    assert len(released) == 84
    slow.go.release(16)
    lanes.drain()
    lanes.close()
    assert len(released) == 100


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
def test_quick_hashers_give_way_to_the_slowest() -> None:
    """Fails if, on few cores, all hashes wait for one that has to take turns with them."""
    niceness: dict[str, int] = {}

    class _Busy(_Slow):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__()
            self._name, self._seconds = name, seconds

        def update(self, data: memoryview, /) -> None:
            end = time.thread_time() + self._seconds
            while time.thread_time() < end:
                pass
            niceness[self._name] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, 0)
    lanes = Lanes([_Busy("quick", 0.0002), _Busy("slow", 0.002)])
    for _ in range(50):
        lanes.feed(memoryview(b"x"), 4 * MIB, None)
    lanes.drain()
    lanes.close()
    assert niceness["slow"] == before
    assert niceness["quick"] == min(19, before + 10)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_an_error_of_a_hasher_comes_to_light() -> None:
    """Fails if a digest is given of which a part was not taken in."""
    lanes = Lanes([hashlib.md5(), _Failing()])
    lanes.feed(memoryview(b"x"), 1, None)
    with pytest.raises(MemoryError):
        lanes.drain()
    lanes.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_many_hashes_of_a_large_disk_are_those_of_its_content(workers: int) -> None:
    """Fails if threads of hashers see windows in another order, or others than were read."""
    content = random.Random(1).randbytes(11 * MIB) + bytes(3 * MIB) + b"end" * 100
    target = MemoryStorage(bytes(len(content)))
    before = set(threading.enumerate())
    report = copy(MemoryStorage(content), target, workers=workers, hashes=HashSet(NAMES))
    assert report.hashes == _expected(content)
    assert bytes(target.content) == content
    # Others' threads may end meanwhile: what counts is that none of the copy's is left.
    assert not set(threading.enumerate()) - before


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 5000), max_size=12),
    sectors=st.integers(1, 9),
    zeros=st.integers(0, 5000),
)
def test_pieces_are_hashed_as_if_they_were_files(cuts: list[int], sectors: int, zeros: int) -> None:
    """Fails if a piece begins or ends at another byte, however the content comes in."""
    content = random.Random(2).randbytes(sum(cuts))
    size = sectors * 512
    hashes = HashSet(NAMES, piece=size)
    done = 0
    for cut in cuts:
        hashes.feed(memoryview(content)[done : done + cut], cut)
        done += cut
    hashes.feed(None, zeros)
    content += bytes(zeros)
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    found = hashes.pieces()
    assert [piece.hashes for piece in found] == [_expected(piece) for piece in pieces]
    assert [piece.offset for piece in found] == [i * size for i in range(len(pieces))]
    assert [piece.length for piece in found] == [len(piece) for piece in pieces]
    assert hashes.digests() == _expected(content)


def test_pieces_have_a_sensible_size() -> None:
    """Fails if a list of pieces may be larger than memory."""
    check_pieces(512, 512 << 20)
    for piece, size in ((0, 0), (100, 0), (513, 0), (512, (512 << 20) + 1)):
        with pytest.raises(UsageError):
            check_pieces(piece, size)
