"""The threads of one connection of the NBD server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from imprint.exports.nbd.crew import Crew

if TYPE_CHECKING:
    import pytest


def test_all_that_was_submitted_is_done_before_it_is_dismissed() -> None:
    """Fails if a reply that is due is never sent."""
    crew, done = Crew("test"), []
    for number in range(200):
        crew.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    crew.dismiss()
    assert sorted(done) == list(range(200))


def test_work_is_done_where_the_system_gives_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a request is lost then, and whoever waits for its end does so for ever."""

    def refuse(thread: threading.Thread) -> None:
        del thread
        raise RuntimeError("can't start new thread")

    crew, done = Crew("test"), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        crew.submit(lambda: done.append(1))
        crew.submit(lambda: done.append(2))
    crew.submit(lambda: done.append(3))
    crew.dismiss()
    assert sorted(done) == [1, 2, 3]
