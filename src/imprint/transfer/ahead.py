"""An iteration that is some steps ahead of whoever takes its results."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")


def ahead(items: Iterable[T], *, steps: int) -> Generator[T, None, None]:
    """The same items, iterated in a thread of their own, at most ``steps`` ahead.

    Closing the generator waits until the step that is going on has ended.

    Raises:
        Exception: what the iteration raises, behind the items before it.
    """
    thread = _Ahead(items, steps)
    thread.start()
    try:
        while (item := thread.take()) is not None:
            yield from item
    finally:
        thread.stop()


class _Ahead(threading.Thread, Generic[T]):
    """Iterates; what it has got waits in a queue, each in a tuple."""

    def __init__(self, items: Iterable[T], steps: int) -> None:
        # A daemon: a program that ends without closing its generators must not hang.
        super().__init__(name="ahead", daemon=True)
        self._items = items
        self._room = threading.Semaphore(steps)
        self._queue: SimpleQueue[tuple[T] | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._is_stopped = False

    def run(self) -> None:
        try:
            for item in self._items:
                self._queue.put((item,))
                self._room.acquire()
                if self._is_stopped:
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again, in its place
            self._error = error
        self._queue.put(None)

    def take(self) -> tuple[T] | None:
        found = self._queue.get()
        if found is None and self._error is not None:
            raise self._error
        self._room.release()
        return found

    def stop(self) -> None:
        self._is_stopped = True
        self._room.release()
        self.join()
