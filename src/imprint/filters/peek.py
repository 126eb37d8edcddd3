"""Small reads of a disk that may lie about where its structures are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from imprint.core.errors import FormatError, ReadError

if TYPE_CHECKING:
    from imprint.core.contracts import Source


class Peek:
    """Reads a source within a budget; what cannot be had reads as zeros.

    A parser of untrusted structures asks for any range without testing it first: beyond the
    disk's end, or once the budget is used up, there are zeros, and no signature is made of
    zeros. The caller bounds the length of each read. For one thread.
    """

    def __init__(self, source: Source, *, budget: int, head: int = 0) -> None:
        """``budget`` bounds all reads together.

        ``head`` bytes are read at once and kept, unless some of them cannot be read.
        """
        self._source = source
        self._left = budget
        self._head = b""
        with contextlib.suppress(ReadError, FormatError):
            self._head = self.read(0, min(head, source.size))

    @property
    def size(self) -> int:
        """Of the source, in bytes."""
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes.

        Raises:
            ReadError: if the source cannot be read there.
            FormatError: if what the image says of the range makes no sense.
        """
        if offset >= 0 and offset + length <= len(self._head):
            return self._head[offset : offset + length]
        buffer = bytearray(length)
        inside = min(length, self._source.size - offset)
        if offset >= 0 and 0 < inside <= self._left:
            self._left -= inside
            self._source.readinto(memoryview(buffer)[:inside], offset)
        return bytes(buffer)
