"""Work done ahead by threads: in order, bounded, and over when it is over."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 10.0


def crew() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("copy_")]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_results_come_in_the_order_of_the_items(workers: int, count: int) -> None:
    """A later window that is ready first would be written in the wrong place of a stream."""
    found = list(windowed(lambda n: n * n, range(count), workers=workers, window=2 * workers))
    assert found == [n * n for n in range(count)]
    assert not crew()


def test_no_more_items_are_taken_than_the_window_has() -> None:
    """Each has a buffer of a MiB: a fast disk must not fill the memory for a slow one."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with closing(windowed(str, items(), workers=2, window=4)) as results:
        for number, result in zip(range(1, 50), results, strict=False):
            assert result == str(number)
            assert taken <= number + 3


def test_a_failure_comes_where_its_result_would_have_come() -> None:
    """Everything before it is good, and has to be written before the copy gives up."""

    def work(n: int) -> int:
        if n >= 5:
            raise ValueError(f"item {n}")
        return n

    with closing(windowed(work, range(20), workers=2, window=6)) as results:
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="item 5"):
            next(results)
    assert not crew()


def test_a_failure_of_the_items_ends_the_threads_too() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no map")

    with pytest.raises(OSError, match="no map"):
        list(windowed(str, items(), workers=2, window=4))
    assert not crew()


def test_closing_waits_for_what_has_begun_and_begins_nothing_more() -> None:
    """A file must not be closed while a worker still reads it: its number may be another's."""
    begun: list[int] = []
    ended: list[int] = []
    go_on = threading.Event()
    both_begun = threading.Barrier(3)

    def work(n: int) -> int:
        begun.append(n)
        if n in (1, 2):
            both_begun.wait(WAIT_S)
            assert go_on.wait(WAIT_S)
        ended.append(n)
        return n

    results = windowed(work, range(100), workers=2, window=6)
    assert next(results) == 0
    both_begun.wait(WAIT_S)
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert sorted(begun) == sorted(ended)
    assert 3 <= len(begun) <= 6  # what was in the window; by then, usually, no more than three
    assert not crew()


def test_the_work_is_done_side_by_side() -> None:
    """Two windows that wait for each other are only possible if both are worked on."""
    together = threading.Barrier(2)
    found = list(windowed(lambda _: together.wait(WAIT_S) < 2, range(8), workers=2, window=4))
    assert found == [True] * 8
