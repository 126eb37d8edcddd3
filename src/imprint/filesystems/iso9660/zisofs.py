"""Contents that are compressed in blocks of their own, as mkzftree and xorriso make them.

Source: Linux ``fs/isofs/compress.c``; libisofs ``doc/zisofs_format.txt``, version 1.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.codecs import deflate
from imprint.core.errors import CorruptImageError
from imprint.filesystems.contents import OnDemand, unpacked_on_demand

if TYPE_CHECKING:
    from imprint.core.contracts import Source

_MAGIC: Final = bytes.fromhex("37e45396c9dbd607")
_HEAD: Final = struct.Struct("<8sIBB2x")
"""Magic, size of the content, size of this in units of 4 bytes, block size as a power of 2."""

_POINTER: Final = struct.Struct("<I")
_POINTERS: Final = struct.Struct("<II")
_BLOCK_BITS: Final = (15, 16, 17)
_ZLIB_HEAD: Final = 2


def unzipped(stored: Source, size: int, name: str) -> Source:
    """The content of a file; thread-safe.

    Args:
        stored: what lies on the disc, at least as long as what was written.
        size: of the content, in bytes, as Rock Ridge has it.
        name: of the file, for errors.

    Raises:
        CorruptImageError: if the file's head is none, or has another size.
        ReadError: if it cannot be read.
    """
    if not size:
        return OnDemand(name, 0, lambda _offset, _length: b"")
    magic, told, units, bits = _HEAD.unpack(_part(stored, 0, _HEAD.size, name))
    if magic != _MAGIC or told != size or bits not in _BLOCK_BITS:
        raise CorruptImageError(
            f"expected the head of a compressed file of {size} bytes, "
            f"found {magic.hex()} with {told} bytes in blocks of 2^{bits}",
            name=name,
        )
    table, block = units * 4, 1 << bits

    def unpack(index: int) -> bytes:
        length = min(block, size - index * block)
        place = table + index * _POINTER.size
        start, end = _POINTERS.unpack(_part(stored, place, _POINTERS.size, name))
        if not start <= end <= start + 2 * block:
            raise CorruptImageError(
                f"block {index}: expected at most {2 * block} bytes, found {start} to {end}",
                name=name,
            )
        if start == end:
            return bytes(length)
        packed = _part(stored, start, end - start, name)
        return deflate.decompress(packed[_ZLIB_HEAD:], length)

    return unpacked_on_demand(name, size, range(0, size, block), unpack)


def _part(stored: Source, offset: int, length: int, name: str) -> bytes:
    if offset + length > stored.size:
        raise CorruptImageError(
            f"expected {length} bytes at {offset}, found a file of {stored.size}", name=name
        )
    data = bytearray(length)
    stored.readinto(memoryview(data), offset)
    return bytes(data)
