"""Iterating in a thread of its own, some steps ahead."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from imprint.transfer.ahead import ahead

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_items_come_in_order_and_no_more_than_allowed_are_made() -> None:
    """Fails if an item is lost, or the memory for those that wait is not bounded."""
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    taken: list[int] = []
    for number in ahead(items(), steps=3):
        taken.append(number)
        assert len(made) <= len(taken) + 5
    assert taken == list(range(50))


def test_an_error_surfaces_behind_the_items_before_it() -> None:
    """Fails if an error in the thread is lost, or hides what was made before."""

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    taken: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        taken.extend(number for number in ahead(items(), steps=9))
    found = ahead(items(), steps=9)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_closing_ends_the_thread() -> None:
    """Fails if who does not want the rest leaves a thread behind that goes on."""
    seen: list[threading.Thread] = []

    def items() -> Iterator[int]:
        seen.append(threading.current_thread())
        number = 0
        while True:
            yield number
            number += 1

    found = ahead(items(), steps=2)
    assert next(found) == 0
    found.close()
    assert not seen[0].is_alive()
