"""Sector bitmaps: which sectors of a differencing block are its own.

The first sector is the highest bit of the first byte.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from imprint.core.limits import TABLE_CACHE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

_FULL: Final = 0xFF


def is_set(bitmap: bytes | bytearray, sector: int) -> bool:
    """Whether the block has that sector."""
    return bool(bitmap[sector >> 3] >> (7 - (sector & 7)) & 1)


def run(bitmap: bytes | bytearray, sector: int, limit: int) -> int:
    """How many sectors from ``sector`` on, at most ``limit``, are alike."""
    value = is_set(bitmap, sector)
    end = sector + limit
    at = sector + 1
    while at < end and at & 7:
        if is_set(bitmap, at) != value:
            return at - sector
        at += 1
    if at < end:
        rest = bytes(bitmap[at >> 3 : (end + 7) >> 3])
        # ``lstrip`` counts whole bytes in C.
        at += 8 * (len(rest) - len(rest.lstrip(b"\xff" if value else b"\0")))
    while at < end and is_set(bitmap, at) == value:
        at += 1
    return min(at, end) - sector


def mark(bitmap: bytearray, sector: int, count: int) -> None:
    """Set ``count`` bits."""
    end = sector + count
    first, last = (sector + 7) >> 3, end >> 3
    if first > last:  # inside one byte
        bitmap[last] |= (_FULL >> (sector & 7)) & ~(_FULL >> (end & 7)) & _FULL
        return
    if sector & 7:
        bitmap[first - 1] |= _FULL >> (sector & 7)
    bitmap[first:last] = b"\xff" * (last - first)
    if end & 7:
        bitmap[last] |= ~(_FULL >> (end & 7)) & _FULL


class BitmapCache:
    """Bitmaps that were read, the least recently used forgotten first. Thread-safe."""

    def __init__(self, bitmap_bytes: int, load: Callable[[int], bytes]) -> None:
        self._count_max = max(1, TABLE_CACHE_BYTES // 4 // bitmap_bytes)
        self._load = load
        self._bitmaps: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, index: int) -> bytes:
        """The bitmap of a block that is present."""
        with self._lock:
            found = self._bitmaps.get(index)
            if found is not None:
                self._bitmaps.move_to_end(index)
                return found
        found = self._load(index)
        with self._lock:
            self._bitmaps[index] = found
            if len(self._bitmaps) > self._count_max:
                self._bitmaps.popitem(last=False)
        return found

    def forget(self, index: int) -> None:
        """The block's bitmap is another one now."""
        with self._lock:
            self._bitmaps.pop(index, None)
