"""Parallels image files, and what has to hold of them before anything is computed from them.

::

    0x00  header, 64 bytes
    0x40  block allocation table (BAT): one 32-bit entry for each cluster of the disk
    data_offset   clusters, in any order

All integers are little-endian. ``WithoutFreeSpace`` (version 1) counts entries in sectors,
``WithouFreSpacExt`` (version 2) in clusters, both from the file's start; 0 is absent.

Source: QEMU ``docs/interop/parallels.txt`` and ``block/parallels.c``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TruncatedImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import GIB, align_up, div_up

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

MAGIC_V1: Final = b"WithoutFreeSpace"
MAGIC_V2: Final = b"WithouFreSpacExt"
VERSION: Final = 2
"""Of both: the number did not change with the magic."""

IN_USE: Final = 0x746F6E59
CLOSED: Final = 0x312E3276
SECTOR_BYTES: Final = 512

CLUSTER_BYTES_MAX: Final = 1 * GIB
BAT_ENTRIES_MAX: Final = 1 << 25
"""A table of 128 MiB, 32 TiB in clusters of 1 MiB: refuse more before allocating it."""


class Header(Structure, size=0x40, endian="<"):
    """The file's first 64 bytes. Every byte belongs to a field."""

    magic: bytes = raw(16, at=0x00, doc="MAGIC_…")
    version: int = uint(4, at=0x10, doc="VERSION", default=VERSION)
    heads: int = uint(4, at=0x14, doc="of a geometry that nobody uses", default=16)
    cylinders: int = uint(4, at=0x18, doc="likewise")
    cluster_sectors: int = uint(4, at=0x1C, doc="sectors of a cluster; 63 in old images")
    bat_entries: int = uint(4, at=0x20, doc="clusters of the disk")
    disk_sectors: int = uint(8, at=0x24, doc="of the disk; version 1 has the lower half only")
    in_use: int = uint(4, at=0x2C, doc="IN_USE while a program writes, else CLOSED or 0")
    data_sector: int = uint(4, at=0x30, doc="where clusters begin; 0: behind the table")
    flags: int = uint(4, at=0x34, doc="bit 0: the disk is empty, in some images")
    extension_sector: int = uint(8, at=0x38, doc="of bitmaps and the like; 0: there are none")

    @property
    def is_v1(self) -> bool:
        """Whether entries count sectors."""
        return self.magic == MAGIC_V1

    @property
    def cluster_size(self) -> int:
        """In bytes; not always a power of two."""
        return self.cluster_sectors * SECTOR_BYTES

    @property
    def disk_size(self) -> int:
        """In bytes."""
        sectors = self.disk_sectors & 0xFFFFFFFF if self.is_v1 else self.disk_sectors
        return sectors * SECTOR_BYTES

    @property
    def unit_sectors(self) -> int:
        """What an entry of the table counts, in sectors."""
        return 1 if self.is_v1 else self.cluster_sectors

    @property
    def unit_bytes(self) -> int:
        """The same in bytes."""
        return self.unit_sectors * SECTOR_BYTES

    @property
    def bat_end(self) -> int:
        """Where the table ends in the file, in bytes."""
        return self.SIZE + 4 * self.bat_entries

    @property
    def data_offset(self) -> int:
        """Where the first cluster may lie in the file, in bytes."""
        start = self.data_sector * SECTOR_BYTES or align_up(self.bat_end, SECTOR_BYTES)
        return align_up(start, self.unit_bytes)


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the specification or the file's size.
        UnsupportedFeatureError: for another version, or a larger table than
            ``BAT_ENTRIES_MAX``.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("magic", header.magic in (MAGIC_V1, MAGIC_V2), f"{MAGIC_V1!r} or {MAGIC_V2!r}")
    lacking("version", header.version == VERSION, str(VERSION))
    need("cluster_sectors", header.cluster_sectors > 0, "at least 1")
    limit = CLUSTER_BYTES_MAX // SECTOR_BYTES
    lacking("cluster_sectors", header.cluster_sectors <= limit, f"at most {limit}")
    entries_needed = div_up(header.disk_size, header.cluster_size)
    need("bat_entries", header.bat_entries >= entries_needed, f"at least {entries_needed}")
    lacking("bat_entries", header.bat_entries <= BAT_ENTRIES_MAX, f"at most {BAT_ENTRIES_MAX}")
    need(
        "bat_entries",
        header.bat_end <= storage.size,
        f"a table inside the file's {storage.size} bytes",
        error=TruncatedImageError,
    )
    return header
