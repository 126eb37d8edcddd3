"""What lies where no file reaches: behind the ends of files, and in what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.filesystems.table import allocator
from imprint.filesystems.tree import note_of
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry

ORPHANS: Final = "$OrphanFiles"
"""The folder, made up by readers, of what was deleted and has no name any more."""


class Reuse:
    """Tells whether the place of a deleted file is another's by now."""

    def __init__(self, kind: str, volume: Source, notes: list[str]) -> None:
        """``kind`` is that of the file system; ``notes`` are those of the tree."""
        self._kind = kind
        self._volume = volume
        self._notes = notes
        self._used: Runs | None = None

    def judged(self, entry: Entry) -> Entry:
        """A deleted entry; its place may be another's although its inode is not."""
        if entry.is_allocated or not entry.extents:
            return entry
        if self._used is None:
            self._used = self._allocation()
        used = self._used
        is_taken = any(used.clip(start, start + length) for start, length in entry.extents)
        return entry._replace(is_allocated=is_taken)

    def _allocation(self) -> Runs:
        """What the file system uses, if that can be told."""
        system = allocator(self._kind)
        try:
            return Runs.of([]) if system is None else system.allocation(self._volume).used
        except (FormatError, ReadError) as failure:
            why = f"it is not known which blocks are in use again: {failure.args[0]}"
            self._notes.append(note_of("/", why))
            return Runs.of([])


def slack(entry: Entry) -> tuple[tuple[int, int], ...]:
    """What the blocks of a file have behind its end: offset and length in the volume, in bytes.

    Nothing of a file without blocks, with holes, or compressed: where it ends cannot be told.
    """
    found = []
    left = entry.size
    for offset, length in entry.extents if entry.is_plain else ():
        skipped = min(left, length)
        left -= skipped
        if skipped < length:
            found.append((offset + skipped, length - skipped))
    return tuple(found)


def free_space(kind: str | None, volume: Source) -> Runs:
    """What a file system says to be free, in bytes of its volume.

    Args:
        kind: of the file system, as ``identify`` tells it.
        volume: all of it.

    Raises:
        UnsupportedFeatureError: if nothing knows that of such a file system.
        CorruptImageError: if its structures contradict themselves.
        ReadError: if some of them cannot be read.
    """
    system = None if kind is None else allocator(kind)
    if system is None:
        raise UnsupportedFeatureError(f"what is free in {kind} is not known", name=volume.name)
    return system.allocation(volume).used.complement(volume.size)


def joined(volume: Source, runs: Iterable[tuple[int, int]], *, name: str) -> Source:
    """Ranges of a volume one behind the other, as far as they are in it; it stays its owner's."""
    pieces: list[Piece] = []
    position = 0
    for start, length in runs:
        kept = min(start + length, volume.size) - start
        if kept > 0:
            pieces.append(Piece(position, kept, 0, start))
            position += kept
    return Pieces(name, [volume], pieces)
