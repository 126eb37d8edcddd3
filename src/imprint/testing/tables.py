"""Partition tables made by their specification, so that tests can make them wrong."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from imprint.core.units import MIB

SECTOR_BYTES: Final = 512
ENTRY_BYTES: Final = 128
GPT_DISK_BYTES: Final = 1 * MIB
GPT_LAST_LBA: Final = GPT_DISK_BYTES // SECTOR_BYTES - 1
GPT_BACKUP_ENTRIES_LBA: Final = GPT_LAST_LBA - 32

_BOOT_SIGNATURE: Final = b"\x55\xaa"
_ENTRIES_AT: Final = 446


def gpt_entry(first_lba: int, last_lba: int, *, name: str = "", attributes: int = 0) -> bytes:
    """An entry of a GPT whose GUIDs are the bytes 0 to 15, and 16 to 31."""
    kind, own = bytes(range(16)), bytes(range(16, 32))
    text = name.encode("utf-16-le")
    return struct.pack("<16s16sQQQ72s", kind, own, first_lba, last_lba, attributes, text)


def gpt_disk() -> bytearray:
    """A sound disk with partitions 1 (sectors 64 to 127, ``one``) and 3 (128 to 255)."""
    disk = bytearray(GPT_DISK_BYTES)
    entries = bytearray(128 * ENTRY_BYTES)
    entries[:ENTRY_BYTES] = gpt_entry(64, 127, name="one")
    entries[2 * ENTRY_BYTES : 3 * ENTRY_BYTES] = gpt_entry(128, 255, attributes=5)
    put_gpt(disk, entries)
    put_backup_gpt(disk, entries)
    disk[:SECTOR_BYTES] = mbr_record(mbr_entry(0xEE, 1, GPT_LAST_LBA))
    return disk


def put_gpt(
    disk: bytearray,
    entries: bytes | bytearray,
    *,
    lba: int = 1,
    other_lba: int = GPT_LAST_LBA,
    entries_lba: int = 2,
    entry_count: int = 128,
    entry_size: int = ENTRY_BYTES,
) -> None:
    """Write one copy of a table: its checksums are right, whatever else is wrong."""
    guid, entries_crc = bytes(range(16)), zlib.crc32(entries)
    numbers = (entries_lba, entry_count, entry_size, entries_crc)
    tail = struct.pack("<QQQQ16sQIII", lba, other_lba, 34, 2014, guid, *numbers)
    head = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, 0, 0)
    crc = zlib.crc32(head + tail)
    head = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, crc, 0)
    _put(disk, lba, head + tail)
    _put(disk, entries_lba, entries)


def put_backup_gpt(disk: bytearray, entries: bytes | bytearray) -> None:
    """The second copy, where it belongs on a disk of :data:`GPT_DISK_BYTES`."""
    put_gpt(disk, entries, lba=GPT_LAST_LBA, other_lba=1, entries_lba=GPT_BACKUP_ENTRIES_LBA)


def mbr_entry(type_: int, start_lba: int, sector_count: int, *, status: int = 0) -> bytes:
    """An entry of a boot record."""
    return struct.pack("<B3xB3xII", status, type_, start_lba, sector_count)


def mbr_record(*entries: bytes) -> bytes:
    """A boot record: an MBR, or an extended one."""
    table = b"".join(entries).ljust(64, b"\0")
    return bytes(_ENTRIES_AT) + table + _BOOT_SIGNATURE


def mbr_disk(records: dict[int, bytes], *, sector_count: int = 2000) -> bytearray:
    """A disk with boot records in the given sectors."""
    disk = bytearray(sector_count * SECTOR_BYTES)
    for lba, record in records.items():
        _put(disk, lba, record)
    return disk


def _put(disk: bytearray, lba: int, content: bytes | bytearray) -> None:
    disk[lba * SECTOR_BYTES : lba * SECTOR_BYTES + len(content)] = content


def apm_entry(
    count: int, start: int, length: int, kind: str, *, name: str = "", status: int = 0x33
) -> bytes:
    """An entry of an Apple partition map, in blocks."""
    names = struct.pack(">32s32s", name.encode("mac_roman"), kind.encode("mac_roman"))
    head = struct.pack(">2s2xIII", b"PM", count, start, length)
    return (head + names + struct.pack(">III", 0, length, status)).ljust(SECTOR_BYTES, b"\0")


def apm_disk(
    *entries: bytes, block_size: int = SECTOR_BYTES, driver_block_size: int | None = None
) -> bytearray:
    """A disk of 1 MiB with these entries, and a driver descriptor record unless its size is 0."""
    disk = bytearray(MIB)
    if driver_block_size != 0:
        said = block_size if driver_block_size is None else driver_block_size
        disk[:8] = struct.pack(">2sHI", b"ER", said, MIB // block_size)
    for number, entry in enumerate(entries, start=1):
        disk[number * block_size : number * block_size + len(entry)] = entry
    return disk


def xor16(data: bytes | bytearray) -> int:
    """The exclusive or of all words of 16 bits, little-endian."""
    result = 0
    for (word,) in struct.iter_unpack("<H", data):
        result ^= word
    return result


def bsd_label(
    *entries: tuple[int, int, int], endian: str = "<", version: int = 0, sector_size: int = 512
) -> bytearray:
    """A BSD label; entries are start, length (both in sectors) and type, from the letter a on.

    Of version 1, with the numbers' upper parts; its disk is then called 0102030405060708.
    """
    label = bytearray(148 + 16 * len(entries))
    struct.pack_into(endian + "I", label, 0, 0x82564557)
    struct.pack_into(endian + "I", label, 40, sector_size)
    if version:
        label[64:72] = bytes(range(1, 9))
        struct.pack_into(endian + "H", label, 114, version)
    struct.pack_into(endian + "I", label, 132, 0x82564557)
    struct.pack_into(endian + "H", label, 138, len(entries))
    for number, (start, length, kind) in enumerate(entries):
        low = length & 0xFFFFFFFF, start & 0xFFFFFFFF
        high = start >> 32, length >> 32
        struct.pack_into(endian + "IIHHB", label, 148 + 16 * number, *low, *high, kind)
    struct.pack_into("<H", label, 136, xor16(label))
    return label


def sun_label(*slices: tuple[int, int, int], has_tags: bool = True) -> bytearray:
    """A Sun label with cylinders of 16 sectors; slices are cylinder, sectors and tag."""
    label = bytearray(SECTOR_BYTES)
    for number, (cylinder, sectors, tag) in enumerate(slices):
        struct.pack_into(">II", label, 444 + 8 * number, cylinder, sectors)
        if has_tags:
            struct.pack_into(">HH", label, 142 + 4 * number, tag, 0)
    if has_tags:
        struct.pack_into(">I", label, 128, 1)
        struct.pack_into(">H", label, 140, 8)
        struct.pack_into(">I", label, 188, 0x600DDEEE)
    struct.pack_into(">HHHH", label, 432, 100, 0, 4, 4)
    struct.pack_into(">H", label, 508, 0xDABE)
    struct.pack_into("<H", label, 510, xor16(label))
    return label


def disk_with(*pieces: tuple[int, bytes | bytearray], size: int = MIB) -> bytearray:
    """A disk of zeros but for pieces, each at its byte."""
    disk = bytearray(size)
    for at, content in pieces:
        disk[at : at + len(content)] = content
    return disk
