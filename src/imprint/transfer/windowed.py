"""The only concurrency of a copy: work done ahead, results in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")
R = TypeVar("R")


def windowed(
    work: Callable[[T], R], items: Iterable[T], *, workers: int, window: int
) -> Generator[R, None, None]:
    """Yield ``work(item)`` for each item, in order, at most ``window`` ahead.

    ``window`` bounds memory: no more than that many results exist at once. A failing call
    surfaces at its own position, after the results before it; an error from ``items``
    surfaces at once. Closing the generator cancels what has not started and waits for the
    rest. With one worker everything runs in the caller's thread.

    Raises:
        Exception: whatever ``work`` or iterating ``items`` raises.
    """
    assert 1 <= workers <= window
    if workers == 1:
        yield from map(work, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) == window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
