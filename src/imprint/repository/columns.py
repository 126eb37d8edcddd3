"""Columns of numbers, as directories of packs and index objects have them."""

from __future__ import annotations

import sys
from array import array


class Columns:
    """Takes one column after the other; the caller has made sure that all of them are there."""

    def __init__(self, view: memoryview, position: int) -> None:
        self._view = view
        self._position = position

    def take(self, length: int) -> memoryview:
        """The next ``length`` bytes."""
        start = self._position
        self._position += length
        return self._view[start : self._position]

    def numbers(self, count: int) -> array[int]:
        """The next ``count`` numbers of 4 bytes."""
        found = array("I")
        found.frombytes(self.take(4 * count))
        if sys.byteorder != "little":
            found.byteswap()
        return found


def little(numbers: array[int]) -> bytes:
    """Numbers as they are stored."""
    if sys.byteorder != "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()
