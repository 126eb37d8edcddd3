"""Hashers side by side: each in a thread of its own, all fed with the same buffers."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.buffers import ZEROS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_AHEAD: Final = 4
"""Buffers that may wait for the slowest hasher: enough that none has to wait for the writer."""


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
        self._waiting: deque[Callable[[], None] | None] = deque()

    def feed(
        self, data: memoryview | None, length: int, release: Callable[[], None] | None
    ) -> None:
        """Hand the next bytes to all lanes; ``release`` is called by this thread, some time.

        Raises:
            Exception: what a hasher has raised before.
        """
        for lane in self._lanes:
            lane.tasks.put((data, length))
        self._waiting.append(release)
        if len(self._waiting) > _AHEAD:
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
        release = self._waiting.popleft()
        if release is not None:
            release()
        for error in errors:
            if error is not None:
                raise error


class _Lane:
    """A hasher and its thread."""

    def __init__(self, hasher: Hasher) -> None:
        self.tasks: SimpleQueue[tuple[memoryview | None, int] | None] = SimpleQueue()
        self.answers: SimpleQueue[BaseException | None] = SimpleQueue()
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
                self.answers.put(None)
