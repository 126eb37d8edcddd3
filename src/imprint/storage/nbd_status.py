"""What a server has said of its export's allocation."""

from __future__ import annotations

import bisect
import itertools
import threading

from imprint.protocols.nbd.options import malformed


class StatusCache:
    """What the server said last, since it is asked for one run after the other."""

    def __init__(self) -> None:
        self._start = 0
        self._ends: list[int] = []
        self._flags: list[int] = []
        self._lock = threading.Lock()

    def at(self, offset: int) -> tuple[int, int] | None:
        """Where the run around ``offset`` ends, and its flags, if that is known."""
        with self._lock:
            index = bisect.bisect_right(self._ends, offset)
            if offset < self._start or index == len(self._ends):
                return None
            return self._ends[index], self._flags[index]

    def learn(
        self, start: int, runs: list[tuple[int, int]], size: int, offset: int
    ) -> tuple[int, int]:
        """Keep runs from ``start`` on; gives what :meth:`at` would of ``offset``.

        Raises:
            NetworkError: if nothing is said of that.
        """
        ends = [
            min(end, size) for end in itertools.accumulate((run[0] for run in runs), initial=start)
        ]
        with self._lock:
            self._start, self._ends = start, ends[1:]
            self._flags = [flags for _, flags in runs]
            index = bisect.bisect_right(self._ends, offset)
            if index == len(self._ends):
                raise malformed("block status of less than a block")
            return self._ends[index], self._flags[index]

    def forget(self) -> None:
        """It is not so any more."""
        with self._lock:
            self._ends, self._flags = [], []
