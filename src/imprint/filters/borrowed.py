"""A source as a storage that can only be read, for filters that stand over storages."""

from __future__ import annotations

from imprint.filters.over import OverSource
from imprint.filters.readonly import ReadOnlyStorage


class BorrowedStorage(OverSource, ReadOnlyStorage):
    """The bytes of a source that somebody else closes. As thread-safe as the source."""

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._source.readinto(buffer, offset)

    def close(self) -> None:
        """The source belongs to somebody else."""
