"""Where a disk is cut into chunks: at the borders of files, so that other disks share them.

A disk of the same files, at other places and in another order, is cut into the same chunks. What is
known of a disk is an ascending row of *borders*: where a file, a piece of one, or the room between
two of them begins. What lies between two borders is large or small:

* around what is large, chunks are cut, and inside of it every 1 MiB from its beginning on;
* neighbours that are small share a chunk, or there would be very many. Where such a chunk begins is
  told by the content: before every eighth of them, on average, whatever comes before. So two
  disks whose small files differ here and there have most of these chunks in common.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left, bisect_right
from operator import sub
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB, div_up
from imprint.repository.pack import CHUNK_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE_BYTES: Final = 8 * KIB
"""From this on, what lies between two borders has chunks of its own."""

CHOSEN_MASK: Final = 0b111
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
        inside = start + div_up(offset - start, CHUNK_MAX) * CHUNK_MAX
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
        cuts, before = [offset], offset
        for index in range(first, last + 1):
            border = borders[index] if index < last else end
            if border - cuts[-1] > CHUNK_MAX and before > cuts[-1]:
                cuts.append(before)
            inside = max(0, cuts[-1] - start) // CHUNK_MAX + 1
            cuts.extend(range(start + inside * CHUNK_MAX, border, CHUNK_MAX))
            if index < last and (
                not self._is_small(index) or self._is_chosen(data[border - offset :])
            ):
                cuts.append(border)
            start = before = border
        if cuts[-1] < end:
            cuts.append(end)
        return list(map(sub, cuts[1:], cuts))

    def _is_small(self, index: int) -> bool:
        """Whether what is on both sides of a border is."""
        borders = self._borders
        if not 0 < index < len(borders) - 1:
            return False
        border = borders[index]
        return (
            border - borders[index - 1] < LARGE_BYTES and borders[index + 1] - border < LARGE_BYTES
        )

    @staticmethod
    def _is_chosen(data: memoryview) -> bool:
        return not zlib.crc32(data[:LOOKED_AT_BYTES]) & CHOSEN_MASK
