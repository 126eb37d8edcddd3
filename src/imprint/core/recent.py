"""What was made lately and may be wanted again: a bounded number of bytes of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Key = TypeVar("Key", bound="Hashable")


class Recent(Generic[Key]):
    """Bytes by what they are, the least recently used forgotten first. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        """``bytes_max`` bounds all of them together, but for a single one that is larger."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._items: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> bytes | None:
        """What was put there, if it has not been forgotten."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: Key, content: bytes) -> None:
        """Keep it for a while."""
        with self._lock:
            self._bytes += len(content) - len(self._items.pop(key, b""))
            self._items[key] = content
            while self._bytes > self._bytes_max and len(self._items) > 1:
                self._bytes -= len(self._items.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._items.clear()
            self._bytes = 0
