"""Objects in memory: for tests, and for what need not last."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from imprint.objects.contract import MissingObjectError, ObjectExistsError, ObjectInfo
from imprint.objects.names import check_name, check_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class MemoryStore:
    """Objects that are gone with the process."""

    def __init__(self, name: str = "memory") -> None:
        self._name = name
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._name

    @property
    def latency_s(self) -> float:
        """None to speak of."""
        return 0.0

    def get(self, name: str) -> bytes:
        """All of an object."""
        with self._lock:
            found = self._objects.get(check_name(name))
        if found is None:
            raise MissingObjectError("there is no such object", name=f"{self._name}/{name}")
        return found[0]

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object."""
        return self.get(name)[offset : offset + length]

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object of a copy of the parts."""
        content = b"".join(parts)
        with self._lock:
            if check_name(name) in self._objects and only_new:
                raise ObjectExistsError("exists already", name=f"{self._name}/{name}")
            self._objects[name] = content, time.time()

    def delete(self, name: str) -> None:
        """Forget an object."""
        with self._lock:
            self._objects.pop(check_name(name), None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix, as they are now."""
        check_prefix(prefix)
        with self._lock:
            found = sorted(item for item in self._objects.items() if item[0].startswith(prefix))
        for name, (content, modified) in found:
            yield ObjectInfo(name, len(content), modified)

    def stat(self, name: str) -> ObjectInfo | None:
        """Size and age of one object."""
        with self._lock:
            found = self._objects.get(check_name(name))
        return None if found is None else ObjectInfo(name, len(found[0]), found[1])

    def close(self) -> None:
        """Nothing to give back; the objects stay."""
