"""What is left of a copy that does not come to its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from imprint.core.contracts import Resumable

if TYPE_CHECKING:
    from imprint.core.contracts import Target


class Journal(Protocol):
    """Remembers outside the target how far a copy has come."""

    def record(self, position: int) -> None:
        """All bytes below ``position`` are durable in the target. Atomic."""

    def discard(self) -> None:
        """The copy is over: nothing is left to resume."""


class Checkpoints:
    """Makes the target durable now and then, and decides what is left of a failure."""

    def __init__(
        self, target: Target, journal: Journal | None, start: int, interval_s: float
    ) -> None:
        self._target = target
        self._resumable = target if isinstance(target, Resumable) else None
        self._journal = journal
        self._interval_s = interval_s
        self._start = start
        self._kept = start
        self._last = time.monotonic()

    def reached(self, position: int) -> None:
        """Everything below ``position`` was handed to the target: keep it, if it is time to."""
        if time.monotonic() - self._last >= self._interval_s:
            self.keep(position)

    def keep(self, position: int) -> None:
        """Make everything below ``position`` durable, if the target can be resumed there."""
        if self._journal is None or self._resumable is None:
            return
        position = max(position, self._start)
        if position > self._kept:
            self._resumable.checkpoint()
            self._journal.record(position)
            self._kept = position
        self._last = time.monotonic()

    def hand_over(self) -> None:
        """Somebody else keeps account from now on of what is in the target."""
        self._kept = max(self._kept, 1)
        self._journal = None

    def give_up(self) -> None:
        """The copy failed: keep what can be resumed, remove what cannot."""
        if self._kept and self._resumable is not None:
            self._resumable.suspend()
            return
        self._target.abort()
        self.finish()

    def finish(self) -> None:
        """Nothing is left to resume."""
        if self._journal is not None:
            self._journal.discard()
