"""Structures of NTFS, but for those that tell its label: ``probes/microsoft.py`` has these.

Source: Linux ``fs/ntfs3/ntfs.h``; libyal "New Technologies File System (NTFS)"; for the log
ntfs-3g ``include/ntfs-3g/logfile.h``; libyal "Volume Shadow Snapshot (VSS)".
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, sint, uint

RECORD_MFT: Final = 0
RECORD_MIRROR: Final = 1
RECORD_LOG: Final = 2
RECORD_VOLUME: Final = 3
RECORD_ROOT: Final = 5
RECORD_BITMAP: Final = 6
RECORD_BOOT: Final = 7
RECORD_BAD_CLUSTERS: Final = 8
FIXED_RECORDS: Final = 12
"""Records whose files every volume has."""

STANDARD_INFORMATION: Final = 0x10
ATTRIBUTE_LIST: Final = 0x20
FILE_NAME: Final = 0x30
VOLUME_INFORMATION: Final = 0x70
DATA: Final = 0x80
INDEX_ROOT: Final = 0x90
INDEX_ALLOCATION: Final = 0xA0
ATTRIBUTES_END: Final = 0xFFFFFFFF

FILE_MARK: Final = b"FILE"
INDEX_MARK: Final = b"INDX"  # codespell:ignore indx
RESTART_MARK: Final = b"RSTR"
RESTART_MARK_OF_CHKDSK: Final = b"CHKD"
IN_USE: Final = 1
STRIDE: Final = 512
"""Bytes that are protected by one number of an update sequence, whatever a sector has."""

BOOT_BYTES: Final = 8192
REFERENCE_MASK: Final = (1 << 48) - 1
"""The number of a record in a reference; above it is the sequence number."""

LOG_PAGE_BYTES: Final = 4096
LOG_NO_CLIENT: Final = 0xFFFF
LOG_IS_CLEAN: Final = 2

INDEX_ENTRY_NODE: Final = 1
INDEX_ENTRY_LAST: Final = 2

VOLUME_FLAGS: Final = {
    0x0001: "is marked as dirty",
    0x0002: "has a log that is to be resized",
    0x0004: "is to be upgraded when it is mounted",
    0x0008: "was last mounted by Windows NT 4",
    0x0010: "has a journal of changes that is being deleted",
    0x0020: "has object identifiers that are to be repaired",
    0x4000: "was left while chkdsk was at work",
    0x8000: "was changed by chkdsk and not mounted since",
}
"""What a volume is that has the flag; others are not known to change anything."""


class Extents(Structure, size=64, endian="<"):
    """The head of an attribute whose value is in clusters."""

    lowest: int = sint(8, at=16, doc="cluster of the value that the list of runs begins with")
    highest: int = sint(8, at=24, doc="the last one; -1 if there is none")
    runs_offset: int = uint(2, at=32, doc="from the attribute's start")
    size: int = uint(8, at=48, doc="bytes of the value; in the first part only")
    initialized: int = uint(8, at=56, doc="bytes that were ever written; zeros follow")


class ListEntry(Structure, size=26, endian="<"):
    """An entry of an attribute list: where one part of an attribute is."""

    kind: int = uint(4, at=0, doc="of the attribute")
    length: int = uint(2, at=4, doc="to the next entry")
    name_length: int = uint(1, at=6, doc="in code units of two bytes")
    name_offset: int = uint(1, at=7, doc="from the entry's start")
    lowest: int = sint(8, at=8, doc="cluster of the value that this part begins with")
    reference: int = uint(8, at=16, doc="of the record")


class VolumeInformation(Structure, size=12, endian="<"):
    """The version of a volume, and its state."""

    major: int = uint(1, at=8, doc="1 for Windows NT, 3 since Windows 2000")
    minor: int = uint(1, at=9, doc="3.1 since Windows XP")
    flags: int = uint(2, at=10, doc="see VOLUME_FLAGS")


class RestartPage(Structure, size=30, endian="<"):
    """The head of each of the log's first two pages."""

    mark: bytes = raw(4, at=0, doc="RSTR, or CHKD if chkdsk has emptied the log")
    page_size: int = uint(4, at=16, doc="of the system that wrote it; the second page is there")
    area_offset: int = uint(2, at=24, doc="of the restart area")
    minor: int = sint(2, at=26, doc="version of the log: 1.1, and 2.0 while Windows uses it")
    major: int = sint(2, at=28, doc="the same")


