"""The structures of EWF files, version 1: E01, L01 and SMART's S01.

Source: J. Metz, *Expert Witness Compression Format*, 0.0.86 (documentation of libewf);
A. Rosen, *ASR Data's Expert Witness Compression Format* (2002).
"""

from __future__ import annotations

from typing import Final

from isal import isal_zlib

from imprint.core.layout import Structure, raw, uint

MAGIC_E01: Final = b"EVF\x09\r\n\xff\0"
MAGIC_L01: Final = b"LVF\x09\r\n\xff\0"
MAGIC_ENCRYPTED: Final = b"ADCRYPT\0"

VOLUME_BYTES: Final = 1052
SMART_VOLUME_BYTES: Final = 94
SMART_SIGNATURE: Final = b"SMART"

FLAG_COMPRESSED: Final = 0x8000_0000
OFFSET_MASK: Final = 0x7FFF_FFFF

MEDIA_TYPES: Final = {0: "removable", 1: "fixed", 3: "optical", 14: "logical", 16: "memory"}
MEDIA_FIXED: Final = 1
MEDIA_IS_IMAGE: Final = 1
MEDIA_IS_PHYSICAL: Final = 2
MEDIA_FASTBLOC: Final = 4
MEDIA_TABLEAU: Final = 8

COMPRESSION_LEVELS: Final = {0: "none", 1: "fast", 2: "best"}

CHECKSUM_BYTES: Final = 4
SESSION_IS_AUDIO: Final = 1


class FileHeader(Structure, size=13, endian="<"):
    """Section "File header": begins every segment."""

    signature: bytes = raw(8, at=0, doc="EVF, LVF")
    start: int = uint(1, at=8, doc="1", default=1)
    segment: int = uint(2, at=9, doc="number of the segment, from 1")
    end: int = uint(2, at=11, doc="0")


class Descriptor(Structure, size=76, endian="<"):
    """Section "Section descriptor"."""

    type: bytes = raw(16, at=0, doc="what the section is")
    next: int = uint(8, at=16, doc="where the next one begins; its own place if there is none")
    size: int = uint(8, at=24, doc="with this descriptor; 0 where nothing follows it")
    checksum: int = uint(4, at=72, doc="Adler-32 of what is before it")


class Volume(Structure, size=VOLUME_BYTES, endian="<"):
    """Sections "volume", "disk" and "data" of EnCase and FTK Imager."""

    media_type: int = uint(1, at=0, doc="what the disk was")
    chunks: int = uint(4, at=4, doc="in all segments")
    sectors_per_chunk: int = uint(4, at=8, doc="64 by default")
    sector_size: int = uint(4, at=12, doc="in bytes")
    sectors: int = uint(8, at=16, doc="of the disk; upper half unused before EnCase 6")
    media_flags: int = uint(1, at=36, doc="image, physical, write blockers")
    smart_start: int = uint(4, at=48, doc="SMART logs, sectors before the end")
    compression: int = uint(1, at=52, doc="level")
    granularity: int = uint(4, at=56, doc="sectors that are given up together after an error")
    set_id: bytes = raw(16, at=64, doc="GUID of the set of segments")
    checksum: int = uint(4, at=1048, doc="Adler-32 of what is before it")


class SmartVolume(Structure, size=SMART_VOLUME_BYTES, endian="<"):
    """Section "volume" of the original specification."""

    chunks: int = uint(4, at=4, doc="in all segments")
    sectors_per_chunk: int = uint(4, at=8, doc="64")
    sector_size: int = uint(4, at=12, doc="512")
    sectors: int = uint(4, at=16, doc="of the disk")
    signature: bytes = raw(5, at=85, doc="SMART")
    checksum: int = uint(4, at=90, doc="Adler-32 of what is before it")


class TableHeader(Structure, size=24, endian="<"):
    """Sections "table" and "table2": what is before the entries."""

    entries: int = uint(4, at=0, doc="number of chunks")
    base: int = uint(8, at=8, doc="what offsets are relative to, since EnCase 6")
    checksum: int = uint(4, at=20, doc="Adler-32 of what is before it")


class ErrorHeader(Structure, size=520, endian="<"):
    """Section "error2": what is before its entries of start and count, 4 bytes each."""

    entries: int = uint(4, at=0, doc="number of runs of sectors")
    checksum: int = uint(4, at=516, doc="Adler-32 of what is before it")


class SessionHeader(Structure, size=36, endian="<"):
    """Section "session": what is before its entries."""

    entries: int = uint(4, at=0, doc="number of tracks")
    checksum: int = uint(4, at=32, doc="Adler-32 of what is before it")


class SessionEntry(Structure, size=32, endian="<"):
    """One track of an optical disc."""

    flags: int = uint(4, at=0, doc="1: audio")
    start: int = uint(4, at=4, doc="sector; the first one says 16 and means 0")


class Digest(Structure, size=80, endian="<"):
    """Section "digest": since EnCase 6.12."""

    md5: bytes = raw(16, at=0, doc="of the disk; zeros: not set")
    sha1: bytes = raw(20, at=16, doc="likewise")
    checksum: int = uint(4, at=76, doc="Adler-32 of what is before it")


class Hash(Structure, size=36, endian="<"):
    """Section "hash"."""

    md5: bytes = raw(16, at=0, doc="of the disk; zeros: not set")
    checksum: int = uint(4, at=32, doc="Adler-32 of what is before it")


def adler32(data: bytes | bytearray | memoryview) -> int:
    """The checksum that all structures and stored chunks have (RFC 1950)."""
    return isal_zlib.adler32(data)


def is_sound(data: bytes | bytearray | memoryview) -> bool:
    """Whether the last 4 bytes are the checksum of what is before them."""
    stored = bytes(data[-CHECKSUM_BYTES:])
    return len(data) > CHECKSUM_BYTES and adler32(data[:-CHECKSUM_BYTES]) == int.from_bytes(
        stored, "little"
    )


def sealed(structure: Structure) -> bytes:
    """A structure that ends with its checksum, as it stands in the file."""
    return with_checksum(structure.pack()[:-CHECKSUM_BYTES])


def with_checksum(data: bytes) -> bytes:
    """``data`` and its Adler-32."""
    return data + adler32(data).to_bytes(CHECKSUM_BYTES, "little")


def section(kind: bytes, data: bytes, position: int, *, is_last: bool = False) -> bytes:
    """A section at ``position``: its descriptor and ``data``."""
    return describe(kind, position, len(data), is_last=is_last) + data


def describe(kind: bytes, position: int, length: int, *, is_last: bool = False) -> bytes:
    """The descriptor of a section at ``position`` with ``length`` bytes of data."""
    size = Descriptor.SIZE + length
    return sealed(
        Descriptor(
            type=kind, next=position if is_last else position + size, size=0 if is_last else size
        )
    )
