"""Threads that serve the requests of one connection which may take their time."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS_MAX: Final = 16
"""Of one connection: as deep as clients queue requests, as a rule."""

_TASKS_MAX: Final = 64


class Crew:
    """Starts threads as they are needed; takes no more work than it can remember."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = threading.Semaphore(_TASKS_MAX)
        self._lock = threading.Lock()
        self._open = 0
        self._threads = 0

    def submit(self, task: Callable[[], None]) -> None:
        """Have ``task`` done, which must not raise; waits while there is too much to do."""
        self._room.acquire()
        with self._lock:
            self._open += 1
            is_new = self._open > self._threads and self._threads < THREADS_MAX
            self._threads += is_new
        self._tasks.put(task)
        if is_new:
            # Daemons: a disk that does not answer must not keep the program from ending.
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more threads
                with self._lock:
                    self._threads -= 1
                    is_alone = not self._threads
                if is_alone:
                    self._do(self._tasks.get())

    def dismiss(self) -> None:
        """Wait until all is done, and let the threads end."""
        for _ in range(_TASKS_MAX):
            self._room.acquire()
        for _ in range(self._threads):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._do(task)

    def _do(self, task: Callable[[], None] | None) -> None:
        assert task is not None
        try:
            task()
        finally:
            with self._lock:
                self._open -= 1
            self._room.release()
