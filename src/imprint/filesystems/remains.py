"""What lies where no file reaches: behind the ends of files, and in what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError
from imprint.filesystems.table import allocator
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.filesystems.tree import Entry


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
