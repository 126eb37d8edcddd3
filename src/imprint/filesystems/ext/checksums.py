"""The checksums of ext4 and its journal: CRC-32C and CRC-32 without inversion, and CRC-16."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Final

from imprint.codecs.crc32c import crc32c

ALL: Final = 0xFFFF_FFFF


def checksum(data: bytes | bytearray | memoryview, seed: int = ALL) -> int:
    """CRC-32C as the kernel has it: what it gives is the seed for what comes next.

    Source: Linux ``ext4_chksum``.
    """
    return crc32c(data, seed ^ ALL) ^ ALL


def crc32(data: bytes | bytearray | memoryview, crc: int = ALL) -> int:
    """CRC-32 by the highest bit first: zlib's of bytes whose bits are in the other order.

    >>> hex(crc32(b"123456789"))
    '0x376e6e7'

    Source: Linux ``crc32_be``.
    """
    found = zlib.crc32(bytes(data).translate(_REVERSED), _reversed(crc) ^ ALL) ^ ALL
    return _reversed(found)


def _reversed(value: int) -> int:
    """32 bits, the last one first."""
    return int.from_bytes(value.to_bytes(4, "little").translate(_REVERSED), "big")


_REVERSED: Final = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def crc16(data: bytes | bytearray | memoryview, crc: int = 0xFFFF) -> int:
    """CRC-16 (polynomial 0x8005, reflected) of some bytes: it is done in Python.

    >>> hex(crc16(b"123456789", 0))
    '0xbb3d'

    Source: Linux ``lib/crc/crc16.c``.
    """
    table = _crc16_table()
    for value in data:
        crc = crc >> 8 ^ table[(crc ^ value) & 0xFF]
    return crc


@cache
def _crc16_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
