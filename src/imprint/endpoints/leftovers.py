"""What lies where no file of a volume reaches, as disks and as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import TargetError
from imprint.core.system import reason_of
from imprint.endpoints.extracted_content import store
from imprint.filesystems import remains
from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.endpoints.extracted_content import Watcher
    from imprint.filesystems.tree import Entry


def unallocated(volume: BrowsedVolume) -> Source:
    """All blocks that the file system says to be free, one behind the other.

    Raises:
        ImagingError: as :func:`~imprint.filesystems.remains.free_space` does.
    """
    free = remains.free_space(volume.kind, volume.source)
    return remains.joined(volume.source, free, name=f"{volume.source.name}: unallocated")


def slack(volume: BrowsedVolume, entry: Entry) -> Source:
    """What lies in the last blocks of a file behind its end; nothing if that cannot be told."""
    found = remains.slack(entry)
    return remains.joined(volume.source, found, name=f"{volume.source.name}: slack")


def store_unallocated(
    volume: BrowsedVolume, path: Path, watch: Watcher, *, force: bool
) -> tuple[int, list[tuple[int, int]]]:
    """Write what is free into a file: how many bytes, and which of them could not be read.

    Raises:
        RefusedError: if the file is there, and may not be replaced.
        TargetError: if it cannot be written.
        ImagingError: as :func:`unallocated` does.
    """
    source = unallocated(volume)
    storage = PendingFile.create(path, may_replace=force)
    try:
        try:
            bad = store(source, storage.fileno(), watch)
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(path)) from failure
        storage.commit()
    finally:
        storage.abort()
    return source.size, bad