class RestartArea(Structure, size=16, endian="<"):
    """Where replaying begins, and whether it has to."""

    current_lsn: int = uint(8, at=0, doc="of the last record: the page that has more counts")
    client_in_use: int = uint(2, at=12, doc="0xffff if none is")
    flags: int = uint(2, at=14, doc="2: the volume was unmounted")


class IndexRoot(Structure, size=32, endian="<"):
    """The value of the attribute: its own head, and that of its node."""

    block_size: int = uint(4, at=8, doc="of nodes that are in clusters, in bytes")
    entries_offset: int = uint(4, at=16, doc="from here, 16 bytes into the value")
    entries_end: int = uint(4, at=20, doc="the same")


class IndexBlock(Structure, size=40, endian="<"):
    """The head of a node that is in clusters."""

    entries_offset: int = uint(4, at=24, doc="from here, 24 bytes into the node")
    entries_end: int = uint(4, at=28, doc="the same")


class IndexEntry(Structure, size=16, endian="<"):
    """The head of an entry of a folder; its key, a file's name, follows."""

    reference: int = uint(8, at=0, doc="of the file's record")
    length: int = uint(2, at=8, doc="to the next entry")
    key_length: int = uint(2, at=10, doc="of the key")
    flags: int = uint(2, at=12, doc="1: a node is below; 2: the last one, without a key")


class FileName(Structure, size=66, endian="<"):
    """The key of an entry of a folder, up to the name."""

    name_length: int = uint(1, at=64, doc="in code units of two bytes")


SHADOW_HEADER_AT: Final = 0x1E00
SHADOW_MARK: Final = bytes.fromhex("6b870838 76c1484e b7ae0404 6e6cc752")
SHADOW_BLOCK_BYTES: Final = 16384
"""Of everything that shadow copies have, and what a bit of their bitmaps stands for."""

SHADOW_HEADER: Final = 1
SHADOW_CATALOG: Final = 2
SHADOW_BITMAP: Final = 6
SHADOW_COPY: Final = 2
SHADOW_PLACE: Final = 3


class ShadowHeader(Structure, size=96, endian="<"):
    """What stands behind the boot code of a volume that had shadow copies."""

    mark: bytes = raw(16, at=0, doc="SHADOW_MARK")
    kind: int = uint(4, at=20, doc="1")
    catalog: int = uint(8, at=48, doc="offset in the volume; 0 if there are no shadow copies")
    volume: bytes = raw(16, at=64, doc="identity of this volume")
    storage: bytes = raw(16, at=80, doc="that of the volume with the shadow copies")


class ShadowBlock(Structure, size=128, endian="<"):
    """The head of a block of the catalog, or of a bitmap."""

    mark: bytes = raw(16, at=0, doc="SHADOW_MARK")
    kind: int = uint(4, at=20, doc="2: catalog, 6: bitmap")
    place: int = uint(8, at=32, doc="of this block in the volume")
    next: int = uint(8, at=40, doc="of the next one; 0 if this is the last")


class ShadowEntry(Structure, size=128, endian="<"):
    """An entry of the catalog. Two of them are about a shadow copy."""

    kind: int = uint(8, at=0, doc="0, 1: unused; 2: a shadow copy; 3: where it is")
    store: bytes = raw(16, at=16, doc="identity of the shadow copy")
    bitmap: int = uint(8, at=48, doc="where the bitmap of what was free begins")
    older_bitmap: int = uint(8, at=72, doc="that of the shadow copy before; 0 if there is none")
