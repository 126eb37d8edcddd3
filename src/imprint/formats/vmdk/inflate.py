"""Grains compressed and expanded: zlib streams (RFC 1950), by ISA-L where it is quicker."""

from __future__ import annotations

import zlib
from typing import Final

from isal import isal_zlib

from imprint.codecs import deflate
from imprint.core.errors import CorruptImageError

LEVEL_DEFAULT: Final = deflate.LEVEL_DEFAULT

STORED_EXCESS: Final = 32
"""What a grain that does not shrink takes up more than its bytes: two stored blocks."""

_HEADER: Final = b"\x78\x9c"


def inflate(stored: bytes | bytearray, size_max: int) -> bytes:
    """What the zlib stream at the start of ``stored`` holds; what lies behind it is ignored.

    Raises:
        CorruptImageError: if it is damaged, ends early, or holds more than ``size_max`` bytes.
    """
    decoder = isal_zlib.decompressobj()
    try:
        data = decoder.decompress(stored, size_max)
        # The checksum is only looked at when somebody asks for more.
        more = b"" if decoder.eof else decoder.decompress(decoder.unconsumed_tail, 1)
    # The stub declares the class as an instance of Exception.
    except isal_zlib.error as failure:  # type: ignore[misc]
        raise CorruptImageError(f"expected a zlib stream: {failure}") from failure
    if more or not decoder.eof:
        raise CorruptImageError(f"expected a zlib stream that ends within {size_max} bytes")
    return data


def compress(data: bytes, level: int) -> bytes:
    """A zlib stream of ``data``, never longer than ``STORED_EXCESS`` more; thread-safe."""
    raw = deflate.compress(data, level=level)
    if len(raw) > len(data):
        return zlib.compress(data, 0)
    return _HEADER + raw + isal_zlib.adler32(data).to_bytes(4, "big")
