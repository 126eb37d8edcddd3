"""Structures of ECMA-167 as UDF uses them, and what says that one of them is sound.

Source: ECMA-167, 3rd edition: part 3 (volumes), part 4 (files); OSTA Universal Disk Format
Specification 1.02 to 2.60, section 2.
"""

from __future__ import annotations

import binascii
import struct
from typing import Final

from imprint.core.layout import Structure, raw, uint

DOMAIN: Final = b"*OSTA UDF Compliant"
"""Who defines what the contents mean."""

PRIMARY: Final = 1
ANCHOR: Final = 2
POINTER: Final = 3
PARTITION: Final = 5
LOGICAL_VOLUME: Final = 6
TERMINATING: Final = 8
FILE_SET: Final = 256
NAME: Final = 257
EXTENT_OF_DESCRIPTORS: Final = 258
INDIRECT: Final = 259
FILE: Final = 261
EXTENDED_FILE: Final = 266
BITMAP: Final = 264

LONG_AD: Final = struct.Struct("<IIH6x")
"""Length, whose upper two bits say what it is; block; partition."""

SHORT_AD: Final = struct.Struct("<II")
EXTENDED_AD: Final = struct.Struct("<IIIIH2x")
"""Length, recorded bytes, bytes of information, block, partition."""

LENGTH_MASK: Final = (1 << 30) - 1
RECORDED: Final = 0
CONTINUED: Final = 3
"""Of an allocation descriptor: it leads to more of them. 1 and 2 are holes."""

EMBEDDED: Final = 3
"""Of an ICB's flags: the content stands where the allocation descriptors would."""

SETUID: Final = 1 << 6
SETGID: Final = 1 << 7
STICKY: Final = 1 << 8
SYSTEM: Final = 1 << 10

STRATEGY_CHAINED: Final = 4096
"""Each change is another entry, to which an indirect one leads."""


class Tag(Structure, size=16, endian="<"):
    """What each descriptor begins with."""

    id: int = uint(2, at=0, doc="see above")
    checksum: int = uint(1, at=4, doc="sum of the other 15 bytes")
    crc: int = uint(2, at=8, doc="of what follows")
    crc_length: int = uint(2, at=10, doc="bytes")
    location: int = uint(4, at=12, doc="the block that it is in")


_TAG: Final = struct.Struct("<4xB3xHHI")
"""The same without what it is, as numbers and not as a structure: each name of a folder has one."""


class Anchor(Structure, size=32, endian="<"):
    """Where the volume descriptors are, and their copy."""

    length: int = uint(4, at=16, doc="bytes")
    location: int = uint(4, at=20, doc="block")
    reserve_length: int = uint(4, at=24, doc="bytes")
    reserve_location: int = uint(4, at=28, doc="block")


class Pointer(Structure, size=28, endian="<"):
    """Where the volume descriptors go on."""

    sequence: int = uint(4, at=16, doc="the highest is valid")
    length: int = uint(4, at=20, doc="bytes")
    location: int = uint(4, at=24, doc="block")


class Primary(Structure, size=512, endian="<"):
    """A primary volume descriptor."""

    sequence: int = uint(4, at=16, doc="the highest is valid")
    volume_set_id: bytes = raw(128, at=72, doc="a dstring; unique in its first 16 characters")
    recorded: bytes = raw(12, at=376, doc="when it was written")


class PartitionDescriptor(Structure, size=512, endian="<"):
    """A partition of the volume."""

    sequence: int = uint(4, at=16, doc="the highest is valid")
    number: int = uint(2, at=22, doc="by which maps name it")
    free_bitmap: int = uint(4, at=64, doc="length of the bitmap of unallocated space")
    free_bitmap_block: int = uint(4, at=68, doc="where that is")
    access: int = uint(4, at=184, doc="1 read-only, 2 write-once, 3 and 4 rewritable")
    start: int = uint(4, at=188, doc="block of the volume")
    length: int = uint(4, at=192, doc="blocks")


class LogicalVolume(Structure, size=440, endian="<"):
    """A logical volume descriptor; maps of partitions follow."""

    sequence: int = uint(4, at=16, doc="the highest is valid")
    volume_id: bytes = raw(128, at=84, doc="a dstring: the label")
    block_size: int = uint(4, at=212, doc="bytes; that of a sector")
    domain: bytes = raw(23, at=217, doc="DOMAIN")
    file_set: bytes = raw(16, at=248, doc="a long allocation descriptor")
    maps_length: int = uint(4, at=264, doc="bytes of the maps")
    map_count: int = uint(4, at=268, doc="how many there are")


