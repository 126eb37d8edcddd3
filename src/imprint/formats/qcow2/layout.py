"""QCOW2 on-disk structures.

Source: QEMU ``docs/interop/qcow2.txt``, versions 2 and 3. All integers are big-endian,
offsets and sizes are in bytes unless they say otherwise.
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, uint
from imprint.core.units import MIB

MAGIC: Final = b"QFI\xfb"

HEADER_LENGTH_V2: Final = 72
HEADER_LENGTH_V3_MIN: Final = 104
REFCOUNT_ORDER_V2: Final = 4

CLUSTER_BITS_MIN: Final = 9
CLUSTER_BITS_MAX: Final = 21
"""QEMU opens no larger clusters than 2 MiB."""
CLUSTER_BITS_MIN_EXTENDED: Final = 14
"""Subclusters, a 32nd of a cluster, must not be smaller than a sector."""
REFCOUNT_ORDER_MAX: Final = 6

L1_BYTES_MAX: Final = 32 * MIB
"""QEMU's limit."""
REFCOUNT_TABLE_BYTES_MAX: Final = 8 * MIB
"""QEMU's limit."""
SNAPSHOT_COUNT_MAX: Final = 65536
"""QEMU's limit."""
SNAPSHOT_EXTRA_BYTES_MAX: Final = 1024
"""QEMU's limit for the extra data of one entry of the snapshot table."""
SNAPSHOT_TABLE_BYTES_MAX: Final = 1024 * SNAPSHOT_COUNT_MAX
"""QEMU's limit."""
BITMAP_COUNT_MAX: Final = 65535
"""QEMU's limit."""
BITMAP_DIRECTORY_BYTES_MAX: Final = 1024 * BITMAP_COUNT_MAX
"""QEMU's limit."""

# Incompatible features: an implementation must fail to open an image with an unknown one.
INCOMPATIBLE_DIRTY: Final = 1 << 0
"""Refcounts may be inconsistent: L1/L2 tables have to be scanned to repair them."""
INCOMPATIBLE_CORRUPT: Final = 1 << 1
"""Any structure may be corrupt; the image must not be written to."""
INCOMPATIBLE_DATA_FILE: Final = 1 << 2
"""Guest clusters are in an external data file, at their guest offsets."""
INCOMPATIBLE_COMPRESSION_TYPE: Final = 1 << 3
"""Header.compression_type is present and not zero."""
INCOMPATIBLE_EXTENDED_L2: Final = 1 << 4
"""L2 entries have 128 bits and describe subclusters."""
INCOMPATIBLE_KNOWN: Final = 0x1F

COMPATIBLE_LAZY_REFCOUNTS: Final = 1 << 0
"""A writer may mark the image dirty and postpone refcount updates."""

# Autoclear features: a writer clears the bits that it does not know before it writes.
AUTOCLEAR_BITMAPS: Final = 1 << 0
"""The bitmaps extension is consistent."""
AUTOCLEAR_RAW_DATA_FILE: Final = 1 << 1
"""The data file reads as the disk without looking at the QCOW2 metadata."""
AUTOCLEAR_KNOWN: Final = 0x3

FEATURE_NAMES: Final = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)
"""What the feature name table of a new image says: bitmap, bit, name."""

CRYPT_NONE: Final = 0
CRYPT_AES: Final = 1
CRYPT_LUKS: Final = 2

COMPRESSION_ZLIB: Final = 0
COMPRESSION_ZSTD: Final = 1
COMPRESSION_NAMES: Final = {COMPRESSION_ZLIB: "zlib", COMPRESSION_ZSTD: "zstd"}

EXTENSION_END: Final = 0x00000000
EXTENSION_BACKING_FORMAT: Final = 0xE2792ACA
EXTENSION_FEATURE_NAMES: Final = 0x6803F857
EXTENSION_BITMAPS: Final = 0x23852875
EXTENSION_ENCRYPTION: Final = 0x0537BE77
EXTENSION_DATA_FILE: Final = 0x44415441

BACKING_FORMATS: Final = {"vhd": "vpc"}
"""Formats that have another name in QEMU, which opens no backing file of an unknown one."""

# L1, L2 and refcount table entries.
COPIED: Final = 1 << 63
"""The refcount is exactly one: it may be overwritten. Accurate below the active L1 only."""
COMPRESSED: Final = 1 << 62
ZERO: Final = 1 << 0
"""The cluster reads as zeros. Reserved in version 2 and in extended L2 entries."""
OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
L1_RESERVED: Final = 0x7F00_0000_0000_01FF
L2_RESERVED: Final = 0x3F00_0000_0000_01FE
REFCOUNT_TABLE_RESERVED: Final = 0x1FF

SUBCLUSTERS: Final = 32
"""In each cluster, where L2 entries are extended."""
ALLOCATED_ALL: Final = 0x0000_0000_FFFF_FFFF
"""Bit x of a subcluster bitmap: subcluster x is allocated."""
ZERO_ALL: Final = 0xFFFF_FFFF_0000_0000
"""Bit 32 + x of a subcluster bitmap: subcluster x reads as zeros."""

SECTOR: Final = 512
"""What a compressed cluster's length is counted in, whatever the cluster's size."""

