"""A disk that is put together from pieces of others: a logical volume, an array."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from imprint.core.buffers import fill_zero
from imprint.core.extent import Extent, Kind, check_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source, Traits


class Piece(NamedTuple):
    """A run of the disk, and where it is. All in bytes.

    Attributes:
        offset: of the disk.
        length: in bytes; never 0.
        member: which of the sources holds it; ``None``: nothing does, it reads as zeros.
        member_offset: where in that source.
    """

    offset: int
    length: int
    member: int | None
    member_offset: int = 0

    @property
    def end(self) -> int:
        """The first byte of the disk behind it."""
        return self.offset + self.length


class Pieces:
    """A source whose bytes are in other sources, which it does not own. Thread-safe as they."""

    def __init__(self, name: str, members: Sequence[Source], pieces: Sequence[Piece]) -> None:
        """``pieces`` are ascending and leave no room between them; the first begins at 0."""
        position = 0
        for piece in pieces:
            assert piece.offset == position
            assert piece.length > 0
            position = piece.end
        self._name = name
        self._members = tuple(members)
        self._pieces = tuple(pieces)
        self._offsets = [piece.offset for piece in pieces]
        self._size = position

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def members(self) -> tuple[Source, ...]:
        """The sources that hold it, as given."""
        return self._members

    @property
    def traits(self) -> Traits:
        """Of the first member; the grain is what all borders are multiples of."""
        traits = self._members[0].traits
        borders = (place for piece in self._pieces for place in (piece.offset, piece.member_offset))
        return replace(traits, grain=math.gcd(traits.grain, *borders))

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        for piece in self.within(offset, len(buffer)):
            part = buffer[piece.offset - offset : piece.end - offset]
            if piece.member is None:
                fill_zero(part)
            else:
                self._members[piece.member].readinto(part, piece.member_offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the members; what nothing holds is a hole."""
        for piece in self.within(offset, length):
            if piece.member is None:
                yield Extent(piece.offset, piece.length, Kind.HOLE)
                continue
            distance = piece.offset - piece.member_offset
            member = self._members[piece.member]
            for extent in member.extents(piece.member_offset, piece.length):
                inside = extent.clip(piece.member_offset, piece.member_offset + piece.length)
                yield inside._replace(offset=inside.offset + distance)

    def within(self, offset: int, length: int) -> Iterator[Piece]:
        """The pieces of a range, cut to it."""
        end = offset + length
        check_range(offset, length, size=self._size, name=self._name)
        index = bisect_right(self._offsets, offset) - 1
        while length and index < len(self._pieces) and self._offsets[index] < end:
            piece = self._pieces[index]
            start, stop = max(piece.offset, offset), min(piece.end, end)
            skipped = start - piece.offset
            yield Piece(start, stop - start, piece.member, piece.member_offset + skipped)
            index += 1

    def close(self) -> None:
        """The members belong to somebody else."""
