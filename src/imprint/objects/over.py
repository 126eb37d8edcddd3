"""What all stores have in common that wrap another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.objects.contract import ObjectInfo, ObjectStore


class OverStore:
    """Passes on to another store, which it owns, what is not about the content of objects."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._inner.name

    @property
    def latency_s(self) -> float:
        """Of a request that is passed on."""
        return self._inner.latency_s

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._inner.delete(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix."""
        return self._inner.list(prefix)

    def stat(self, name: str) -> ObjectInfo | None:
        """What is known of one object."""
        return self._inner.stat(name)

    def close(self) -> None:
        """Close the other store."""
        self._inner.close()
