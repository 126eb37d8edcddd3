"""One source for many readers."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from imprint.filters.broadcast import AHEAD, BLOCK, Broadcast
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from imprint.filters.broadcast import View

BLOCKS = AHEAD + 40
CONTENT = random.Random(3).randbytes(BLOCK) * BLOCKS


def _started(view: View, upto: int, done: list[int]) -> threading.Thread:
    def work() -> None:
        buffer = memoryview(bytearray(BLOCK))
        for index in range(upto):
            view.readinto(buffer, index * BLOCK)
            done.append(index)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_all_readers_get_everything_and_nothing_is_read_twice() -> None:
    """Fails if a medium has to be read once for each target."""
    medium = BadMedium(MemoryStorage(CONTENT))
    broadcast = Broadcast(medium)
    views = [broadcast.view() for _ in range(3)]
    targets = [MemoryStorage(bytes(len(CONTENT))) for _ in views]

    def work(view: View, target: MemoryStorage) -> None:
        copy(view, target)
        view.close()

    threads = [
        threading.Thread(target=work, args=pair, daemon=True)
        for pair in zip(views, targets, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(bytes(target.content) == CONTENT for target in targets)
    assert len(medium.log) == BLOCKS


def test_a_fast_reader_waits_for_a_slow_one_and_for_nobody_who_has_left() -> None:
    """Fails if a slow target makes memory fill up, or a failed one stops the others."""
    broadcast = Broadcast(MemoryStorage(CONTENT))
    fast, slow = broadcast.view(), broadcast.view()
    done: list[int] = []
    thread = _started(fast, BLOCKS, done)
    thread.join(0.3)
    assert len(done) <= AHEAD + 1
    slow.readinto(memoryview(bytearray(10)), 5 * BLOCK - 5)
    thread.join(0.3)
    assert len(done) <= AHEAD + 6
    slow.close()
    thread.join(10)
    assert done == list(range(BLOCKS))
