"""Hashers side by side: each in a thread of its own, all fed with the same buffers."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.buffers import ZEROS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_AHEAD: Final = 4
_AHEAD_BYTES: Final = 16 << 20
"""Buffers, or bytes if that is more, that may wait for the slowest hasher: enough that it does
not have to wait for a writer whose disk pauses."""

_AHEAD_MOST: Final = 16
"""Buffers that may wait, whatever their bytes: of a large one, a part may be all that is fed."""

_RANKED_AFTER: Final = 32
"""Buffers that show which hasher is the slowest."""

_NICENESS: Final = 10
_QUICK: Final = 0.9
"""Hashers that take less than this of the slowest one's time are made so much nicer: they would
wait for it anyway, and it gets a core whenever it can run."""


class Hasher(Protocol):
    """What ``hashlib`` and ``blake3`` have in common."""

    def update(self, data: memoryview, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""


def take_in(hasher: Hasher, data: memoryview | None, length: int) -> None:
    """Hash ``data``, or ``length`` zeros without any."""
    if data is not None:
        hasher.update(data)
        return
    zeros = memoryview(ZEROS)
    for start in range(0, length, len(ZEROS)):
        hasher.update(zeros[: length - start])


class Lanes:
    """One thread for each hasher. A buffer is given back when the last of them is done with it."""

    def __init__(self, hashers: Iterable[Hasher]) -> None:
        self._lanes = [_Lane(hasher) for hasher in hashers]
        self._waiting: deque[tuple[int, Callable[[], None] | None]] = deque()
        self._waiting_bytes = 0
        self._settled = 0

    def feed(
        self, data: memoryview | None, length: int, release: Callable[[], None] | None
    ) -> None:
        """Hand the next bytes to all lanes; ``release`` is called by this thread, some time.

        Raises:
            Exception: what a hasher has raised before.
        """
        for lane in self._lanes:
            lane.tasks.put((data, length))
        self._waiting.append((length, release))
        self._waiting_bytes += length
        while len(self._waiting) > _AHEAD and (
            self._waiting_bytes > _AHEAD_BYTES or len(self._waiting) > _AHEAD_MOST
        ):
            self._settle()

    def drain(self) -> None:
        """Wait until all that was fed is hashed.

        Raises:
            Exception: what a hasher has raised.
        """
        while self._waiting:
            self._settle()

    def close(self) -> None:
        """End the threads. Calling again changes nothing."""
        for lane in self._lanes:
            lane.tasks.put(None)
        for lane in self._lanes:
            lane.thread.join()
        self._lanes.clear()
        self._waiting.clear()

    def _settle(self) -> None:
        """Wait for the oldest buffer: each lane answers in the order in which it was fed."""
        errors = [lane.answers.get() for lane in self._lanes]
        length, release = self._waiting.popleft()
        self._waiting_bytes -= length
        if release is not None:
            release()
        for error in errors:
            if error is not None:
                raise error
        self._settled += 1
        if self._settled == _RANKED_AFTER:
            self._let_the_slowest_run()

    def _let_the_slowest_run(self) -> None:
        """Give way to it: on few cores the other hashers would take turns with it."""
        if sys.platform != "linux":
            return  # elsewhere only whole processes have a niceness
        slowest_s = max(lane.spent_s for lane in self._lanes)
        for lane in self._lanes:
            if lane.spent_s < _QUICK * slowest_s and lane.thread.native_id is not None:
                with suppress(OSError):
                    given = os.getpriority(os.PRIO_PROCESS, lane.thread.native_id)
                    os.setpriority(os.PRIO_PROCESS, lane.thread.native_id, given + _NICENESS)


class _Lane:
    """A hasher and its thread."""

    def __init__(self, hasher: Hasher) -> None:
        self.tasks: SimpleQueue[tuple[memoryview | None, int] | None] = SimpleQueue()
        self.answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self.spent_s = 0.0  # of processor time
        self._hasher = hasher
        # A daemon: a program that ends in the midst of a copy must not hang.
        self.thread = threading.Thread(target=self._serve, name="hash", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while (task := self.tasks.get()) is not None:
            try:
                take_in(self._hasher, *task)
            except BaseException as error:  # noqa: BLE001 - it is raised again, by the feeder
                self.answers.put(error)
            else:
                self.spent_s = time.thread_time()
                self.answers.put(None)
