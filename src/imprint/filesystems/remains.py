"""What is left of files that are gone: behind the ends of files, and in free space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError
from imprint.filesystems.table import allocator
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.filesystems.tree import Entry


def slack(entry: Entry) -> tuple[tuple[int, int], ...]:
    """What the last extent of a file has behind its end: offset and length in the volume, in bytes.

    Nothing for files that are not plain: compressed, sparse, or kept within tables.
    """
    if not entry.is_plain:
        return ()
    position = 0
    for offset, length in entry.extents:
        if position < entry.size <= position + length:
            used = entry.size - position
            return ((offset + used, length - used),) if length > used else ()
        position += length
    return ()


def free_space(kind: str, volume: Source) -> Runs:
    """What a file system says to be free, in bytes of its volume.

    Args:
        kind: of the file system, as ``identify`` tells it.
        volume: all of it.

    Raises:
        UnsupportedFeatureError: if it cannot be told of the kind.
        CorruptImageError: if its structures contradict themselves.
        ReadError: if some of them cannot be read.
    """
    system = allocator(kind)
    if system is None:
        raise UnsupportedFeatureError(f"what is free in {kind} cannot be told", name=volume.name)
    return system.allocation(volume).used.complement(volume.size)


def joined(volume: Source, runs: Runs, *, name: str) -> Source:
    """Ranges of a volume one behind the other, as a disk that does not own the volume."""
    pieces: list[Piece] = []
    position = 0
    for start, length in runs:
        pieces.append(Piece(position, length, 0, start))
        position += length
    return Pieces(name, [volume], pieces)
