"""VHDX on-disk structures.

::

    0          file identifier
    64 KiB     header 1        128 KiB    header 2
    192 KiB    region table 1  256 KiB    region table 2
    1 MiB …    log, metadata, block allocation table (BAT) and blocks, in any order,
               each at a multiple of 1 MiB

All integers are little-endian, GUIDs in Microsoft's byte order, offsets count from the start
of the file. Checksums are CRC-32C over the whole structure, with the checksum itself as 0.

Source: [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format", the sections named at each class.
"""

from __future__ import annotations

import uuid
from typing import Final

from imprint.codecs.crc32c import crc32c
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB, MIB, TIB

SIGNATURE: Final = b"vhdxfile"
HEADER_OFFSETS: Final = (64 * KIB, 128 * KIB)
REGION_TABLE_OFFSETS: Final = (192 * KIB, 256 * KIB)
REGION_TABLE_BYTES: Final = 64 * KIB
REGION_COUNT_MAX: Final = 2047
HEADER_SECTION_BYTES: Final = 1 * MIB
ALIGNMENT: Final = 1 * MIB
"""Of everything behind the header section."""

SECTOR_SIZES: Final = (512, 4096)
BLOCK_SIZE_MIN: Final = 1 * MIB
BLOCK_SIZE_MAX: Final = 256 * MIB
DISK_BYTES_MAX: Final = 64 * TIB
CHUNK_SECTORS: Final = 1 << 23
"""Sectors that one sector bitmap block stands for: a bit each, in 1 MiB."""

FILE_BYTES_MAX: Final = 65 * TIB
"""Of a file that is written to: no VHDX needs more."""

ENTRY_COUNT_MAX: Final = 1 << 24
"""Entries of the BAT, 128 MiB: 16 TiB in blocks of 1 MiB. Refuse more before allocating it."""

NO_GUID: Final = bytes(16)


def guid(text: str) -> bytes:
    """A GUID as it is stored."""
    return uuid.UUID(text).bytes_le


def guid_text(stored: bytes) -> str:
    """A stored GUID as people write it."""
    return str(uuid.UUID(bytes_le=stored))


REGION_BAT: Final = guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
REGION_METADATA: Final = guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")

# States of a payload block: the low three bits of its entry. Section 2.5.1.1.
NOT_PRESENT: Final = 0
"""Never written: reads from the parent, else as zeros."""
UNDEFINED: Final = 1
"""Content was given up; we read zeros."""
ZERO: Final = 2
"""Reads as zeros, even over a parent."""
UNMAPPED: Final = 3
"""Trimmed; the file may still hold the old bytes, which nobody may rely on. We read zeros."""
FULLY_PRESENT: Final = 6
PARTIALLY_PRESENT: Final = 7
"""In a differencing image: the sector bitmap says which sectors are here."""
STATES: Final = (NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY_PRESENT, PARTIALLY_PRESENT)
STORED: Final = (FULLY_PRESENT, PARTIALLY_PRESENT)
STATE_MASK: Final = 7
OFFSET_MASK: Final = ~(MIB - 1) & 0xFFFFFFFFFFFFFFFF
"""The entry's FileOffsetMB begins at bit 20, so that what is above is the offset in bytes."""


class Identifier(Structure, size=520, endian="<"):
    """The file's first bytes. Section 2.2.1."""

    signature: bytes = raw(8, at=0, doc="SIGNATURE")
    creator: bytes = raw(512, at=8, doc="UTF-16, who made the file; for diagnosis only")


class Header(Structure, size=4096, endian="<"):
    """One of two; of the valid ones, that with the higher number counts. Section 2.2.2."""

    signature: bytes = raw(4, at=0, doc="'head'")
    checksum: int = uint(4, at=4, doc="of these 4096 bytes")
    sequence: int = uint(8, at=8, doc="grows with every write of a header")
    file_write_guid: bytes = raw(16, at=16, doc="changes when the file is first written")
    data_write_guid: bytes = raw(16, at=32, doc="changes when the disk's content is")
    log_guid: bytes = raw(16, at=48, doc="of the log's entries that count; zeros: none do")
    log_version: int = uint(2, at=64, doc="0")
    version: int = uint(2, at=66, doc="1")
    log_length: int = uint(4, at=68, doc="a multiple of 1 MiB")
    log_offset: int = uint(8, at=72, doc="a multiple of 1 MiB")


