"""What a file system calls a block, or a cluster: from its first structures, without a reader."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.hfs_wrapper import unwrapped
from imprint.filesystems.udf.volume import read_volume
from imprint.filesystems.ufs.layout import SUPER_BYTES, SUPER_OFFSETS, parse_superblock

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
    if read is None and kind != "udf":
        return None
    try:
        if read is None:
            return read_volume(VolumeReader(volume)).block
        if kind == "hfsplus":
            volume, _ = unwrapped(volume)
        head = bytearray(min(_HEAD_BYTES, volume.size))
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


def _ufs(head: bytearray) -> int:
    """A fragment: that is what space is given away in. Source: FreeBSD ``sys/ufs/ffs/fs.h``."""
    for place in SUPER_OFFSETS:
        content = bytes(head[place : place + SUPER_BYTES])
        found = parse_superblock(content, place) if len(content) == SUPER_BYTES else None
        if found is not None:
            return found.fragment
    return 0


_READERS: Final[dict[str, Callable[[bytearray], int]]] = {
    "btrfs": _number("<I", 0x10090),
    "exfat": _exfat,
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "hfs": _number(">I", 1044),
    "hfsplus": _number(">I", 1064),
    "iso9660": _number("<H", 32896),
    "mfs": _number(">I", 1044),
    "ntfs": _clusters,
    "squashfs": _number("<I", 12),
    "ufs": _ufs,
    "vfat": _clusters,
    "xfs": _number(">I", 4),
}
"""Offsets from the beginning of the volume, in their superblocks."""
