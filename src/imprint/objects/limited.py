"""A place that is not given more than a share of the line."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from imprint.objects.over import OverStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.objects.contract import ObjectStore

_BURST_S = 1.0  # what was not used so long may be used at once


class Bucket:
    """How many bytes may pass: so many in a second, whoever asks."""

    def __init__(self, rate: int) -> None:
        """``rate`` in bytes per second."""
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic() - _BURST_S  # when all that was taken is paid for

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may have passed."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _BURST_S) + count / self._rate
            wait_s = self._free_at - now
        if wait_s > 0:
            time.sleep(wait_s)


class LimitedStore(OverStore):
    """A place to and from which bytes flow at limited rates.

    The rates hold on average: an object travels at once, and is waited for before it is sent,
    or behind it when it came.
    """

    def __init__(
        self, inner: ObjectStore, *, upload: int | None = None, download: int | None = None
    ) -> None:
        """Takes over ``inner``.

        Args:
            inner: the place.
            upload: bytes per second; ``None``: no limit.
            download: bytes per second; ``None``: no limit.
        """
        super().__init__(inner)
        self._upload = Bucket(upload) if upload else None
        self._download = Bucket(download) if download else None

    def get(self, name: str) -> bytes:
        """All of an object."""
        return self._received(self._inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object."""
        return self._received(self._inner.get_range(name, offset, length))

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object."""
        if self._upload is not None:
            self._upload.take(sum(map(len, parts)))
        self._inner.put(name, parts, only_new=only_new)

    def _received(self, data: bytes) -> bytes:
        if self._download is not None:
            self._download.take(len(data))
        return data