class RegionHeader(Structure, size=16, endian="<"):
    """In front of the region table's entries. Section 2.2.3.1."""

    signature: bytes = raw(4, at=0, doc="'regi'")
    checksum: int = uint(4, at=4, doc="of the table's 64 KiB")
    count: int = uint(4, at=8, doc="of entries, at most 2047")


class RegionEntry(Structure, size=32, endian="<"):
    """Where something is. Section 2.2.3.2."""

    guid: bytes = raw(16, at=0, doc="REGION_…")
    offset: int = uint(8, at=16, doc="a multiple of 1 MiB")
    length: int = uint(4, at=24, doc="a multiple of 1 MiB")
    required: int = uint(4, at=28, doc="bit 0: who does not know it must not open the file")


class EntryHeader(Structure, size=64, endian="<"):
    """The start of a log entry, at a multiple of 4 KiB of the log. Section 2.3.1.1."""

    signature: bytes = raw(4, at=0, doc="'loge'")
    checksum: int = uint(4, at=4, doc="of the whole entry")
    length: int = uint(4, at=8, doc="of the entry, a multiple of 4 KiB")
    tail: int = uint(4, at=12, doc="where in the log the oldest entry is that has to be replayed")
    sequence: int = uint(8, at=16, doc="one more than that of the entry before; never 0")
    descriptor_count: int = uint(4, at=24, doc="of what follows at 64")
    log_guid: bytes = raw(16, at=32, doc="the header's, if the entry counts")
    flushed_file_offset: int = uint(8, at=48, doc="the file was at least so long, durably")
    last_file_offset: int = uint(8, at=56, doc="the file has to become at least so long")


class Descriptor(Structure, size=32, endian="<"):
    """What an entry changes. Sections 2.3.1.2 (``zero``) and 2.3.1.3 (``desc``)."""

    signature: bytes = raw(4, at=0, doc="'desc': a sector of data; 'zero': a run of zeros")
    trailing: bytes = raw(4, at=4, doc="of 'desc': the sector's last 4 bytes")
    leading: bytes = raw(8, at=8, doc="of 'desc': its first 8; of 'zero': the length in bytes")
    offset: int = uint(8, at=16, doc="in the file, a multiple of 4 KiB")
    sequence: int = uint(8, at=24, doc="the entry's")


class DataSector(Structure, size=4096, endian="<"):
    """A sector of data in a log entry. Section 2.3.1.4."""

    signature: bytes = raw(4, at=0, doc="'data'")
    sequence_high: int = uint(4, at=4, doc="upper half of the entry's number")
    data: bytes = raw(4084, at=8, doc="the sector without its first 8 and last 4 bytes")
    sequence_low: int = uint(4, at=4092, doc="lower half of the entry's number")


class MetadataHeader(Structure, size=32, endian="<"):
    """In front of the metadata table's entries. Section 2.6.1.1."""

    signature: bytes = raw(8, at=0, doc="'metadata'")
    count: int = uint(2, at=10, doc="of entries, at most 2047")


class MetadataEntry(Structure, size=32, endian="<"):
    """Where an item is. Section 2.6.1.2."""

    guid: bytes = raw(16, at=0, doc="ITEM_…")
    offset: int = uint(4, at=16, doc="from the region's start, at least 64 KiB")
    length: int = uint(4, at=20, doc="in bytes")
    flags: int = uint(4, at=24, doc="1: of the user, 2: of the disk, 4: required")


class LocatorHeader(Structure, size=20, endian="<"):
    """The start of a parent locator. Section 2.6.2.6.1."""

    guid: bytes = raw(16, at=0, doc="LOCATOR_VHDX")
    count: int = uint(2, at=18, doc="of the keys")


class LocatorEntry(Structure, size=12, endian="<"):
    """A key and its value, UTF-16, offsets from the locator's start. Section 2.6.2.6.2."""

    key_offset: int = uint(4, at=0, doc="in bytes")
    value_offset: int = uint(4, at=4, doc="in bytes")
    key_length: int = uint(2, at=8, doc="in bytes")
    value_length: int = uint(2, at=10, doc="in bytes")


def sealed(data: bytes) -> bytes:
    """A structure that has its checksum at byte 4, with that filled in."""
    empty = data[:4] + bytes(4) + data[8:]
    return data[:4] + crc32c(empty).to_bytes(4, "little") + data[8:]


def is_sealed(data: bytes | bytearray) -> bool:
    """Whether the checksum at byte 4 is right."""
    value = crc32c(data[8:], crc32c(bytes(4), crc32c(data[:4])))
    return value.to_bytes(4, "little") == data[4:8]
