"""A disk that is a map over streams, or one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.extent import Extent, Kind
from imprint.core.units import MIB, align_down
from imprint.formats.aff4.maps import MapStream, Piece, Symbol

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.info import ImageInfo
    from imprint.formats.aff4.opening import Found

_SYMBOL_UNIT: Final = 1 * MIB
"""What a run of one byte is produced in."""


class Aff4Layer:
    """A disk in a container; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, found: Found) -> None:
        """Takes over all volumes."""
        self._found = found
        self._data = found.data
        sizes = [stream.shape.chunk_size for stream in found.streams]
        self._grain = min(sizes, default=_SYMBOL_UNIT)

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._found.size

    @property
    def traits(self) -> Traits:
        """The grain is a chunk."""
        return Traits(grain=self._grain, logical_sector=self._found.sector)

    def map(self, offset: int, length: int) -> Extent:
        """One entry of the map."""
        piece = self._piece(offset)
        length = min(length, piece.end - offset)
        leaf = piece.leaf
        if isinstance(leaf, Symbol) and leaf.kind is not Kind.ENCODED:
            return Extent(offset, length, leaf.kind)
        storage, at = self._place(piece, offset)
        return Extent(offset, length, Kind.ENCODED, storage, at)

    def unit(self, offset: int) -> Extent:
        """The part of a chunk that the disk has around ``offset``."""
        piece = self._piece(offset)
        leaf = piece.leaf
        size = _SYMBOL_UNIT if isinstance(leaf, Symbol) else leaf.shape.chunk_size
        inside = piece.offset + offset - piece.start
        first = align_down(inside, size)
        start = max(piece.start, offset - (inside - first))
        end = min(piece.end, offset + (first + size - inside))
        storage, at = self._place(piece, offset)
        return Extent(start, end - start, Kind.ENCODED, storage, at)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Unpack the chunk and compare its digest."""
        piece = self._piece(unit.offset)
        leaf = piece.leaf
        inside = piece.offset + unit.offset - piece.start
        if isinstance(leaf, Symbol):
            leaf.fill(buffer, inside)
            return
        number, within = divmod(inside, leaf.shape.chunk_size)
        if not within and len(buffer) == leaf.chunk_length(number):
            leaf.read_chunk(number, buffer)
        else:
            buffer[:] = leaf.chunk(number)[within : within + len(buffer)]

    def info(self) -> ImageInfo:
        """What the description says."""
        from imprint.formats.aff4.facts import image_info

        return image_info(self._found)

    def close(self) -> None:
        """Close all volumes."""
        self._found.close()

    def _piece(self, offset: int) -> Piece:
        if isinstance(self._data, MapStream):
            return self._data.piece(offset)
        return Piece(0, self.size, self._data, 0)

    def _place(self, piece: Piece, offset: int) -> tuple[Storage, int]:
        """Where the chunk at ``offset`` is stored."""
        leaf = piece.leaf
        if isinstance(leaf, Symbol):
            return self._found.storage, 0
        number = (piece.offset + offset - piece.start) // leaf.shape.chunk_size
        return leaf.archive.storage, leaf.place(number)[0]
