"""Members of containers for tests, made by their specification: no kernel driver is needed.

``lvs`` and ``mdadm --examine`` judge them in ``tests/oracle``.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import Final

from imprint.core.units import KIB

SECTOR: Final = 512
DONE: Final = (1 << 64) - 1
LVM_TEXT_AT: Final = 4 * KIB + SECTOR
_LVM_SEED: Final = 0xF597A6CF ^ 0xFFFFFFFF
_LVM_AREA: Final = 4 * KIB
_LVM_AREA_BYTES: Final = 60 * KIB
_RAID_MAGIC: Final = 0xA92B4EFC


def lvm_member(uuid: str, text: str | None, size: int) -> bytearray:
    """A physical volume of LVM2 whose data is zeros; extents may begin at 64 KiB.

    Args:
        uuid: 32 characters.
        text: of its metadata; ``None``: it belongs to no group.
        size: in bytes.
    """
    member = bytearray(size)
    head = struct.pack("<I8s", 32, b"LVM2 001") + uuid.encode() + struct.pack("<Q", size)
    head += struct.pack("<8Q", 64 * KIB, 0, 0, 0, _LVM_AREA, _LVM_AREA_BYTES, 0, 0)
    member[SECTOR : SECTOR + 20 + len(head)] = struct.pack("<8sQI", b"LABELONE", 1, 0) + head
    member[_LVM_AREA : _LVM_AREA + 40] = struct.pack(
        "<I16sIQQ", 0, b" LVM2 x[5A%r0N*>", 1, _LVM_AREA, _LVM_AREA_BYTES
    )
    if text is not None:
        data = text.encode() + b"\0"
        member[LVM_TEXT_AT : LVM_TEXT_AT + len(data)] = data
        locator = struct.pack("<QQII", SECTOR, len(data), 0, 0)
        member[_LVM_AREA + 40 : _LVM_AREA + 64] = locator
    seal_lvm(member)
    return member


def seal_lvm(member: bytearray) -> None:
    """Make the checksums of label, area and text right, as far as these are in their places."""
    if len(member) < LVM_TEXT_AT:
        return
    length = int.from_bytes(member[_LVM_AREA + 48 : _LVM_AREA + 56], "little")
    text = member[LVM_TEXT_AT : LVM_TEXT_AT + min(length, _LVM_AREA_BYTES)]
    member[_LVM_AREA + 56 : _LVM_AREA + 60] = _lvm_crc(text)
    member[_LVM_AREA : _LVM_AREA + 4] = _lvm_crc(member[_LVM_AREA + 4 : _LVM_AREA + SECTOR])
    member[SECTOR + 16 : SECTOR + 20] = _lvm_crc(member[SECTOR + 20 : 2 * SECTOR])


def _lvm_crc(data: bytes | bytearray) -> bytes:
    return (zlib.crc32(data, _LVM_SEED) ^ 0xFFFFFFFF).to_bytes(4, "little")


def lvm_text(volumes: str, *, uuids: tuple[str, ...], extents: int = 16, sequence: int = 1) -> str:
    """The metadata of a group ``vg`` with extents of 64 KiB, on as many physical volumes.

    Args:
        volumes: sections of logical volumes.
        uuids: of ``pv0`` and so on, 32 characters each.
        extents: of each of them.
        sequence: of the metadata.
    """
    physical = "".join(
        f'pv{index} {{ id = "{_dashed(uuid)}" device = "/dev/none" status = ["ALLOCATABLE"]\n'
        f"flags = [] dev_size = {extents * 128 + 128} pe_start = 128 pe_count = {extents} }}\n"
        for index, uuid in enumerate(uuids)
    )
    return (
        f'vg {{ id = "{_dashed("G" * 32)}" seqno = {sequence} format = "lvm2"\n'
        'status = ["RESIZEABLE", "READ", "WRITE"] flags = []\n'
        "extent_size = 128 max_lv = 0 max_pv = 0 metadata_copies = 0\n"
        f"physical_volumes {{ {physical} }}\nlogical_volumes {{ {volumes} }} }}\n"
        '# a comment\ncontents = "Text Format Volume Group"\nversion = 1\n'
        'description = "" creation_host = "here" creation_time = 1452379784\n'
    )


def lvm_volume(name: str, *segments: str, visible: bool = True) -> str:
    """A logical volume; each segment is ``COUNT TYPE`` and the rest of its section."""
    status = '"READ", "WRITE"' + (', "VISIBLE"' if visible else "")
    parts, start = [], 0
    for number, segment in enumerate(segments, 1):
        count, kind, rest = (*segment.split(" ", 2), "")[:3]
        parts.append(
            f"segment{number} {{ start_extent = {start} extent_count = {count}\n"
            f'type = "{kind}" {rest} }}\n'
        )
        start += int(count)
    identity = _dashed((name * 32)[:32].replace("_", "x"))
    return (
        f'{name} {{ id = "{identity}" status = [{status}] flags = []\n'
        f'creation_host = "here" creation_time = 1452379784 segment_count = {len(segments)}\n'
        f"{''.join(parts)} }}\n"
    )


def linear(count: int, place: str, extent: int) -> str:
    """A segment on one physical or logical volume."""
    return f'{count} striped stripe_count = 1 stripes = [ "{place}", {extent} ]'


def _dashed(uuid: str) -> str:
    borders = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(uuid[a:b] for a, b in itertools.pairwise(borders))


def raid_member(
    data: bytes,
    *,
    level: int = 1,
    role: int = 0,
    count: int = 2,
    version: str = "1.2",
    events: int = 7,
    chunk: int = 0,
    clean: bool = True,
    features: int = 0,
    name: str = "here:5",
) -> bytearray:
    """A member of an array of Linux RAID, with its superblock of version 1.

    Args:
        data: what it holds for the array, whole multiples of 4 KiB.
        level: 1, 0, or -1 for linear.
        role: its place; 0xffff for a spare.
        count: of members.
        version: 1.0, 1.1 or 1.2.
        events: how recent it is.
        chunk: in bytes.
        clean: whether the members agree.
        features: bits.
        name: of the array.
    """
    offset = 0 if version == "1.0" else 64 * KIB
    size = offset + len(data) + 64 * KIB
    at = {"1.0": size - 8 * KIB, "1.1": 0, "1.2": 4 * KIB}[version]
    member = bytearray(size)
    member[offset : offset + len(data)] = data
    block = bytearray(256 + 2 * 128)
    sectors = len(data) // SECTOR
    struct.pack_into("<4I16s32s", block, 0, _RAID_MAGIC, 1, features, 0, b"A" * 16, name.encode())
    struct.pack_into("<QiIQII", block, 64, 1, level, 0, sectors, chunk // SECTOR, count)
    struct.pack_into("<4Q", block, 128, offset // SECTOR, sectors, at // SECTOR, 0)
    device = min(role, count)
    struct.pack_into("<II16s", block, 160, device, 0, bytes([device]) * 16)
    struct.pack_into("<QQQII", block, 192, 1, events, DONE if clean else 0, 0, 128)
    roles = [*range(count), *[0xFFFF] * (128 - count)]
    roles[device] = role
    struct.pack_into("<128H", block, 256, *roles)
    member[at : at + len(block)] = block
    seal_raid(member, at)
    return member


def seal_raid(member: bytearray, at: int) -> None:
    """Make the checksum of a superblock of version 1 with 128 roles right."""
    member[at + 216 : at + 220] = bytes(4)
    total = sum(struct.unpack("<128I", member[at : at + 512]))
    total = (total & 0xFFFFFFFF) + (total >> 32)
    member[at + 216 : at + 220] = (total & 0xFFFFFFFF).to_bytes(4, "little")


def old_raid_member(
    data: bytes, *, level: int = 1, role: int = 0, count: int = 2, order: str = "<", chunk: int = 0
) -> bytearray:
    """A member with a superblock of version 0.90, in the byte order of a machine.

    Args:
        data: what it holds for the array, whole multiples of 64 KiB.
        level: 1, 0, or -1 for linear.
        role: its place.
        count: of members.
        order: ``<`` or ``>``.
        chunk: in bytes.
    """
    words = [0] * 1024
    words[:8] = [_RAID_MAGIC, 0, 90, 0, 992, 0x11111111, 1, level & 0xFFFFFFFF]
    words[8:16] = [len(data) // KIB, count, count, 3, 0, 0x22222222, 0x33333333, 0x44444444]
    words[32:38] = [1, 1, count, count, 0, 0]
    words[39 if order == "<" else 40] = 9  # the low half of the events
    words[65] = chunk
    for number in range(count):
        words[128 + 32 * number : 133 + 32 * number] = [number, 7, number, number, 6]
    words[992:997] = [role, 7, role, role, 6]
    total = sum(words)
    words[38] = ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF
    return bytearray(data + struct.pack(f"{order}1024I", *words) + bytes(60 * KIB))
