"""Where the bytes of a volume lie on the disk, through partitions and volume groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.endpoints.report.gathering import HOLE
from imprint.filters.pieces import Pieces
from imprint.filters.replayed import Replayed
from imprint.filters.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source
    from imprint.endpoints.report.records import Places


def places_of(volume: Source, disk: Source) -> Places | int | None:
    """A distance, if all of the volume is in one piece; else a function that tells.

    It gives, of an offset and a length in the volume, offsets and lengths on the disk, in bytes;
    for what nothing holds, ``HOLE`` for an offset. ``None``: the disk has the bytes in another
    form, as where it is encrypted.
    """
    if volume is disk:
        return 0
    if isinstance(volume, Window):
        below = places_of(volume.source, disk)
        start = volume.start
        if below is None or isinstance(below, int):
            return None if below is None else below + start
        found = below
        return lambda offset, length: found(offset + start, length)
    if isinstance(volume, Pieces):
        return _through(volume, disk)
    if isinstance(volume, Replayed):  # what a journal has belongs where it would write it to
        return places_of(volume.source, disk)
    return None


def _through(volume: Pieces, disk: Source) -> Places | None:
    members = [places_of(member, disk) for member in volume.members]
    if any(member is None for member in members):
        return None

    def places(offset: int, length: int) -> Sequence[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for piece in volume.within(offset, length):
            below = HOLE if piece.member is None else members[piece.member]
            assert below is not None
            if below == HOLE:
                found.append((HOLE, piece.length))
            elif isinstance(below, int):
                found.append((below + piece.member_offset, piece.length))
            else:
                found += below(piece.member_offset, piece.length)
        return found

    return places
