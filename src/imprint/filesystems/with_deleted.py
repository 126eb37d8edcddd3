"""Readers of our own whose deleted names The Sleuth Kit tells: it numbers files as they do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError, ReadError
from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.tree import OwnTree, note_of

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
        self._refusal: str | None = None
        """Why the library is not asked."""
        self._is_refusal_noted = False

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; see :class:`~imprint.filesystems.tree.FileTree`.

        Raises:
            UnsupportedFeatureError: for deleted names, if the library is missing.
        """
        if not folder.is_deleted:
            yield from self._living(folder)
        if deleted and self._can_tell():
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

    def _can_tell(self) -> bool:
        """Whether the library makes anything of the volume; notes once why not."""
        if self._refusal is None:
            try:
                self._by_library()
            except (CorruptImageError, ReadError) as failure:
                self._refusal = str(failure.args[0])
        if self._refusal is not None and not self._is_refusal_noted:
            self._is_refusal_noted = True
            self.notes.append(note_of("/", f"deleted names are not told: {self._refusal}"))
        return self._refusal is None

    def _by_library(self) -> SleuthKit:
        if self._library is None:
            self._library = SleuthKit(self._volume, self._kind, self.notes)
        return self._library
