"""Where a disk is cut into chunks: at the borders of files, so that other disks share them.

A disk of the same files, at other places and in another order, is cut into the same chunks. What is
known of a disk is an ascending row of *borders*: where a file, a piece of one, or the room between
two of them begins. What lies between two borders is large or small:

* around what is large, chunks are cut, and inside of it every 1 MiB from its beginning on;
* neighbours that are small share a chunk, or there would be very many. Where such a chunk begins is
  told by the content: before every fourth of them, on average, whatever comes before. So two
  disks whose small files differ here and there have most of these chunks in common.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB
from imprint.repository.pack import CHUNK_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE_BYTES: Final = 16 * KIB
"""From this on, what lies between two borders has chunks of its own."""

CHOSEN_MASK: Final = 0b11
"""A chunk begins at what is small if the checksum of its beginning has zeros here."""

LOOKED_AT_BYTES: Final = 512
"""Of what is small: the least that a file system gives to a file."""


class Cutting:
    """Cuts one disk. Without borders, every 1 MiB of it."""

    def __init__(self, borders: array[int] | None = None) -> None:
        """``borders`` are offsets of the disk in bytes, ascending, each once; an array of ``Q``."""
        self._borders = array("Q") if borders is None else borders

    def border_after(self, offset: int) -> int:
        """The first place at or behind ``offset`` where chunks end, whatever the disk holds.

        In a long row of what is small there is none. It is a border then that chunks may end at.
        """
        borders = self._borders
        first = bisect_left(borders, offset)
        start = borders[first - 1] if first else 0
        inside = start - (start - offset) // CHUNK_MAX * CHUNK_MAX
        if first == len(borders) or inside < borders[first]:
            return inside
        index = first
        while index < len(borders) and borders[index] - offset <= CHUNK_MAX:
            if not self._is_small(index):
                return borders[index]
            index += 1
        return borders[first]

    def lengths(self, offset: int, data: memoryview) -> Sequence[int]:
        """The chunks of a stretch of the disk: their lengths, each at most 1 MiB.

        Args:
            offset: of the stretch; a chunk begins there.
            data: all of its bytes.
        """
        borders, end = self._borders, offset + len(data)
        first, last = bisect_right(borders, offset), bisect_left(borders, end)
        start = borders[first - 1] if first else 0
        cuts = [offset]
        before = offset
        for index in range(first, last + 1):
            border = borders[index] if index < last else end
            if border - cuts[-1] > CHUNK_MAX:
                if before > cuts[-1]:
                    cuts.append(before)
                inside = start - (start - cuts[-1] - 1) // CHUNK_MAX * CHUNK_MAX
                cuts.extend(range(inside, border, CHUNK_MAX))
            if index == last:
                break
            if not self._is_small(index) or self._is_chosen(data[border - offset :]):
                cuts.append(border)
            start = before = border
        cuts.append(end)
        return [b - a for a, b in zip(cuts, cuts[1:], strict=False) if b > a]
