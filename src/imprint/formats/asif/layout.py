"""ASIF, the Apple Sparse Image Format: structures, and what has to hold of them.

::

    0x00  header, 512 bytes
    …     two directories: a sequence number, then the chunk that each table is in
    …     tables, a chunk each, in groups: N entries of data chunks, then one of a bitmap
    …     chunks of data; bitmaps, a chunk each, with two bits for each sector of a group

All integers are big-endian. Chunks are counted from the file's start; number 0, where the
header is, says that there is none. The metadata are a chunk of the disk far behind its end.

There is no specification. Source: the layout that Huib Verweij and others found, "ASIF binary
specification" (huven/asif-format), and Erik Schamper, "Dissecting Apple's Sparse Image Format
(ASIF)", 2026; compared with empty images that macOS 26 made.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TruncatedImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import MIB, div_up

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

MAGIC: Final = int.from_bytes(b"shdw", "big")
VERSION: Final = 1
CHUNK_BYTES_MAX: Final = 16 * MIB
"""macOS makes chunks of 1 MiB."""
SECTOR_SIZES: Final = (512, 1024, 2048, 4096)

NUMBER_MASK: Final = (1 << 55) - 1
"""Of an entry: the chunk. What is above it:"""
RESERVED_MASK: Final = 0x7F << 55
STATE_SHIFT: Final = 62
STATE_ABSENT, STATE_FULL, STATE_UNMAPPED, STATE_PARTIAL = 0, 1, 2, 3
"""Never written; written whole; given back, which reads as zeros; see the bitmap."""


class Header(Structure, size=0x50, endian=">"):
    """The part of the header that says something."""

    magic: int = uint(4, at=0x00, doc="MAGIC", default=MAGIC)
    version: int = uint(4, at=0x04, doc="VERSION")
    header_size: int = uint(4, at=0x08, doc="in bytes: 512")
    flags: int = uint(4, at=0x0C, doc="always 0 so far")
    directory_0: int = uint(8, at=0x10, doc="offset of a directory")
    directory_1: int = uint(8, at=0x18, doc="of the other one; the higher sequence number counts")
    uuid: bytes = raw(16, at=0x20, doc="of the image")
    sector_count: int = uint(8, at=0x30, doc="of the disk")
    sector_count_max: int = uint(8, at=0x38, doc="that it may grow to; directories reach there")
    chunk_size: int = uint(4, at=0x40, doc="in bytes")
    sector_size: int = uint(2, at=0x44, doc="in bytes")
    segments: int = uint(2, at=0x46, doc="0: macOS refuses anything else")
    metadata_chunk: int = uint(8, at=0x48, doc="of the disk; 0: there are none")

    @property
    def disk_size(self) -> int:
        """In bytes."""
        return self.sector_count * self.sector_size

    @property
    def group_chunks(self) -> int:
        """Data chunks of a group, N: as many as a bitmap of one chunk has sectors for."""
        return 4 * self.sector_size

    @property
    def table_chunks(self) -> int:
        """Data chunks of a table: of the whole groups that fit into a chunk."""
        return self.chunk_size // (8 * (self.group_chunks + 1)) * self.group_chunks

    @property
    def table_entries(self) -> int:
        """Entries of a table, those of bitmaps included."""
        return self.table_chunks // self.group_chunks * (self.group_chunks + 1)

    @property
    def table_count(self) -> int:
        """Entries of a directory."""
        chunks = div_up(self.sector_count_max * self.sector_size, self.chunk_size)
        return div_up(chunks, self.table_chunks)

    def entry_index(self, chunk: int) -> int:
        """The entry of a data chunk, counted from the start of its table."""
        group, index = divmod(chunk % self.table_chunks, self.group_chunks)
        return group * (self.group_chunks + 1) + index


class MetadataHeader(Structure, size=0x14, endian=">"):
    """In front of a property list."""

    magic: bytes = raw(4, at=0x00, doc="meta")
    version: int = uint(4, at=0x04, doc="1")
    header_size: int = uint(4, at=0x08, doc="the list follows")


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the others.
        TruncatedImageError: if a directory does not lie in the file.
        UnsupportedFeatureError: for what nobody has described.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("magic", header.magic == MAGIC, f"0x{MAGIC:x}")
    lacking("version", header.version == VERSION, str(VERSION))
    need("header_size", header.header_size >= Header.SIZE, f"at least 0x{Header.SIZE:x}")
    lacking("flags", header.flags == 0, "none")
    lacking("segments", header.segments == 0, "0")
    lacking("sector_size", header.sector_size in SECTOR_SIZES, "512 to 4096")
    size = header.chunk_size
    need("chunk_size", size > 0 and size % header.sector_size == 0, "whole sectors")
    lacking("chunk_size", size <= CHUNK_BYTES_MAX, f"at most 0x{CHUNK_BYTES_MAX:x}")
    least = 8 * (header.group_chunks + 1)
    need("chunk_size", size >= least, f"room for a group of entries, {least} bytes")
    # A bitmap of four sectors a byte begins at a whole byte for each chunk.
    need("chunk_size", size % (4 * header.sector_size) == 0, "a multiple of four sectors")
    limit = DISK_SIZE_MAX // header.sector_size
    need("sector_count_max", header.sector_count_max <= limit, f"at most 0x{limit:x}")
    limit = header.sector_count_max
    need("sector_count", header.sector_count <= limit, f"at most sector_count_max, 0x{limit:x}")
    length = 8 * (header.table_count + 1)
    for field in ("directory_0", "directory_1"):
        offset: int = getattr(header, field)
        need(field, offset >= header.header_size, "a place behind the header")
        inside = offset + length <= storage.size
        what = f"0x{length:x} bytes inside the file's 0x{storage.size:x}"
        need(field, inside, what, error=TruncatedImageError)
    return header
