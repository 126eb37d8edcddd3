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
