"""What a file system calls a block, or a cluster: from its first structures, without a reader."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Source

_HEAD_BYTES: Final = 66 << 10
_BLOCK_MAX: Final = 32 << 20
_SIGNED: Final = 0x80


def block_size(kind: str, volume: Source) -> int | None:
    """Of a file system, in bytes; ``None`` if that is not known.

    Args:
        kind: of the file system, as ``identify`` tells it.
        volume: all of it.
    """
    read = _READERS.get(kind)
    if read is None:
        return None
    head = bytearray(min(_HEAD_BYTES, volume.size))
    try:
        volume.readinto(memoryview(head), 0)
        found = read(head)
    except (ImagingError, struct.error, IndexError):
        return None
    return found if 0 < found <= _BLOCK_MAX else None


def _number(form: str, offset: int) -> Callable[[bytearray], int]:
    return lambda head: int(struct.unpack_from(form, head, offset)[0])


def _ext(head: bytearray) -> int:
    """Source: Linux, "ext4 Data Structures", ``s_log_block_size``."""
    return 1024 << min(_number("<I", 1048)(head), 32)


def _clusters(head: bytearray) -> int:
    """Source: Microsoft, FAT specification 1.03, section 3.1; of NTFS: the BIOS parameter block."""
    count = head[13]
    sector = _number("<H", 11)(head)
    return sector << min(256 - count, 32) if count > _SIGNED else sector * count


def _exfat(head: bytearray) -> int:
    """Source: Microsoft, exFAT specification, section 3.1."""
    return 1 << min(head[108] + head[109], 32)


_READERS: Final[dict[str, Callable[[bytearray], int]]] = {
    "btrfs": _number("<I", 0x10090),
    "exfat": _exfat,
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "hfsplus": _number(">I", 1064),
    "iso9660": _number("<H", 32896),
    "ntfs": _clusters,
    "squashfs": _number("<I", 12),
    "vfat": _clusters,
    "xfs": _number(">I", 4),
}
"""Offsets from the beginning of the volume, in their superblocks."""