class PartitionMap(Structure, size=64, endian="<"):
    """A map of type 2, as far as UDF defines such."""

    type: int = uint(1, at=0, doc="2")
    id: bytes = raw(23, at=5, doc="which it is")
    number: int = uint(2, at=38, doc="of its partition")
    packet_blocks: int = uint(2, at=40, doc="sparable: of a packet")
    table_count: int = uint(1, at=42, doc="sparable: of copies of the table")
    table_length: int = uint(4, at=44, doc="sparable: bytes")
    tables: bytes = raw(16, at=48, doc="sparable: where they are, blocks of the volume")


class MetadataMap(Structure, size=64, endian="<"):
    """The same of a metadata partition."""

    file: int = uint(4, at=40, doc="block of the metadata file's entry")
    mirror: int = uint(4, at=44, doc="of its copy's")
    bitmap: int = uint(4, at=48, doc="of its bitmap's")


class SparingTable(Structure, size=56, endian="<"):
    """What stands for packets that are defective; pairs of blocks follow."""

    id: bytes = raw(23, at=17, doc="*UDF Sparing Table")
    count: int = uint(2, at=48, doc="of the pairs")
    sequence: int = uint(4, at=52, doc="the highest is valid")


class FileSet(Structure, size=512, endian="<"):
    """A file set descriptor."""

    root: bytes = raw(16, at=400, doc="a long allocation descriptor")


class Entry(Structure, size=64, endian="<"):
    """The beginning of a file entry, in both of its forms."""

    strategy: int = uint(2, at=20, doc="4, or STRATEGY_CHAINED")
    type: int = uint(1, at=27, doc="of the file")
    flags: int = uint(2, at=34, doc="EMBEDDED and others in the lower 3 bits, and SETUID …")
    owner: int = uint(4, at=36, doc="its number; all ones: none")
    group: int = uint(4, at=40, doc="the same")
    permissions: int = uint(4, at=44, doc="5 bits each of others, group, owner")
    links: int = uint(2, at=48, doc="names that it has")
    size: int = uint(8, at=56, doc="of its content, in bytes")


class FileEntry(Entry, size=176, endian="<"):
    """A file entry; extended attributes and allocation descriptors follow."""

    accessed: bytes = raw(12, at=72, doc="a timestamp")
    modified: bytes = raw(12, at=84, doc="a timestamp")
    changed: bytes = raw(12, at=96, doc="a timestamp")
    attributes_length: int = uint(4, at=168, doc="bytes")
    descriptors_length: int = uint(4, at=172, doc="bytes")


class ExtendedFileEntry(Entry, size=216, endian="<"):
    """An extended file entry: with its creation, and streams."""

    accessed: bytes = raw(12, at=80, doc="a timestamp")
    modified: bytes = raw(12, at=92, doc="a timestamp")
    created: bytes = raw(12, at=104, doc="a timestamp")
    changed: bytes = raw(12, at=116, doc="a timestamp")
    streams: bytes = raw(16, at=152, doc="where their folder is: a long allocation descriptor")
    attributes_length: int = uint(4, at=208, doc="bytes")
    descriptors_length: int = uint(4, at=212, doc="bytes")


class Indirect(Structure, size=52, endian="<"):
    """An entry that says where the next one is."""

    next: bytes = raw(16, at=36, doc="a long allocation descriptor")


class Descriptors(Structure, size=24, endian="<"):
    """The head of an extent of allocation descriptors."""

    length: int = uint(4, at=20, doc="bytes that follow")


class SpaceBitmap(Structure, size=24, endian="<"):
    """The head of a bitmap of free blocks."""

    bits: int = uint(4, at=16, doc="blocks that it is of")


class VatHead(Structure, size=152, endian="<"):
    """The head of a virtual allocation table, since revision 2.00."""

    length: int = uint(2, at=0, doc="bytes of the head")


VAT_END: Final = 36
"""Behind the table of revision 1.50: its name, and where the one before is."""

VAT_NAME: Final = b"*UDF Virtual Alloc Tbl"


def id_of(data: bytes | bytearray) -> int:
    """Which descriptor begins there, by its tag."""
    return data[0] | data[1] << 8


def problem_of(data: bytes, location: int | None) -> str | None:
    """What is wrong with the tag of a descriptor; ``None``: nothing.

    Args:
        data: begins with it, and has as much of what follows as it speaks of.
        location: of it, in blocks; ``None``: not looked at.
    """
    checksum, crc, length, place = _TAG.unpack_from(data)
    total = (sum(data[: Tag.SIZE]) - checksum) & 0xFF
    if total != checksum:
        return f"its tag has the checksum 0x{checksum:02x}, expected 0x{total:02x}"
    covered = data[Tag.SIZE : Tag.SIZE + length]
    if len(covered) < length:
        return f"its CRC is of {length} bytes, expected at most {len(covered)}"
    found = binascii.crc_hqx(covered, 0)
    if found != crc:
        return f"it has the CRC 0x{crc:04x}, expected 0x{found:04x}"
    if location is not None and place != location:
        return f"it says to be in block {place}, expected {location}"
    return None
