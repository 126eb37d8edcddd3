"""A medium that fails as real ones do, and keeps a log of how it was read.

The same faults can be given to other programs: :func:`bad_map` is a map for ``ddrescue -H`` and for
the ``ddrescue`` filter of ``nbdkit``, which fail where its areas are not finished.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import ReadError
from imprint.core.runs import Runs
from imprint.testing.faults import WrappedStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imprint.core.contracts import Storage

SECTOR: Final = 512


@dataclass(frozen=True)
class Faults:
    """What is wrong with a medium; ranges are ``(offset, length)`` in bytes.

    Attributes:
        bad: never readable.
        weak: ranges by the number of the read that succeeds, counted from 1, each on its own.
        slow: ranges that take ``slow_s`` to read.
        slow_s: how long that is.
        hanging: ranges where a read does not come back until ``released`` is set.
        released: lets hanging reads go on.
        gone_after: reads after which the medium is gone; ``None``: it stays.
        code: what the system says of a medium that is gone.
    """

    bad: tuple[tuple[int, int], ...] = ()
    weak: Mapping[tuple[int, int], int] = field(default_factory=dict)
    slow: tuple[tuple[int, int], ...] = ()
    slow_s: float = 0.02
    hanging: tuple[tuple[int, int], ...] = ()
    released: threading.Event = field(default_factory=threading.Event)
    gone_after: int | None = None
    code: int = errno.ENXIO


class Read(NamedTuple):
    """One read, as the medium saw it."""

    offset: int
    length: int
    is_good: bool


class BadMedium(WrappedStorage):
    """A storage that fails. As thread-safe as the one that does the work.

    Attributes:
        log: all reads, in order.
    """

    def __init__(self, inner: Storage, faults: Faults | None = None) -> None:
        super().__init__(inner)
        self.faults = faults or Faults()
        self.log: list[Read] = []
        self._tries: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    @property
    def failing(self) -> list[Read]:
        """The reads that failed."""
        return [read for read in self.log if not read.is_good]

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Read, or fail."""
        faults, length = self.faults, len(buffer)
        if _touches(faults.hanging, offset, length):
            faults.released.wait()
        if _touches(faults.slow, offset, length):
            time.sleep(faults.slow_s)
        code = self._judge(offset, length)
        with self._lock:
            self.log.append(Read(offset, length, code is None))
        if code is not None:
            raise self._error(offset, length) from OSError(code, os.strerror(code))
        super().readinto(buffer, offset)

    def _judge(self, offset: int, length: int) -> int | None:
        """What the read fails with; ``None``: it succeeds."""
        faults = self.faults
        with self._lock:
            if faults.gone_after is not None and len(self.log) >= faults.gone_after:
                return faults.code
            is_bad = _touches(faults.bad, offset, length)
            for (start, size), good_at in faults.weak.items():
                if offset < start + size and start < offset + length:
                    tries = self._tries.get((start, size), 0) + 1
                    self._tries[start, size] = tries
                    is_bad = is_bad or tries < good_at
            return errno.EIO if is_bad else None

    def _error(self, offset: int, length: int) -> ReadError:
        return ReadError(
            f"cannot read at 0x{offset:x}", name=self.name, offset=offset, length=length
        )


def bad_map(size: int, bad: Iterable[tuple[int, int]]) -> str:
    """A map in which ``bad`` is bad and all else is finished."""
    runs = Runs.of(bad)
    parts = sorted(
        [(start, length, "-") for start, length in runs]
        + [(start, length, "+") for start, length in runs.complement(size)]
    )
    lines = [f"0x{start:X} 0x{length:X} {state}" for start, length, state in parts]
    return "\n".join(["0x0 + 1", *lines, ""])


def _touches(ranges: Iterable[tuple[int, int]], offset: int, length: int) -> bool:
    return any(offset < start + size and start < offset + length for start, size in ranges)
