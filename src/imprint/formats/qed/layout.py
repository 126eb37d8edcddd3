"""QED on-disk structures, and what has to hold of them.

::

    0x00  header, 64 bytes, in ``header_size`` clusters; the backing file's name behind it
    l1_table_offset   L1: offsets of L2 tables, ``table_size`` clusters
    …                 L2 tables of the same size: offsets of clusters
    …                 clusters

All integers are little-endian.

Source: QEMU ``docs/interop/qed_spec.txt``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, uint
from imprint.core.limits import DISK_SIZE_MAX, NAME_BYTES_MAX
from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

MAGIC: Final = int.from_bytes(b"QED\0", "little")

FEATURE_BACKING: Final = 0x1
FEATURE_NEED_CHECK: Final = 0x2
FEATURE_BACKING_RAW: Final = 0x4
"""The backing file is raw and must not be probed."""
FEATURES: Final = {
    FEATURE_BACKING: "backing-file",
    FEATURE_NEED_CHECK: "need-check",
    FEATURE_BACKING_RAW: "backing-format-no-probe",
}

CLUSTER_SIZE_MIN: Final = 4 * KIB
CLUSTER_SIZE_MAX: Final = 64 * MIB
TABLE_SIZE_MAX: Final = 16
SECTOR_BYTES: Final = 512

ENTRY_ABSENT: Final = 0
"""Reads from the backing file, else as zeros."""
ENTRY_ZERO: Final = 1
"""Of an L2 table: reads as zeros, even over a backing file."""


class Header(Structure, size=0x40, endian="<"):
    """The file's first 64 bytes."""

    magic: int = uint(4, at=0x00, doc="MAGIC", default=MAGIC)
    cluster_size: int = uint(4, at=0x04, doc="in bytes, a power of two")
    table_size: int = uint(4, at=0x08, doc="of the L1 and each L2 table, in clusters")
    header_size: int = uint(4, at=0x0C, doc="in clusters")
    features: int = uint(8, at=0x10, doc="FEATURE_…: unknown ones forbid to open the image")
    compat_features: int = uint(8, at=0x18, doc="unknown ones do no harm")
    autoclear_features: int = uint(8, at=0x20, doc="unknown ones are cleared by who writes")
    l1_table_offset: int = uint(8, at=0x28, doc="in bytes, a multiple of cluster_size")
    disk_size: int = uint(8, at=0x30, doc="of the disk, in bytes")
    backing_offset: int = uint(4, at=0x38, doc="of the backing file's name, from the start")
    backing_size: int = uint(4, at=0x3C, doc="of that name, in bytes")

    @property
    def table_count(self) -> int:
        """Entries of a table."""
        return self.cluster_size * self.table_size // 8

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Of the bits that are set."""
        return tuple(name for bit, name in FEATURES.items() if self.features & bit)


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the specification or the file's size.
        UnsupportedFeatureError: for a feature bit that is not known.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    need("magic", header.magic == MAGIC, f"0x{MAGIC:x}")
    known = sum(FEATURES)
    need(
        "features",
        header.features & ~known == 0,
        f"no bit but those of 0x{known:x}",
        error=UnsupportedFeatureError,
    )
    size = header.cluster_size
    in_range = size.bit_count() == 1 and CLUSTER_SIZE_MIN <= size <= CLUSTER_SIZE_MAX
    need("cluster_size", in_range, f"a power of two, {CLUSTER_SIZE_MIN} to {CLUSTER_SIZE_MAX}")
    table = header.table_size
    is_table = table.bit_count() == 1 and table <= TABLE_SIZE_MAX
    need("table_size", is_table, f"a power of two, at most {TABLE_SIZE_MAX}")
    need("header_size", header.header_size > 0, "at least 1")
    limit = min(DISK_SIZE_MAX, size * header.table_count**2)
    is_disk = header.disk_size <= limit and header.disk_size % SECTOR_BYTES == 0
    need("disk_size", is_disk, f"whole sectors, at most 0x{limit:x} bytes")
    offset = header.l1_table_offset
    need("l1_table_offset", offset % size == 0 and offset >= size, "a multiple of cluster_size")
    need(
        "l1_table_offset",
        offset + size * table <= storage.size,
        f"a table inside the file's {storage.size} bytes",
        error=TruncatedImageError,
    )
    return header


def backing_name(storage: Storage, header: Header) -> str | None:
    """What a checked header says that absent clusters are read from.

    Raises:
        CorruptImageError: if the name does not lie in the header's clusters.
    """
    if not header.features & FEATURE_BACKING:
        return None
    size, end = header.backing_size, header.backing_offset + header.backing_size
    need = partial(header.require, where=storage.name, error=CorruptImageError)
    need("backing_size", 0 < size <= NAME_BYTES_MAX, f"1 to {NAME_BYTES_MAX}")
    limit = min(header.header_size * header.cluster_size, storage.size)
    need("backing_offset", end <= limit, f"a name inside the header's 0x{limit:x} bytes")
    name = bytearray(size)
    storage.readinto(memoryview(name), header.backing_offset)
    return name.decode("utf-8", "surrogateescape")
