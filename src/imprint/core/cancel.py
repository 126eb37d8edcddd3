"""Stopping an operation from outside."""

from __future__ import annotations

import threading

from imprint.core.errors import Cancelled


class CancelToken:
    """Set once, by a signal handler or another thread; tested once for each span."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask for the stop. Safe in a signal handler; calling again changes nothing."""
        self._event.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise if the stop was asked for.

        Raises:
            Cancelled: if :meth:`cancel` was called.
        """
        if self._event.is_set():
            raise Cancelled("interrupted")
