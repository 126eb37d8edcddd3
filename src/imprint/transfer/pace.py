"""Progress, told at a pace that a terminal can follow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from imprint.core.events import Progress

if TYPE_CHECKING:
    from imprint.core.events import OnEvent

INTERVAL_S: Final = 0.1


class Pace:
    """Reports progress, at most ten times a second."""

    def __init__(self, total: int, phase: str, on_event: OnEvent) -> None:
        self._total = total
        self._phase = phase
        self._on_event = on_event
        self._last = 0.0

    def tell(self, done: int, moved: int, *, bad: int = 0, force: bool = False) -> None:
        """Report, if it is time to."""
        now = time.monotonic()
        if force or now - self._last >= INTERVAL_S:
            self._last = now
            self._on_event(Progress(self._phase, done, self._total, moved, bad))
