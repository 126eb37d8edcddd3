"""A gzip stream of pieces that are compressed apart from each other, by as many threads.

Source: RFC 1952, *GZIP file format specification version 4.3*.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from isal import isal_zlib

from imprint.codecs import deflate

# Deflate, no name, no time: the same content gives the same file. Made by an unknown system.
HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

_TRAILER: Final = struct.Struct("<II")


@dataclass(frozen=True)
class Piece:
    """Some of the content, compressed.

    Attributes:
        packed: a part of a deflate stream.
        length: of the content, in bytes.
        crc: of the content.
    """

    packed: bytes
    length: int
    crc: int


def pack(data: bytes | memoryview, level: int) -> Piece:
    """Compress a piece; thread-safe. Levels as for :func:`imprint.codecs.deflate.compress`."""
    packed = deflate.compress_part(data, level=level)
    return Piece(packed, len(data), isal_zlib.crc32(data))


class Joined:
    """Keeps the checksum of the pieces that were put one behind the other."""

    def __init__(self) -> None:
        self._crc = 0
        self._length = 0

    def add(self, piece: Piece, count: int = 1) -> bytes:
        """``count`` times the same piece, as it is written."""
        for _ in range(count):
            self._crc = isal_zlib.crc32_combine(self._crc, piece.crc, piece.length)
        self._length += count * piece.length
        return piece.packed * count

    def end(self) -> bytes:
        """What follows the last piece."""
        return deflate.END + _TRAILER.pack(self._crc, self._length & 0xFFFFFFFF)
