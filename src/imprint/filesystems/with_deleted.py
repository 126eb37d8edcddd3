"""Readers of our own whose deleted names The Sleuth Kit tells: it numbers files as they do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.tree import OwnTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry


class WithDeleted(OwnTree, ABC):
    """See :class:`~imprint.filesystems.tree.FileTree`. The library is started when it is needed."""

    def __init__(self, volume: Source, kind: str) -> None:
        """``kind`` is what ``identify`` tells of ``volume``."""
        super().__init__(volume)
        self._kind = kind
        self._library: SleuthKit | None = None

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; see :class:`~imprint.filesystems.tree.FileTree`.

        Raises:
            UnsupportedFeatureError: for deleted names, if the library is missing.
            CorruptImageError: for these, if it makes nothing of the volume.
        """
        if not folder.is_deleted:
            yield from self._living(folder)
        if deleted:
            for entry in self._by_library().children(folder, deleted=True):
                if entry.is_deleted or folder.is_deleted:
                    yield entry

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        if entry.is_deleted:
            return self._by_library().content(entry, stream)
        return self._living_content(entry, stream)

    def close(self) -> None:
        """End the library, if it was needed."""
        if self._library is not None:
            self._library.close()

    @abstractmethod
    def _living(self, folder: Entry) -> Iterator[Entry]:
        """What was not deleted in a folder."""

    @abstractmethod
    def _living_content(self, entry: Entry, stream: str | None) -> Source:
        """The bytes of a file that was not deleted."""

    def _by_library(self) -> SleuthKit:
        if self._library is None:
            self._library = SleuthKit(self._volume, self._kind, self.notes)
        return self._library
