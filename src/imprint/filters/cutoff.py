"""What a disk should have and a copy of it does not: copies are often cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Traits
from imprint.core.errors import ReadError
from imprint.core.extent import Extent, Kind, check_range
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Missing:
    """Bytes that are nowhere: ``BAD``, and not to be read."""

    def __init__(self, name: str, size: int, why: str) -> None:
        """``why`` is what is said to whom reads them; ``size`` is in bytes."""
        self.name = name
        self.size = size
        self.traits = Traits(grain=1)
        self._why = why

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fail, if anything is asked for.

        Raises:
            ReadError: always, but for nothing.
        """
        check_range(offset, len(buffer), size=self.size, name=self.name)
        if len(buffer):
            raise ReadError(self._why, name=self.name)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All of it is bad."""
        if length:
            yield Extent(offset, length, Kind.BAD)

    def close(self) -> None:
        """There is nothing to give back."""


def filled_up(source: Source, size: int, *, name: str) -> Source:
    """A source that is longer than what there is of it; what is lacking at its end is ``BAD``.

    It does not own what there is.

    Args:
        source: what there is.
        size: that it should have, in bytes.
        name: what errors call it.
    """
    there = source.size
    if size <= there:
        return source
    why = f"expected {size} bytes, found {there}: it is cut off"
    pieces = [Piece(0, there, 0)] if there else []
    pieces.append(Piece(there, size - there, 1))
    return Pieces(name, [source, Missing(name, size - there, why)], pieces)


def present(source: Source) -> int:
    """How many bytes of a source are there: all, but for what is ``BAD`` at its end."""
    if not source.size or not _is_bad(source, source.size - 1):
        return source.size
    there, bad = 0, source.size - 1  # what lies between is not known yet
    while there < bad:
        middle = (there + bad) // 2
        if _is_bad(source, middle):
            bad = middle
        else:
            there = middle + 1
    rest = source.extents(bad, source.size - bad)
    return bad if all(extent.kind is Kind.BAD for extent in rest) else source.size


def _is_bad(source: Source, offset: int) -> bool:
    return next(iter(source.extents(offset, 1))).kind is Kind.BAD
