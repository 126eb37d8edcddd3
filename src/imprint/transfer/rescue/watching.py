"""A medium as long as it is well: at the first sign that it is not, the copy gets an error."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError
from imprint.core.extent import Extent, Kind
from imprint.core.limits import SPAN_BYTES
from imprint.filters.over import OverSource
from imprint.transfer.rescue.reading import TimedReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source

_SLOW_S: Final = 5.0
_SLOW_FACTOR: Final = 8
"""A read of a window is slow if it takes so long, and so many times what the others took."""


class Watching(OverSource):
    """Passes all reads on, and remembers which have failed. As thread-safe as the source.

    Attributes:
        failed: ``(offset, length)`` of reads that failed.
        closing: what else is to be closed with it.
    """

    def __init__(
        self,
        source: Source,
        *,
        timeout_s: float | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        """``timeout_s`` is how long to wait for a read; ``None``: as long as the system does."""
        super().__init__(source)
        self.failed: list[tuple[int, int]] = []
        self.closing: list[Source] = []
        self._timeout_s = timeout_s
        self._cancel = cancel
        self._idle: list[TimedReader] = []
        self._lock = threading.Lock()
        self._reads = 0
        self._seconds = 0.0
        self._is_slow = False

    @property
    def source(self) -> Source:
        """The medium itself."""
        return self._source

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            ReadError: also if the read before has taken too long: time for another order.
        """
        if self._is_slow:
            raise ReadError("answers slowly", name=self.name, offset=offset, length=len(buffer))
        began = time.monotonic()
        try:
            if self._timeout_s is None:
                self._source.readinto(buffer, offset)
            else:
                self._read_in_time(buffer, offset)
        except ReadError:
            with self._lock:
                self.failed.append((offset, len(buffer)))
            raise
        self._note(time.monotonic() - began)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source; data is to be read from here, not from where it lies."""
        for extent in self._source.extents(offset, length):
            yield extent._replace(kind=Kind.ENCODED) if extent.kind is Kind.DATA else extent

    def close(self) -> None:
        """Close the source, and what depends on it."""
        for item in self.closing:
            item.close()
        for reader in self._idle:
            reader.close()
        self._source.close()

    def _read_in_time(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = TimedReader(
                self._source,
                bytes_max=SPAN_BYTES,
                timeout_s=self._timeout_s,
                cancel=self._cancel,
            )
        try:
            for start in range(0, len(buffer), SPAN_BYTES):
                piece = buffer[start : start + SPAN_BYTES]
                piece[:] = reader.read(offset + start, len(piece))
        finally:
            with self._lock:
                self._idle.append(reader)

    def _note(self, seconds: float) -> None:
        with self._lock:
            usual = self._seconds / self._reads if self._reads else 0.0
            if seconds > max(_SLOW_S, _SLOW_FACTOR * usual) and self._reads:
                self._is_slow = True
            self._reads += 1
            self._seconds += seconds
