"""Structures of VMDK's extent files, all little endian; units are sectors of 512 bytes.

Source: VMware *Virtual Disk Format 5.0* and *1.1* (hosted sparse extents, streams, COWD); libyal
``libvmdk`` documentation. ESXi's SESparse is described in QEMU ``block/vmdk.c`` only.
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, uint

SECTOR: Final = 512

SPARSE_MAGIC: Final = 0x564D444B
"""``KDMV`` as bytes: a hosted sparse extent."""

COWD_MAGIC: Final = 0x44574F43
"""``COWD``: a sparse extent of ESX, and of Workstation before version 4."""

SESPARSE_MAGIC: Final = 0xCAFEBABE
"""In 64 bits: a space efficient sparse extent of ESXi."""

TEXT_MAGIC: Final = b"# Disk Descriptor"
"""The file is the descriptor itself, and its extents are other files."""

FLAG_NEWLINES: Final = 1 << 0
FLAG_REDUNDANT: Final = 1 << 1
FLAG_ZEROED: Final = 1 << 2
FLAG_COMPRESSED: Final = 1 << 16
FLAG_MARKERS: Final = 1 << 17

COMPRESSION_NONE: Final = 0
COMPRESSION_DEFLATE: Final = 1

VERSION_PLAIN: Final = 1
VERSION_ZEROED: Final = 2
VERSION_STREAM: Final = 3

GD_AT_END: Final = 0xFFFFFFFFFFFFFFFF
"""The grain directory is named by the footer: what a stream's writer did not know yet."""

GTE_ABSENT: Final = 0
GTE_ZERO: Final = 1
"""A grain that reads as zeros, in an extent with ``FLAG_ZEROED``; else it is damage."""
GTE_DATA: Final = 2
"""The first value that is a sector."""

SECTOR_MAX: Final = 0xFFFFFFFF
"""Entries have 32 bits: an extent file holds 2 TiB."""

ENTRIES_PER_TABLE: Final = 512
TABLE_SECTORS: Final = ENTRIES_PER_TABLE * 4 // SECTOR

GRAIN_SECTORS_MAX: Final = 1 << 16
"""32 MiB. VMware's are 64 KiB; what is compressed is decoded grain by grain, in memory."""

DIRECTORY_ENTRIES_MAX: Final = 8 << 20
"""32 MiB of directory: 256 TiB of disk at VMware's grain size, four times its largest disk."""

MARKER_EOS: Final = 0
MARKER_GT: Final = 1
MARKER_GD: Final = 2
MARKER_FOOTER: Final = 3

GRAIN_MARKER_BYTES: Final = 12

COWD_ENTRIES_PER_TABLE: Final = 4096


class SparseHeader(Structure, size=512, endian="<"):
    """``SparseExtentHeader``: packed, so that the compression stands at an odd place."""

    magic: int = uint(4, at=0, doc="magicNumber", default=SPARSE_MAGIC)
    version: int = uint(4, at=4, doc="1; 2 with zeroed grains; 3 of streams", default=1)
    flags: int = uint(4, at=8, doc="FLAG_*")
    capacity: int = uint(8, at=12, doc="of the extent, in sectors")
    grain_size: int = uint(8, at=20, doc="grainSize, in sectors")
    descriptor_offset: int = uint(8, at=28, doc="descriptorOffset; 0: not embedded")
    descriptor_size: int = uint(8, at=36, doc="descriptorSize, in sectors")
    entries_per_table: int = uint(4, at=44, doc="numGTEsPerGT", default=ENTRIES_PER_TABLE)
    redundant_offset: int = uint(8, at=48, doc="rgdOffset")
    directory_offset: int = uint(8, at=56, doc="gdOffset, or GD_AT_END")
    overhead: int = uint(8, at=64, doc="overHead: sectors before the first grain")
    is_unclean: int = uint(1, at=72, doc="uncleanShutdown")
    newlines: bytes = raw(4, at=73, doc="singleEndLineChar … doubleEndLineChar2")
    compression: int = uint(2, at=77, doc="compressAlgorithm")

    @property
    def is_compressed(self) -> bool:
        """Whether grains are stored compressed."""
        return self.compression == COMPRESSION_DEFLATE


NEWLINES: Final = b"\n \r\n"
"""Damaged by a transfer that took the file for text."""


class Marker(Structure, size=512, endian="<"):
    """What stands before everything in a stream but its header."""

    value: int = uint(8, at=0, doc="sectors that follow; of a grain: its first sector on the disk")
    length: int = uint(4, at=8, doc="of a grain's compressed bytes; 0 for other markers")
    kind: int = uint(4, at=12, doc="MARKER_*")


class CowdHeader(Structure, size=2048, endian="<"):
    """``COWDisk_Header``."""

    magic: int = uint(4, at=0, doc="COWD")
    version: int = uint(4, at=4, doc="1")
    flags: int = uint(4, at=8, doc="3")
    capacity: int = uint(4, at=12, doc="numSectors")
    grain_size: int = uint(4, at=16, doc="grainSize, in sectors")
    directory_offset: int = uint(4, at=20, doc="gdOffset")
    directory_entries: int = uint(4, at=24, doc="numGDEntries")
    free_sector: int = uint(4, at=28, doc="freeSector: where the next grain goes")


class SeSparseHeader(Structure, size=512, endian="<"):
    """The constant header of a SESparse extent."""

    magic: int = uint(8, at=0, doc="0xcafebabe")
    version: int = uint(8, at=8, doc="0x200000001")
    capacity: int = uint(8, at=16, doc="in sectors")
    grain_size: int = uint(8, at=24, doc="in sectors: 8")
    table_size: int = uint(8, at=32, doc="of a grain table, in sectors: 64")
    flags: int = uint(8, at=40, doc="0")
    volatile_offset: int = uint(8, at=80, doc="of the volatile header")
    directory_offset: int = uint(8, at=128, doc="of the grain directory")
    directory_size: int = uint(8, at=136, doc="in sectors")
    tables_offset: int = uint(8, at=144, doc="of the first grain table")
    grains_offset: int = uint(8, at=192, doc="of the first grain")


SESPARSE_VERSION: Final = 0x0000000200000001
SESPARSE_GRAIN_SECTORS: Final = 8
SESPARSE_TABLE_SECTORS: Final = 64


class SeSparseVolatile(Structure, size=512, endian="<"):
    """The header that changes while the disk is in use."""

    magic: int = uint(8, at=0, doc="0xcafecafe")
    replay_journal: int = uint(8, at=24, doc="whether the journal has to be replayed")


SESPARSE_VOLATILE_MAGIC: Final = 0xCAFECAFE
