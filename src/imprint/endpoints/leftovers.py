"""What lies where no file reaches: behind the ends of files, and in what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import TargetError, UnsupportedFeatureError
from imprint.core.system import reason_of
from imprint.endpoints.extracted_content import store
from imprint.filesystems.table import allocator
from imprint.filters.pieces import Piece, Pieces
from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.endpoints.extracted_content import Watcher
    from imprint.filesystems.tree import Entry


def used_of(volume: BrowsedVolume) -> Runs:
    """What the file system says to be in use, in bytes of the volume.

    Raises:
        UnsupportedFeatureError: if nothing knows that of such a file system.
        FormatError: if what it says makes no sense.
        ReadError: if it cannot be read.
    """
    system = None if volume.kind is None else allocator(volume.kind)
    if system is None:
        raise UnsupportedFeatureError(
            f"what is free in {volume.kind} is not known", name=volume.source.name
        )
    return system.allocation(volume.source).used


def unallocated(volume: BrowsedVolume) -> Source:
    """All blocks that the file system says to be free, one behind the other.

    Raises:
        ImagingError: as :func:`used_of` does.
    """
    free = used_of(volume).complement(volume.source.size)
    return _joined(volume, free, "unallocated")


def slack(volume: BrowsedVolume, entry: Entry) -> Source:
    """What lies in the last blocks of a file behind its end.

    Nothing of a file without blocks, with holes, or compressed: where it ends cannot be told.
    """
    parts = []
    left = entry.size
    for offset, length in entry.extents if entry.is_plain else ():
        skipped = min(left, length)
        left -= skipped
        if skipped < length:
            parts.append((offset + skipped, length - skipped))
    return _joined(volume, parts, "slack")


def store_unallocated(
    volume: BrowsedVolume, path: Path, watch: Watcher, *, force: bool
) -> tuple[int, list[tuple[int, int]]]:
    """Write what is free into a file: how many bytes, and which of them could not be read.

    Raises:
        RefusedError: if the file is there, and may not be replaced.
        TargetError: if it cannot be written.
        ImagingError: as :func:`used_of` does.
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


def _joined(volume: BrowsedVolume, runs: Iterable[tuple[int, int]], what: str) -> Source:
    """Parts of a volume, as far as they are in it."""
    size, pieces, position = volume.source.size, [], 0
    for start, length in runs:
        kept = min(start + length, size) - start
        if kept > 0:
            pieces.append(Piece(position, kept, 0, start))
            position += kept
    return Pieces(f"{volume.source.name}: {what}", [volume.source], pieces)