BITMAP_IN_USE: Final = 1 << 0
"""The bitmap was not saved correctly and may be inconsistent."""
BITMAP_AUTO: Final = 1 << 1
"""The bitmap must reflect all changes of the disk by whoever writes."""
BITMAP_EXTRA_COMPATIBLE: Final = 1 << 2
"""The bitmap may be used by who does not know its extra data."""


class Header(Structure, size=112, endian=">"):
    """The first bytes of the image. Version 2 ends at byte 72; the rest counts as zeros there."""

    magic: bytes = raw(4, at=0, doc="MAGIC")
    version: int = uint(4, at=4, doc="2 or 3")
    backing_file_offset: int = uint(
        8, at=8, doc="of the backing file's name; 0 if there is none", default=0
    )
    backing_file_size: int = uint(
        4, at=16, doc="of the backing file's name, at most 1023", default=0
    )
    cluster_bits: int = uint(4, at=20, doc="log2 of the cluster size")
    size: int = uint(8, at=24, doc="of the virtual disk")
    crypt_method: int = uint(4, at=32, doc="0 none, 1 AES, 2 LUKS", default=0)
    l1_size: int = uint(4, at=36, doc="entries of the active L1 table", default=0)
    l1_table_offset: int = uint(8, at=40, doc="cluster-aligned", default=0)
    refcount_table_offset: int = uint(8, at=48, doc="cluster-aligned", default=0)
    refcount_table_clusters: int = uint(4, at=56, doc="clusters of the refcount table", default=0)
    nb_snapshots: int = uint(4, at=60, doc="entries of the snapshot table", default=0)
    snapshots_offset: int = uint(8, at=64, doc="of the snapshot table, cluster-aligned", default=0)
    incompatible_features: int = uint(8, at=72, doc="INCOMPATIBLE_* bits")
    compatible_features: int = uint(8, at=80, doc="COMPATIBLE_* bits")
    autoclear_features: int = uint(8, at=88, doc="AUTOCLEAR_* bits")
    refcount_order: int = uint(4, at=96, doc="log2 of a refcount's bits", default=REFCOUNT_ORDER_V2)
    header_length: int = uint(4, at=100, doc="of this structure", default=HEADER_LENGTH_V2)
    compression_type: int = uint(1, at=104, doc="0 zlib, 1 zstd")


class ExtensionHead(Structure, size=8, endian=">"):
    """In front of each header extension; the data is padded to a multiple of 8."""

    type: int = uint(4, at=0, doc="EXTENSION_*")
    length: int = uint(4, at=4, doc="of the data, without padding")


class FeatureName(Structure, size=48, endian=">"):
    """An entry of the feature name table."""

    kind: int = uint(1, at=0, doc="0 incompatible, 1 compatible, 2 autoclear")
    bit: int = uint(1, at=1, doc="number of the bit")
    name: bytes = raw(46, at=2, doc="padded with zeros")


class BitmapsExtension(Structure, size=24, endian=">"):
    """Where the bitmap directory is."""

    nb_bitmaps: int = uint(4, at=0, doc="bitmaps in the image, at least 1")
    reserved: int = uint(4, at=4, doc="0")
    directory_size: int = uint(8, at=8, doc="of the bitmap directory")
    directory_offset: int = uint(8, at=16, doc="of the bitmap directory, cluster-aligned")


class EncryptionExtension(Structure, size=16, endian=">"):
    """Where the LUKS header is."""

    offset: int = uint(8, at=0, doc="of the encryption header, cluster-aligned")
    length: int = uint(8, at=8, doc="of the encryption header")


class BitmapEntry(Structure, size=24, endian=">"):
    """An entry of the bitmap directory, in front of its extra data and name."""

    table_offset: int = uint(8, at=0, doc="of the bitmap table, cluster-aligned")
    table_size: int = uint(4, at=8, doc="entries of the bitmap table")
    flags: int = uint(4, at=12, doc="BITMAP_* bits")
    type: int = uint(1, at=16, doc="1 dirty tracking bitmap")
    granularity_bits: int = uint(1, at=17, doc="log2 of the bytes that a bit stands for")
    name_size: int = uint(2, at=18, doc="of the name")
    extra_data_size: int = uint(4, at=20, doc="of the extra data")


class SnapshotEntry(Structure, size=40, endian=">"):
    """An entry of the snapshot table, in front of its extra data, id and name."""

    l1_table_offset: int = uint(8, at=0, doc="of the snapshot's L1 table, cluster-aligned")
    l1_size: int = uint(4, at=8, doc="entries of the snapshot's L1 table")
    id_size: int = uint(2, at=12, doc="of the id string", default=0)
    name_size: int = uint(2, at=14, doc="of the name", default=0)
    date_s: int = uint(4, at=16, doc="when it was taken, since the epoch")
    date_ns: int = uint(4, at=20, doc="the part below a second")
    vm_clock_ns: int = uint(8, at=24, doc="how long the guest had run", default=0)
    vm_state_size: int = uint(4, at=32, doc="of the saved machine state", default=0)
    extra_data_size: int = uint(4, at=36, doc="of the extra data", default=0)


class SnapshotExtra(Structure, size=16, endian=">"):
    """What is defined of a snapshot entry's extra data; version 3 must have it."""

    vm_state_size: int = uint(8, at=0, doc="replaces SnapshotEntry.vm_state_size")
    disk_size: int = uint(8, at=8, doc="of the disk when the snapshot was taken")
