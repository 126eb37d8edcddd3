"""Superblocks of Linux RAID, versions 0.90 and 1.

Source: Linux ``include/uapi/linux/raid/md_p.h`` and ``drivers/md/md.c``, ``super_90_load`` and
``super_1_load``.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, sint, uint
from imprint.core.units import KIB
from imprint.volumes.members import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

MAGIC: Final = 0xA92B4EFC
SECTOR_BYTES: Final = 512
ALL_DONE: Final = (1 << 64) - 1
ROLES_MAX: Final = 1920
"""Devices of version 1: as many roles as a superblock of 4 KiB has room for."""

OLD_RESERVED: Final = 64 * KIB
OLD_BYTES: Final = 4096
_OLD_DISKS_AT: Final = 128  # words
_OLD_DISK_WORDS: Final = 32
_OLD_DISKS_MAX: Final = 27
_OLD_IN_SYNC: Final = 0b0110  # active, in sync; bit 0 is faulty, bit 3 removed
_OLD_STATE_BITS: Final = 0b1111
_OLD_CLEAN: Final = 1

_BITMAP: Final = 1
_RECOVERING: Final = 2
_BAD_BLOCKS: Final = 8
_RAID0_LAYOUT: Final = 4096
_HARMLESS: Final = _BITMAP | _BAD_BLOCKS | _RAID0_LAYOUT
_SPECIAL_ROLES: Final = 0xFFFD  # journal, faulty, spare: this and above


class Superblock1(Structure, size=256, endian="<"):
    """Version 1; the roles of all devices follow it."""

    magic: int = uint(4, at=0, doc="MAGIC")
    major: int = uint(4, at=4, doc="1")
    features: int = uint(4, at=8, doc="bits; unknown ones mean that it cannot be read")
    array_uuid: bytes = raw(16, at=16, doc="of the array")
    name: bytes = raw(32, at=32, doc="UTF-8, often with the machine's before a colon")
    level: int = sint(4, at=72, doc="1, 0, -1 for linear …")
    size: int = uint(8, at=80, doc="sectors used of each member; 0 where they may differ")
    chunk: int = uint(4, at=88, doc="sectors")
    count: int = uint(4, at=92, doc="of members that make the array")
    data_offset: int = uint(8, at=128, doc="sector where its data begins")
    data_size: int = uint(8, at=136, doc="sectors of data that there is room for")
    own_sector: int = uint(8, at=144, doc="of this superblock")
    device: int = uint(4, at=160, doc="index into the roles")
    bad_blocks_size: int = uint(2, at=186, doc="sectors of the log")
    bad_blocks_at: int = sint(4, at=188, doc="sectors from the superblock to the log")
    events: int = uint(8, at=200, doc="counts changes")
    synced_to: int = uint(8, at=208, doc="sector; ALL_DONE: members agree")
    checksum: int = uint(4, at=216, doc="of the superblock and the roles")
    role_count: int = uint(4, at=220, doc="of devices that ever were in it")


class SuperblockOld(Structure, size=176, endian="<"):
    """Version 0.90, after its words were brought into this order."""

    magic: int = uint(4, at=0, doc="MAGIC")
    major: int = uint(4, at=4, doc="0")
    minor: int = uint(4, at=8, doc="90; 91 while it is being reshaped")
    uuid_0: int = uint(4, at=20, doc="of the array")
    level: int = sint(4, at=28, doc="as in version 1")
    size: int = uint(4, at=32, doc="KiB used of each member")
    count: int = uint(4, at=40, doc="of members that make the array")
    number: int = uint(4, at=44, doc="of the array: its device is md and this")
    uuid_rest: bytes = raw(12, at=52, doc="the other words of the UUID")
    state: int = uint(4, at=132, doc="bit 0: clean")
    checksum: int = uint(4, at=152, doc="sum of all words, without this one")
    events: bytes = raw(8, at=156, doc="two words, in the order of the machine")


@dataclass(frozen=True)
class Member:
    """What a superblock says of the array, and of the device that it is on.

    Attributes:
        array: identity of the array.
        name: of the array, as an address has it: ``md0``, ``md/root``.
        level: 1, 0 or -1 are known.
        count: of members that make the array.
        role: of this one among them; ``None`` if it has none: a spare, a failed one, or one
            that is being rebuilt.
        events: the most recent members have the highest.
        is_clean: whether the members agree.
        offset: where its data is, in bytes.
        length: of its data, as far as the array uses it, in bytes; 0: unknown.
        chunk: in bytes.
        problem: why the array cannot be read.
    """

    array: bytes
    name: str
    level: int
    count: int
    role: int | None
    events: int
    is_clean: bool
    offset: int
    length: int
    chunk: int
    problem: str | None = None


def read(member: Source) -> Member:
    """The superblock of a device, wherever it is.

    Raises:
        CorruptImageError: if it has none that is whole.
        ReadError: if they cannot be read.
    """
    for offset in _places(member.size):
        if offset < 0 or offset + Superblock1.SIZE > member.size:
            continue
        block = Superblock1.unpack(read_bytes(member, offset, Superblock1.SIZE))
        found = (block.magic, block.major, block.own_sector * SECTOR_BYTES)
        if found == (MAGIC, 1, offset):
            return _new(member, block, offset)
    offset = (member.size & -OLD_RESERVED) - OLD_RESERVED
    if offset >= 0:
        found_old = _old(member, offset)
        if found_old is not None:
            return found_old
    raise CorruptImageError("expected a superblock of Linux RAID, found none", name=member.name)


def _places(size: int) -> Iterator[int]:
    """Of versions 1.0, 1.1 and 1.2."""
    yield (size & -4 * KIB) - 8 * KIB
    yield 0
    yield 4 * KIB


def _new(member: Source, block: Superblock1, at: int) -> Member:
    where = member.name

    def need(field: str, holds: bool, expected: str) -> None:  # noqa: FBT001 - as in require
        block.require(field, holds, expected, where=where, at=at)

    need("role_count", 0 < block.role_count <= ROLES_MAX, f"1 to {ROLES_MAX}")
    need("count", block.count <= block.role_count, "no more than there are roles")
    length = Superblock1.SIZE + 2 * block.role_count
    data = bytearray(read_bytes(member, at, length + length % 4))
    place = Superblock1.FIELDS["checksum"].at
    data[place : place + 4] = bytes(4)
    data[length:] = bytes(len(data) - length)
    if _sum(data, "little") != block.checksum:
        raise CorruptImageError("the RAID superblock does not match its checksum", name=where)
    need("device", block.device < block.role_count, "one of the roles")
    start = Superblock1.SIZE + 2 * block.device
    role = int.from_bytes(data[start : start + 2], "little")
    is_member = role < _SPECIAL_ROLES and role < block.count and not block.features & _RECOVERING
    offset, size = block.data_offset * SECTOR_BYTES, block.data_size * SECTOR_BYTES
    limit = at if at >= offset else member.size
    need("data_offset", offset + size <= limit, "data that ends before the device does")
    used = block.size * SECTOR_BYTES
    need("size", used <= size, "no more than there is room for")
    unknown = block.features & ~(_HARMLESS | _RECOVERING)
    problem = f"it needs the features 0x{unknown:x}" if unknown else None
    if _has_bad_blocks(member, block, at):
        problem = "it has bad blocks"
    name = block.name.partition(b"\0")[0].decode("utf-8", "replace").rpartition(":")[2]
    return Member(
        array=block.array_uuid,
        name=_name(name, block.array_uuid),
        level=block.level,
        count=block.count,
        role=role if is_member else None,
        events=block.events,
        is_clean=block.synced_to == ALL_DONE,
        offset=offset,
        length=used if block.level > 0 else size,
        chunk=block.chunk * SECTOR_BYTES,
        problem=problem,
    )


def _has_bad_blocks(member: Source, block: Superblock1, at: int) -> bool:
    """Whether this device lacks some blocks that another one may have."""
    if not block.features & _BAD_BLOCKS:
        return False
    start = at + block.bad_blocks_at * SECTOR_BYTES
    entry = int.from_bytes(read_bytes(member, start, 8), "little")
    return block.bad_blocks_size > 0 and entry not in (0, ALL_DONE)


def _old(member: Source, at: int) -> Member | None:
    data = read_bytes(member, at, OLD_BYTES)
    order = "little" if int.from_bytes(data[:4], "little") == MAGIC else "big"
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    block = SuperblockOld.unpack(
        b"".join(word.to_bytes(4, "little") for word in words[: SuperblockOld.SIZE // 4])
    )
    if block.magic != MAGIC or block.major != 0:
        return None
    where = member.name
    place = SuperblockOld.FIELDS["checksum"].at
    if _sum(data[:place] + bytes(4) + data[place + 4 :], order) != block.checksum:
        raise CorruptImageError("the RAID superblock does not match its checksum", name=where)
    block.require("count", block.count <= _OLD_DISKS_MAX, f"{_OLD_DISKS_MAX}", where=where, at=at)
    own = _OLD_DISKS_AT + _OLD_DISKS_MAX * _OLD_DISK_WORDS
    role, state = words[own + 3], words[own + 4]
    is_member = state & _OLD_STATE_BITS == _OLD_IN_SYNC and role < block.count
    used = block.size * KIB
    block.require("size", used <= at, "data that ends before the superblock", where=where, at=at)
    chunk = words[65]
    if block.level <= 0:  # each member gives what it has
        used = at
    return Member(
        array=block.uuid_0.to_bytes(4, "little") + block.uuid_rest,
        name=f"md{block.number}",
        level=block.level,
        count=block.count,
        role=role if is_member else None,
        events=int.from_bytes(block.events, "little")
        if order == "little"
        else words[39] << 32 | words[40],
        is_clean=bool(block.state & _OLD_CLEAN),
        offset=0,
        length=used,
        chunk=chunk,
        problem=None if block.minor == 90 else "it is being reshaped",
    )


def _name(name: str, uuid: bytes) -> str:
    """``md0`` of a number, ``md/root`` of a name."""
    if name.isascii() and name.isdigit():
        return f"md{name}"
    return f"md/{name or uuid.hex()[:8]}"


def _sum(data: bytes | bytearray, order: str) -> int:
    """Of all words of 32 bits, carried around."""
    words = array("I", bytes(data))
    if order != sys.byteorder:
        words.byteswap()
    total = sum(words)
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF
