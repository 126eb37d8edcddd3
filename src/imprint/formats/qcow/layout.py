"""QCOW version 1: the header, and what has to hold of it.

::

    0x00  header, 48 bytes; the backing file's name somewhere behind it
    l1_table_offset   L1: offsets of L2 tables
    …                 L2 tables: offsets of clusters, or compressed clusters
    …                 clusters

All integers are big-endian, sizes are in bytes. A table's entry is 0 where nothing was
written. There is no specification.

Source: QEMU ``block/qcow.c`` (``QCowHeader``, ``qcow_open``, ``get_cluster_offset``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TruncatedImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, uint
from imprint.core.limits import DISK_SIZE_MAX, NAME_BYTES_MAX
from imprint.core.units import div_up

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

MAGIC: Final = int.from_bytes(b"QFI\xfb", "big")
VERSION: Final = 1
SECTOR_BYTES: Final = 512

CRYPT_NONE: Final = 0
CRYPT_AES: Final = 1

COMPRESSED: Final = 1 << 63
"""Of an L2 entry: below it are the length and the offset of a raw deflate stream."""

CLUSTER_BITS: Final = (9, 16)
L2_BITS: Final = (6, 13)
"""From 512 bytes to 64 KiB, clusters and L2 tables: what QEMU opens."""


class Header(Structure, size=0x30, endian=">"):
    """The file's first 48 bytes."""

    magic: int = uint(4, at=0x00, doc="MAGIC", default=MAGIC)
    version: int = uint(4, at=0x04, doc="1; other versions have another layout", default=VERSION)
    backing_offset: int = uint(8, at=0x08, doc="of the backing file's name; 0: there is none")
    backing_size: int = uint(4, at=0x10, doc="of that name")
    mtime: int = uint(4, at=0x14, doc="of the backing file; nobody looks at it")
    disk_size: int = uint(8, at=0x18, doc="of the disk")
    cluster_bits: int = uint(1, at=0x20, doc="a cluster is 2 to the power of it")
    l2_bits: int = uint(1, at=0x21, doc="an L2 table has 2 to the power of it entries")
    crypt_method: int = uint(4, at=0x24, doc="CRYPT_…")
    l1_table_offset: int = uint(8, at=0x28, doc="of the L1 table")

    @property
    def cluster_size(self) -> int:
        """In bytes."""
        return 1 << self.cluster_bits

    @property
    def l2_count(self) -> int:
        """Entries of an L2 table."""
        return 1 << self.l2_bits

    @property
    def l1_count(self) -> int:
        """Entries of the L1 table."""
        return div_up(self.disk_size, self.cluster_size * self.l2_count)

    def compressed(self, entry: int) -> tuple[int, int]:
        """Offset and length, in bytes, of what an L2 entry with ``COMPRESSED`` refers to."""
        shift = 63 - self.cluster_bits
        return entry & (1 << shift) - 1, entry >> shift & self.cluster_size - 1


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the format or the file's size.
        UnsupportedFeatureError: for another version, or an encryption that is not known.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("magic", header.magic == MAGIC, f"0x{MAGIC:x}")
    lacking("version", header.version == VERSION, "1 (later ones are qcow2)")
    low, high = CLUSTER_BITS
    need("cluster_bits", low <= header.cluster_bits <= high, f"{low} to {high}")
    low, high = L2_BITS
    need("l2_bits", low <= header.l2_bits <= high, f"{low} to {high}")
    lacking("crypt_method", header.crypt_method in (CRYPT_NONE, CRYPT_AES), "0 or 1 (AES)")
    need("disk_size", header.disk_size <= DISK_SIZE_MAX, f"at most 0x{DISK_SIZE_MAX:x}")
    need("l1_table_offset", header.l1_table_offset >= Header.SIZE, f"at least 0x{Header.SIZE:x}")
    need(
        "l1_table_offset",
        header.l1_table_offset + 8 * header.l1_count <= storage.size,
        f"an L1 table of {header.l1_count} entries inside the file's {storage.size} bytes",
        error=TruncatedImageError,
    )
    if header.backing_offset:
        size = header.backing_size
        need("backing_size", 0 < size <= NAME_BYTES_MAX, f"1 to {NAME_BYTES_MAX}")
        end = header.backing_offset + size
        need("backing_offset", end <= storage.size, f"a name inside {storage.size} bytes")
    return header


def backing_name(storage: Storage, header: Header) -> str | None:
    """What a checked header says that absent clusters are read from."""
    if header.backing_offset == 0:
        return None
    name = bytearray(header.backing_size)
    storage.readinto(memoryview(name), header.backing_offset)
    return name.decode("utf-8", "surrogateescape")
