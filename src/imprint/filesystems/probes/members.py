"""Partitions that are parts of something else: of a RAID, a volume group, an encrypted volume.

Source: Linux ``include/uapi/linux/raid/md_p.h``; LVM2 ``lib/format_text/layout.h``; the LUKS1
and LUKS2 On-Disk Format Specifications.
"""

from __future__ import annotations

import array
import itertools
from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB
from imprint.filesystems.facts import FileSystem, text, uuid_text

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

LUKS_MAGIC: Final = b"LUKS\xba\xbe"
LVM_LABEL: Final = b"LABELONE"
LVM_TYPE: Final = b"LVM2 001"
LVM_SECTORS: Final = 4
RAID_MAGIC: Final = 0xA92B4EFC
RAID_RESERVED: Final = 64 * KIB

_SECTOR_BYTES: Final = 512


class LuksHeader(Structure, size=208, endian=">"):
    """What the headers of LUKS1 and LUKS2 share; the label only LUKS2 has."""

    magic: bytes = raw(6, at=0, doc="LUKS_MAGIC")
    version: int = uint(2, at=6, doc="1 or 2")
    label: bytes = raw(48, at=24, doc="LUKS2: chosen by the user")
    uuid: bytes = raw(40, at=168, doc="as text")


class LvmLabel(Structure, size=64, endian="<"):
    """The label of a physical volume, in one of its first sectors, and what follows it."""

    mark: bytes = raw(8, at=0, doc="LVM_LABEL")
    sector: int = uint(8, at=8, doc="that the label is in")
    type: bytes = raw(8, at=24, doc="LVM_TYPE")
    uuid: bytes = raw(32, at=32, doc="of the physical volume, as text without dashes")


class RaidSuperblock(Structure, size=256, endian="<"):
    """A superblock of version 1."""

    magic: int = uint(4, at=0, doc="RAID_MAGIC")
    major: int = uint(4, at=4, doc="1")
    array_uuid: bytes = raw(16, at=16, doc="of the array")
    array_name: bytes = raw(32, at=32, doc="often with the name of the machine before it")
    own_sector: int = uint(8, at=144, doc="of this superblock")


class OldRaidSuperblock(Structure, size=64, endian="<"):
    """A superblock of version 0.90: words in the byte order of the machine that made it."""

    magic: int = uint(4, at=0, doc="RAID_MAGIC")
    major: int = uint(4, at=4, doc="0")
    minor: int = uint(4, at=8, doc="90")
    patch: int = uint(4, at=12, doc="0")
    uuid_0: int = uint(4, at=20, doc="of the array, its first word")
    size_kib: int = uint(4, at=32, doc="that the array uses of this member")
    uuid_1: int = uint(4, at=52, doc="the second word")
    uuid_2: int = uint(4, at=56, doc="the third word")
    uuid_3: int = uint(4, at=60, doc="the fourth word")


def luks(peek: Peek) -> FileSystem | None:
    """A LUKS volume."""
    header = LuksHeader.unpack(peek.read(0, LuksHeader.SIZE))
    if header.magic != LUKS_MAGIC or header.version not in (1, 2):
        return None
    label = text(header.label) if header.version == 2 else None
    return FileSystem("crypto_LUKS", label, text(header.uuid), str(header.version))


def lvm2(peek: Peek) -> FileSystem | None:
    """A physical volume of LVM2."""
    for sector in range(LVM_SECTORS):
        label = LvmLabel.unpack(peek.read(sector * _SECTOR_BYTES, LvmLabel.SIZE))
        if (label.mark, label.type, label.sector) == (LVM_LABEL, LVM_TYPE, sector):
            return FileSystem("LVM2_member", uuid=_lvm_uuid(label.uuid))
    return None


def _lvm_uuid(raw_uuid: bytes) -> str | None:
    """With dashes where LVM has them."""
    digits = text(raw_uuid, "ascii")
    if digits is None:
        return None
    borders = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(digits[a:b] for a, b in itertools.pairwise(borders))


def linux_raid(peek: Peek) -> FileSystem | None:
    """A member of an array of Linux RAID, whose superblock is at the start or near the end."""
    places = (
        ("1.0", (peek.size & -4 * KIB) - 8 * KIB),
        ("1.1", 0),
        ("1.2", 4 * KIB),
    )
    for version, offset in places:
        block = RaidSuperblock.unpack(peek.read(offset, RaidSuperblock.SIZE))
        found = (block.magic, block.major, block.own_sector * _SECTOR_BYTES)
        if found == (RAID_MAGIC, 1, offset):
            name, identity = text(block.array_name), uuid_text(block.array_uuid)
            return FileSystem("linux_raid_member", name, identity, version)
    return _old_linux_raid(peek)


def _old_linux_raid(peek: Peek) -> FileSystem | None:
    offset = (peek.size & -RAID_RESERVED) - RAID_RESERVED
    data = peek.read(offset, OldRaidSuperblock.SIZE)
    if data.startswith(RAID_MAGIC.to_bytes(4, "big")):
        words = array.array("I", data)
        words.byteswap()
        data = words.tobytes()
    block = OldRaidSuperblock.unpack(data)
    if block.magic != RAID_MAGIC or block.size_kib * KIB > offset:
        return None
    uuid_words = [block.uuid_0, 0, 0, 0]
    if block.minor >= 90:
        uuid_words[1:] = [block.uuid_1, block.uuid_2, block.uuid_3]
    whole = b"".join(word.to_bytes(4, "big") for word in uuid_words)
    version = f"{block.major}.{block.minor}.{block.patch}"
    return FileSystem("linux_raid_member", uuid=uuid_text(whole), version=version)
