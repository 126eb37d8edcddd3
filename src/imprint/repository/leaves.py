"""Leaves made of what was read of a region, and of what was not."""

from __future__ import annotations

from array import array
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from imprint.core.extent import Kind
from imprint.repository.nodes import Leaf, Piece

if TYPE_CHECKING:
    from imprint.repository.regions import Region

UNREAD: Final = {
    Kind.HOLE: Piece.HOLE,
    Kind.UNUSED: Piece.UNUSED,
    Kind.BAD: Piece.BAD,
}
"""What becomes of extents that are skipped."""


def make_leaf(region: Region, entries: list[tuple[int, int, bytes | None, Piece]]) -> Leaf:
    """A leaf of what was read, with the rest of the region between."""
    unread: list[tuple[int, int, bytes | None, Piece]] = [
        (extent.offset, extent.length, None, UNREAD[extent.kind])
        for extent in region.extents
        if extent.kind in UNREAD
    ]
    rows = _Rows(region.start)
    for offset, length, name, kind in sorted(entries + unread, key=itemgetter(0)):
        # What should have been read and is missing could not be read.
        rows.add(offset - rows.end, None, Piece.BAD)
        rows.add(length, name, kind)
    rows.add(region.end - rows.end, None, Piece.BAD)
    return Leaf(region.start, bytes(rows.kinds), rows.lengths, b"".join(rows.names))


class _Rows:
    """The entries of a leaf that is being made; neighbours that hold no chunks are joined."""

    def __init__(self, start: int) -> None:
        self.end = start
        self.kinds = bytearray()
        self.lengths = array("Q")
        self.names: list[bytes] = []

    def add(self, length: int, name: bytes | None, kind: Piece) -> None:
        if length == 0:
            return
        self.end += length
        if name is not None:
            self.names.append(name)
        elif self.kinds and self.kinds[-1] == kind:
            self.lengths[-1] += length
            return
        self.kinds.append(kind)
        self.lengths.append(length)
