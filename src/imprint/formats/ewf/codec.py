"""Chunks packed and unpacked: zlib streams (RFC 1950) or stored bytes with an Adler-32."""

from __future__ import annotations

import bz2
import zlib
from typing import Final

from isal import isal_zlib

from imprint.core.errors import CorruptImageError
from imprint.formats.ewf.layout import CHECKSUM_BYTES, adler32

FAST_LEVEL: Final = 2
"""ISA-L's: five times as fast as level 1 of zlib, and no larger; its level 3 wins less than 1 %."""

BEST_LEVEL: Final = 9
_ISAL_LEVEL_MAX: Final = 3

_STORED_HEADER_BYTES: Final = 5
_BZIP2_BLOCK: Final = b"1AY&SY"


def packed_bytes_max(size: int) -> int:
    """What a packed chunk of ``size`` bytes can take up: bzip2 needs more than zlib for noise."""
    return size + (size >> 6) + 1024


def unpack(stored: bytes, size: int) -> bytes:
    """The ``size`` bytes of a zlib stream, whose Adler-32 is compared.

    Raises:
        CorruptImageError: if it is damaged, or gives another number of bytes.
    """
    try:
        return _inflated(stored, size)
    except CorruptImageError:
        mended = _with_lengths_mended(stored)
        if mended is None:
            raise
        return _inflated(mended, size)


def check_stored(stored: bytes, size: int) -> memoryview:
    """The bytes of a chunk that is stored as it is.

    Raises:
        CorruptImageError: if it is cut off, or its checksum is wrong.
    """
    if len(stored) < size + CHECKSUM_BYTES:
        raise CorruptImageError(
            f"expected {size + CHECKSUM_BYTES} stored bytes, found {len(stored)}"
        )
    data = memoryview(stored)[:size]
    expected = int.from_bytes(stored[size : size + CHECKSUM_BYTES], "little")
    found = adler32(data)
    if found != expected:
        raise CorruptImageError(f"expected the checksum 0x{expected:08x}, found 0x{found:08x}")
    return data


def unpack_bzip2(stored: bytes, size: int) -> bytes:
    """The ``size`` bytes of a bzip2 stream, which EnCase writes without its header and end.

    Raises:
        CorruptImageError: if it is damaged, or gives another number of bytes.
    """
    if stored.startswith(_BZIP2_BLOCK):
        stored = b"BZh9" + stored
    decoder = bz2.BZ2Decompressor()
    try:
        data = decoder.decompress(stored, size)
    except (OSError, ValueError, EOFError) as failure:
        raise CorruptImageError(f"expected a bzip2 stream: {failure}") from failure
    if len(data) != size:
        raise CorruptImageError(f"expected a bzip2 stream of {size} bytes, found {len(data)}")
    return data


def pack(data: memoryview, level: int) -> bytes:
    """The stored form of a chunk: a zlib stream, or the bytes and their checksum if shorter.

    Told from each other by length: only what is stored is longer than ``data``.
    """
    if level > _ISAL_LEVEL_MAX:
        packed = zlib.compress(data, level)
    else:
        packed = isal_zlib.compress(data, level)
    return packed if len(packed) < len(data) else store(data)


def store(data: memoryview) -> bytes:
    """A chunk as it is, followed by its checksum."""
    return b"".join((data, adler32(data).to_bytes(CHECKSUM_BYTES, "little")))


def _inflated(stored: bytes, size: int) -> bytes:
    decoder = isal_zlib.decompressobj()
    try:
        data: bytes = decoder.decompress(stored, size)
        # The checksum is only looked at when somebody asks for more.
        more = b"" if decoder.eof else decoder.decompress(decoder.unconsumed_tail, 1)
    # The stub declares the class as an instance of Exception.
    except isal_zlib.error as failure:  # type: ignore[misc]
        raise CorruptImageError(f"expected a zlib stream: {failure}") from failure
    if more or not decoder.eof or len(data) != size:
        raise CorruptImageError(
            f"expected a zlib stream of {size} bytes, found {len(data)} or more"
        )
    return data


def _with_lengths_mended(stored: bytes) -> bytes | None:
    """The stream with the second length of its first stored blocks put right, if that is wrong.

    The Tableau TD3 writes 0 there instead of the complement (libewf's document, "DEFLATE
    uncompressed block data with copy of uncompressed data size of 0").
    """
    mended = bytearray(stored)
    position, is_mended = 2, False
    while position + _STORED_HEADER_BYTES <= len(mended) and mended[position] & 0b110 == 0:
        length = int.from_bytes(mended[position + 1 : position + 3], "little")
        if mended[position + 3 : position + 5] == b"\0\0" and length != 0xFFFF:
            mended[position + 3 : position + 5] = (length ^ 0xFFFF).to_bytes(2, "little")
            is_mended = True
        if mended[position] & 1:
            break
        position += _STORED_HEADER_BYTES + length
    return bytes(mended) if is_mended else None
