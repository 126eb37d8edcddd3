"""Leaves made of what was read of a region, and of what was not."""

from __future__ import annotations

from array import array
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.repository.nodes import NAME_BYTES, Leaf, Piece
from imprint.repository.regions import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.extent import Extent
    from imprint.repository.regions import Region

Entries = dict[int, tuple[int, bytes | None]]
"""Of a leaf, by their offsets: length, and name of the chunk; ``None``: zeros."""

UNREAD: Final = {
    Kind.HOLE: Piece.HOLE,
    Kind.UNUSED: Piece.UNUSED,
    Kind.BAD: Piece.BAD,
}
"""What becomes of extents that are skipped."""


def chunks_of(leaf: Leaf) -> list[bytes]:
    """The names of all chunks of a leaf."""
    names = leaf.names
    return [names[at : at + NAME_BYTES] for at in range(0, len(names), NAME_BYTES)]


def count_read(leaf: Leaf) -> int:
    """How many entries of a leaf were read, and not skipped."""
    return leaf.kinds.count(Piece.DATA) + leaf.kinds.count(Piece.ZERO)


def joined(runs: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Where the kind changes: offset and kind."""
    found: list[tuple[int, int]] = []
    for offset, _, kind in runs:
        if not found or found[-1][1] != kind:
            found.append((offset, kind))
    return found


def unchanged_entries(leaf: Leaf, region: Region) -> Entries:
    """Entries of the older leaf of a region that hold still, so that they need not be read.

    They are those of which nothing may have changed, and that are as a whole what counts now.
    """
    if region.changed is None:
        return {}
    skipped = (item for item in region.extents if item.kind not in COUNTS)
    other = Runs.of((item.offset, item.length) for item in skipped) | region.changed
    found: Entries = {}
    index, borders = 0, leaf.borders
    for entry, kind in enumerate(leaf.kinds):
        start, end = borders[entry], borders[entry + 1]
        while index < len(other) and other.ends[index] <= start:
            index += 1
        if kind <= Piece.ZERO and (index == len(other) or other.starts[index] >= end):
            found[start] = end - start, leaf.name_of(entry) if kind == Piece.DATA else None
    return found


def without_entries(extents: list[Extent], entries: Entries) -> list[Extent]:
    """What of some extents of a disk, which are contiguous, is in none of the entries."""
    if not entries:
        return extents
    inside = Runs.of((start, length) for start, (length, _) in entries.items())
    rest = inside.complement(extents[-1].end)
    return [
        extent.clip(start, start + length)
        for extent in extents
        for start, length in rest.clip(extent.offset, extent.end)
    ]


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
