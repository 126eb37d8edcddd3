"""AFF images, made by the description of the format."""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import Final

_SECTOR: Final = 512
_ZERO: Final = 0x33
_ZLIB: Final = 0x01
_LZMA: Final = 0x21


def segment(name: str, data: bytes = b"", argument: int = 0) -> bytes:
    """One segment with its head and tail."""
    size = 16 + len(name) + len(data) + 8
    head = struct.pack(">4sIII", b"AFF\0", len(name), len(data), argument)
    return head + name.encode() + data + struct.pack(">4sI", b"ATT\0", size)


def aff(disk: bytes, *, page_size: int = 4096, method: str = "zlib", tail: bytes = b"") -> bytes:
    """An image in one file.

    Args:
        disk: what it holds.
        page_size: in bytes.
        method: ``none``, ``zlib`` or ``lzma``; pages of zeros are never stored.
        tail: further segments.
    """
    parts = [
        b"AFF10\r\n\0",
        segment("badflag", b"BAD SECTOR\0".ljust(_SECTOR, b"x")),
        segment("aff_file_type", b"AFF"),
        segment("pagesize", argument=page_size),
        segment("sectorsize", argument=_SECTOR),
    ]
    for start in range(0, len(disk), page_size):
        page = disk[start : start + page_size]
        name = f"page{start // page_size}"
        if not any(page):
            parts.append(segment(name, struct.pack(">I", len(page)), _ZERO))
        elif method == "zlib":
            parts.append(segment(name, zlib.compress(page), _ZLIB))
        elif method == "lzma":
            parts.append(segment(name, lzma.compress(page, lzma.FORMAT_ALONE), _LZMA))
        else:
            parts.append(segment(name, page))
    parts.append(
        segment("imagesize", struct.pack(">II", len(disk) & 0xFFFFFFFF, len(disk) >> 32), 2)
    )
    return b"".join(parts) + tail
