"""The folders of HFS+, told by The Sleuth Kit, also of one in a wrapper of classic HFS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.filesystems.hfs_wrapper import unwrapped
from imprint.filesystems.sleuthkit import SleuthKit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry


class Wrapped(SleuthKit):
    """A file system behind the start of its volume; places are those of the volume."""

    def __init__(self, inside: Source, start: int) -> None:
        """``inside`` is what the wrapper has, ``start`` where that begins, in bytes.

        Raises:
            UnsupportedFeatureError: if the library is missing.
            CorruptImageError: if it makes nothing of the volume.
        """
        super().__init__(inside, "hfsplus")
        self._start = start

    def root(self) -> Entry:
        """The folder that holds all others."""
        return _moved(super().root(), self._start)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; see :class:`~imprint.filesystems.tree.FileTree`."""
        for entry in super().children(folder, deleted=deleted):
            yield _moved(entry, self._start)

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        return super().content(_moved(entry, -self._start), stream)


def _moved(entry: Entry, distance: int) -> Entry:
    return entry._replace(
        extents=tuple((offset + distance, length) for offset, length in entry.extents)
    )


def open_tree(volume: Source, kind: str) -> SleuthKit:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    inside, start = unwrapped(volume)
    return Wrapped(inside, start) if start else SleuthKit(volume, kind)
