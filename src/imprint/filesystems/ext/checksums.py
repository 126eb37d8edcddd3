"""The two checksums of ext4: CRC-32C without its final inversion, and CRC-16."""

from __future__ import annotations

from functools import cache
from typing import Final

from imprint.codecs.crc32c import crc32c

ALL: Final = 0xFFFF_FFFF


def checksum(data: bytes | bytearray | memoryview, seed: int = ALL) -> int:
    """CRC-32C as the kernel has it: what it gives is the seed for what comes next.

    Source: Linux ``ext4_chksum``.
    """
    return crc32c(data, seed ^ ALL) ^ ALL


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
