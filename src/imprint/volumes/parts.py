"""Volumes that are put together from members, step by step: joined, striped, mirrored.

A :class:`Part` is a run of bytes that can be read, and knows where in the members it is. What is
made of parts is a part again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.limits import VOLUME_PIECES_MAX
from imprint.filters.pieces import Piece, Pieces
from imprint.filters.stripes import Stripes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source

NO_PIECES: Final = "it shares blocks, its legs may differ, or it is in too many pieces: all counts"


@dataclass(frozen=True)
class Part:
    """A run of bytes.

    Attributes:
        size: in bytes.
        pieces: where they are in the members, several for the same bytes if they are mirrored;
            ``None``: nothing of it may be left out.
        source: reads them; ``None``: ``pieces`` do, each byte being in one.
    """

    size: int
    pieces: tuple[Piece, ...] | None
    source: Source | None = field(default=None, repr=False)


class Builder:
    """Makes parts over members. Counts them, since structures may lead in circles."""

    def __init__(self, name: str, members: Sequence[Source]) -> None:
        """``name`` is what errors call what is built."""
        self._name = name
        self._members = members
        self._left = VOLUME_PIECES_MAX

    def run(self, member: int, offset: int, length: int) -> Part:
        """Bytes of a member."""
        self.count(1)
        return Part(length, (Piece(0, length, member, offset),))

    def clipped(self, part: Part, start: int, length: int) -> Part:
        """A run of a part."""
        if (start, length) == (0, part.size):
            return part
        pieces = None
        if part.pieces is not None:
            self.count(len(part.pieces))
            pieces = tuple(_clipped(part.pieces, start, start + length))
        source = None
        if part.source is not None:
            source = Pieces(self._name, [part.source], [Piece(0, length, 0, start)])
        return Part(length, pieces, source)

    def joined(self, parts: Sequence[Part]) -> Part:
        """One behind the other."""
        if len(parts) == 1:
            return parts[0]
        self.count(sum(len(part.pieces or (0,)) for part in parts))
        pieces: list[Piece] | None = []
        runs, position = [], 0
        for index, part in enumerate(parts):
            runs.append(Piece(position, part.size, index))
            if part.pieces is None:
                pieces = None
            elif pieces is not None:
                pieces += (item._replace(offset=item.offset + position) for item in part.pieces)
            position += part.size
        source = None
        if pieces is None or any(part.source is not None for part in parts):
            source = Pieces(self._name, [self.reader(part) for part in parts], runs)
        return Part(position, None if pieces is None else tuple(pieces), source)

    def striped(self, columns: Sequence[Part], chunk: int) -> Part:
        """Chunks of ``chunk`` bytes, from each column in turn. They are equally long.

        Volumes of very many chunks can be read, but nothing of them can be left out.
        """
        if len(columns) == 1:
            return columns[0]
        size = sum(part.size for part in columns)
        source = Stripes(self._name, [self.reader(part) for part in columns], chunk)
        pieces = None
        count = size // chunk + sum(len(part.pieces or ()) for part in columns)
        if count <= self._left and all(part.pieces is not None for part in columns):
            self.count(count)
            pieces = tuple(_striped(columns, chunk))
        return Part(size, pieces, source)

    def mirrored(self, chosen: Part, others: Sequence[Part]) -> Part:
        """Read from one of several parts with the same bytes."""
        pieces = chosen.pieces
        for part in others:
            if pieces is None or part.pieces is None:
                pieces = None
                break
            pieces += part.pieces
        return Part(chosen.size, pieces, self.reader(chosen))

    def reader(self, part: Part) -> Source:
        """What reads a part."""
        if part.source is not None:
            return part.source
        assert part.pieces is not None
        return Pieces(self._name, self._members, part.pieces)

    def whole(self, part: Part) -> Part:
        """The same of which nothing may be left out."""
        return Part(part.size, None, self.reader(part))

    def over(self, source: Source, pieces: Sequence[Piece]) -> Part:
        """Pieces of another source, which may be others' too: nothing of it may be left out."""
        self.count(len(pieces))
        return Part(pieces[-1].end, None, Pieces(self._name, [source], pieces))

    def count(self, count: int) -> None:
        """Note that so much was made.

        Raises:
            UnsupportedFeatureError: if it is too much.
        """
        self._left -= count
        if self._left < 0:
            raise UnsupportedFeatureError(
                f"expected at most {VOLUME_PIECES_MAX} pieces, found more", name=self._name
            )


def _clipped(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    found = []
    for piece in pieces:
        low, high = max(piece.offset, start), min(piece.end, end)
        if low < high:
            place = piece.member_offset + low - piece.offset
            found.append(Piece(low - start, high - low, piece.member, place))
    return found


def _striped(columns: Sequence[Part], chunk: int) -> list[Piece]:
    """The chunks of all columns at their place in the whole."""
    found = []
    for index, part in enumerate(columns):
        for piece in part.pieces or ():
            position = piece.offset
            while position < piece.end:
                row = position // chunk
                length = min((row + 1) * chunk, piece.end) - position
                offset = (row * len(columns) + index) * chunk + position % chunk
                place = piece.member_offset + position - piece.offset
                found.append(Piece(offset, length, piece.member, place))
                position += length
    return sorted(found)
