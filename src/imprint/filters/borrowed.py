"""A source as a storage that can only be read, for filters that stand over storages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.filters.readonly import ReadOnlyStorage

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Traits


class BorrowedStorage(ReadOnlyStorage):
    """The bytes of a source that somebody else closes. As thread-safe as the source."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """Of the source."""
        return self._source.name

    @property
    def size(self) -> int:
        """Of the source."""
        return self._source.size

    @property
    def traits(self) -> Traits:
        """Of the source."""
        return self._source.traits

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._source.readinto(buffer, offset)

    def close(self) -> None:
        """The source belongs to somebody else."""
