"""The structures of EWF files, version 2: Ex01.

Source: J. Metz, *Expert Witness Compression Format 2 (EWF2)* (documentation of libewf).
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, uint
from imprint.formats.ewf.layout import sealed

MAGIC_EX01: Final = b"EVF2\r\n\x81\0"
MAGIC_LX01: Final = b"LEF2\r\n\x81\0"

COMPRESSION_ZLIB: Final = 1
COMPRESSION_BZIP2: Final = 2

DEVICE: Final = 1
CASE: Final = 2
SECTOR_DATA: Final = 3
SECTOR_TABLE: Final = 4
ERRORS: Final = 5
SESSIONS: Final = 6
MD5: Final = 8
SHA1: Final = 9
KEYS: Final = 11
NEXT: Final = 13
DONE: Final = 15

IS_HASHED: Final = 1
IS_ENCRYPTED: Final = 2

CHUNK_COMPRESSED: Final = 1
CHUNK_CHECKSUMMED: Final = 2
CHUNK_PATTERN: Final = 4

TABLE_HEADER_BYTES: Final = 32
"""A header of 20 bytes, and padding up to a multiple of 16."""

ENTRY_BYTES: Final = 16
ALIGNMENT: Final = 16
"""Of chunks and sections."""

PATTERN_BYTES: Final = 8


class FileHeader2(Structure, size=32, endian="<"):
    """Section "File header": begins every segment."""

    signature: bytes = raw(8, at=0, doc="EVF2, LEF2")
    major: int = uint(1, at=8, doc="2", default=2)
    minor: int = uint(1, at=9, doc="1", default=1)
    compression: int = uint(2, at=10, doc="method")
    segment: int = uint(4, at=12, doc="number of the segment, from 1")
    set_id: bytes = raw(16, at=16, doc="GUID of the set of segments")


class Descriptor2(Structure, size=64, endian="<"):
    """Section "Section descriptor": behind the data that it describes."""

    type: int = uint(4, at=0, doc="what the section is")
    flags: int = uint(4, at=4, doc="1: hashed, 2: encrypted")
    previous: int = uint(8, at=8, doc="where the descriptor before this one is; 0: none")
    size: int = uint(8, at=16, doc="of the data, with its padding")
    descriptor_size: int = uint(4, at=24, doc="64")
    padding: int = uint(4, at=28, doc="bytes of padding in the data")
    md5: bytes = raw(16, at=32, doc="of the data")
    checksum: int = uint(4, at=60, doc="Adler-32 of what is before it")


class TableHeader2(Structure, size=20, endian="<"):
    """Sector table: what is before its entries."""

    first_chunk: int = uint(8, at=0, doc="number of the first chunk, in the whole set")
    entries: int = uint(4, at=8, doc="number of chunks")
    checksum: int = uint(4, at=16, doc="Adler-32 of what is before it")


class ListHeader2(Structure, size=20, endian="<"):
    """Error and session tables: what is before their entries."""

    entries: int = uint(4, at=0, doc="their number")
    checksum: int = uint(4, at=16, doc="Adler-32 of what is before it")


class ErrorEntry2(Structure, size=16, endian="<"):
    """Sectors that could not be read."""

    start: int = uint(8, at=0, doc="first sector")
    count: int = uint(4, at=8, doc="number of sectors")


class SessionEntry2(Structure, size=32, endian="<"):
    """One track of an optical disc."""

    start: int = uint(8, at=0, doc="sector; the first one says 16 and means 0")
    flags: int = uint(4, at=8, doc="1: audio")


def padded(data: bytes) -> bytes:
    """``data`` and zeros up to the next multiple of 16 bytes."""
    return data + bytes(-len(data) % ALIGNMENT)


def describe(kind: int, md5: bytes, length: int, *, padding: int, previous: int) -> bytes:
    """The descriptor behind ``length`` bytes of data, ``padding`` of which are none.

    ``previous`` is where the descriptor before this one is; 0: there is none.
    """
    return sealed(
        Descriptor2(
            type=kind,
            flags=IS_HASHED,
            previous=previous,
            size=length,
            descriptor_size=Descriptor2.SIZE,
            padding=padding,
            md5=md5,
        )
    )
