"""What storages that can only be read have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError
from imprint.core.extent import Extent, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage


class ReadOnlyStorage:
    """The half of :class:`~imprint.core.contracts.Storage` that is all data and cannot change.

    The other half (``name``, ``size``, ``traits``, ``readinto``, ``close``) is the subclass's.
    """

    @property
    def name(self) -> str:
        """What errors call it."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """In bytes."""
        raise NotImplementedError

    @property
    def is_writable(self) -> bool:
        """It is not."""
        return False

    @property
    def stored_size(self) -> int:
        """As far as can be known: all of it."""
        return self.size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)  # type: ignore[arg-type]

    def write(self, data: memoryview, offset: int) -> None:
        """Refused."""
        raise self._refusal()

    def zero(self, offset: int, length: int) -> None:
        """Refused."""
        raise self._refusal()

    def resize(self, size: int) -> None:
        """Refused."""
        raise self._refusal()

    def can_offload(self, source: Storage) -> bool:
        """Never."""
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Refused."""
        raise self._refusal()

    def flush(self) -> None:
        """Nothing to flush."""

    def commit(self) -> None:
        """Nothing to commit."""

    def abort(self) -> None:
        """Nothing to remove."""

    def _refusal(self) -> RefusedError:
        return RefusedError("is being read and cannot be written", name=self.name)
