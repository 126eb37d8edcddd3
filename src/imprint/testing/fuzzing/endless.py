"""Volumes that are far larger than what is in them: hostile sizes are inside of the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.extent import Extent, Kind
from imprint.core.units import MIB, TIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE: Final = 16 * TIB
BLOCK: Final = 4096

_ZEROS: Final = bytes(MIB)


class EndlessVolume:
    """16 TiB of zeros, in which some content is. For one thread."""

    def __init__(self, content: bytes, places: Sequence[int] = ()) -> None:
        """``places``: numbers of the blocks that the content's blocks of 4 KiB are; ascending.

        Without them, all of it is at the start.
        """
        self._pieces = [(0, content)]
        if places:
            self._pieces = [
                (place * BLOCK, content[index * BLOCK : (index + 1) * BLOCK])
                for index, place in enumerate(places)
            ]

    @property
    def name(self) -> str:
        """Always the same."""
        return "volume"

    @property
    def size(self) -> int:
        """Of all, in bytes."""
        return SIZE

    @property
    def traits(self) -> Traits:
        """No unit at all."""
        return Traits(grain=1)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        assert 0 <= offset <= SIZE - len(buffer), "callers check"
        for at in range(0, len(buffer), MIB):
            count = min(MIB, len(buffer) - at)
            buffer[at : at + count] = _ZEROS[:count]
        end = offset + len(buffer)
        for place, piece in self._pieces:
            first, last = max(place, offset), min(place + len(piece), end)
            if first < last:
                buffer[first - offset : last - offset] = piece[first - place : last - place]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All is data: nothing is known of it."""
        if length:
            yield Extent(offset, length, Kind.DATA)

    def close(self) -> None:
        """Nothing to give back."""
