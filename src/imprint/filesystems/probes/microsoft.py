"""FAT, exFAT, NTFS and BitLocker: volumes that begin with a boot sector.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03; "exFAT file system
specification" (learn.microsoft.com); libyal "BitLocker Drive Encryption (BDE) format"; for
NTFS Linux ``fs/ntfs3/ntfs.h``.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, sint, uint
from imprint.core.units import KIB, div_up
from imprint.filesystems.facts import FileSystem, serial_text, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.filters.peek import Peek

ROOT_CLUSTERS_MAX: Final = 16
"""Of the root directory of FAT32 or exFAT that are searched for the label: mostly it is first."""

DIRECTORY_BYTES_MAX: Final = 64 * KIB
"""Of a root directory that are searched at a time: no cluster of FAT is larger in practice."""

RECORD_BYTES_MAX: Final = 64 * KIB
"""Of an MFT record; 1 or 4 KiB in practice."""

FAT12_CLUSTERS_MAX: Final = 0xFF4
FAT16_CLUSTERS_MAX: Final = 0xFFF4
FAT32_CLUSTERS_MAX: Final = 0x0FFFFFF6

_BOOT_SIGNATURE: Final = 0xAA55
_ENTRY_BYTES: Final = 32
_OLD_FLOPPIES: Final = {
    160 * KIB: (0xFE, 1, 1, 64),
    180 * KIB: (0xFC, 1, 2, 64),
    320 * KIB: (0xFF, 2, 1, 112),
    360 * KIB: (0xFD, 2, 2, 112),
}
"""By size: media, sectors of a cluster, sectors of a table, entries of the root directory."""

_OEM_CODE_PAGE: Final = "cp850"  # a label does not say its own; mkfs.fat and mtools assume this
_EXFAT_LABEL: Final = 0x83
_TO_GO_AT: Final = 424
_TO_GO_MARK: Final = uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le
_TO_GO: Final = (
    "only what BitLocker To Go shows to other systems is told: its metadata is not there"
)
_VOLUME_RECORD: Final = 3
_VOLUME_NAME: Final = 0x60
_ATTRIBUTES_END: Final = 0xFFFFFFFF


class FatBootSector(Structure, size=512, endian="<"):
    """What all FAT file systems begin with, and the fields that FAT12 and FAT16 have then."""

    sector_size: int = uint(2, at=11, doc="512 to 4096")
    cluster_sectors: int = uint(1, at=13, doc="a power of two")
    reserved_sectors: int = uint(2, at=14, doc="before the first FAT")
    fat_count: int = uint(1, at=16, doc="2 in practice")
    root_entries: int = uint(2, at=17, doc="0 for FAT32")
    sector_count_16: int = uint(2, at=19, doc="0: see sector_count_32")
    media: int = uint(1, at=21, doc="0xf0, or 0xf8 and above")
    fat_sectors_16: int = uint(2, at=22, doc="0: it is FAT32")
    sector_count_32: int = uint(4, at=32, doc="used if sector_count_16 is 0")
    extended_mark: int = uint(1, at=38, doc="0x28 or 0x29: a serial number follows")
    serial: int = uint(4, at=39, doc="of the volume")
    kind: bytes = raw(8, at=54, doc="FAT12, FAT16 or something else: only a hint")
    kind_32: bytes = raw(8, at=82, doc="the same for FAT32")
    signature: int = uint(2, at=510, doc="0xaa55, but not on all old floppies")


class Fat32BootSector(Structure, size=512, endian="<"):
    """What FAT32 has from byte 36 on."""

    fat_sectors: int = uint(4, at=36, doc="of one FAT")
    root_cluster: int = uint(4, at=44, doc="where the root directory begins")
    serial: int = uint(4, at=67, doc="of the volume")


class ExfatBootSector(Structure, size=512, endian="<"):
    """The main boot sector of exFAT."""

    name: bytes = raw(8, at=3, doc="EXFAT and three blanks")
    sector_count: int = uint(8, at=72, doc="of the volume")
    fat_sector: int = uint(4, at=80, doc="where the first FAT begins")
    cluster_heap: int = uint(4, at=88, doc="sector of cluster 2")
    cluster_count: int = uint(4, at=92, doc="in the heap")
    root_cluster: int = uint(4, at=96, doc="where the root directory begins")
    serial: int = uint(4, at=100, doc="of the volume")
    sector_shift: int = uint(1, at=108, doc="9 to 12")
    cluster_shift: int = uint(1, at=109, doc="sectors of a cluster, as a power of two")
    signature: int = uint(2, at=510, doc="0xaa55")


class NtfsBootSector(Structure, size=512, endian="<"):
    """The boot sector of NTFS."""

    name: bytes = raw(8, at=3, doc="NTFS and four blanks")
    sector_size: int = uint(2, at=11, doc="256 to 4096")
    cluster_sectors: int = uint(1, at=13, doc="above 128: minus the power of two")
    zeros: bytes = raw(7, at=14, doc="fields that FAT has")
    sector_count: int = uint(8, at=40, doc="the copy of this sector behind them is not counted")
    mft_cluster: int = uint(8, at=48, doc="where the MFT begins")
    mirror_cluster: int = uint(8, at=56, doc="where the copy of its first records begins")
    record_clusters: int = sint(1, at=64, doc="clusters of an MFT record; below 0: see above")
    serial: int = uint(8, at=72, doc="of the volume")


class MftRecord(Structure, size=42, endian="<"):
    """The head of a record of the MFT."""

    mark: bytes = raw(4, at=0, doc="FILE")
    fixup_offset: int = uint(2, at=4, doc="of the update sequence")
    fixup_count: int = uint(2, at=6, doc="1, and one for each 512 bytes of the record")
    sequence: int = uint(2, at=16, doc="counts how often the record was used anew")
    attributes_offset: int = uint(2, at=20, doc="of the first attribute")
    flags: int = uint(2, at=22, doc="1: in use; 2: it is a folder")
    used: int = uint(4, at=24, doc="bytes of the record that are used")
    base: int = uint(8, at=32, doc="of a record that another goes on in: which; else 0")


class MftAttribute(Structure, size=24, endian="<"):
    """The head of a resident attribute."""

    type: int = uint(4, at=0, doc="what it is")
    length: int = uint(4, at=4, doc="to the next one")
    value_length: int = uint(4, at=16, doc="bytes")
    value_offset: int = uint(2, at=20, doc="from the attribute's start")


class BitlockerMetadata(Structure, size=112, endian="<"):
    """The head of a metadata block, and of the metadata in it."""

    mark: bytes = raw(8, at=0, doc="-FVE-FS-")
    volume_guid: bytes = raw(16, at=80, doc="of the volume")


def fat(peek: Peek) -> FileSystem | None:
    """FAT12, FAT16 or FAT32."""
    data = fat_boot_sector(peek.read, peek.size)
    if data is None:
        return None
    head, wide = FatBootSector.unpack(data), Fat32BootSector.unpack(data)
    is_fat32 = head.fat_sectors_16 == 0
    fat_sectors = head.fat_count * (wide.fat_sectors if is_fat32 else head.fat_sectors_16)
    root_sectors = div_up(head.root_entries * _ENTRY_BYTES, head.sector_size)
    sectors = head.sector_count_16 or head.sector_count_32
    before = head.reserved_sectors + fat_sectors + root_sectors
    clusters = (sectors - before) // head.cluster_sectors
    clusters_max = FAT32_CLUSTERS_MAX if is_fat32 else FAT16_CLUSTERS_MAX
    if fat_sectors == 0 or not 0 <= clusters <= clusters_max:
        return None
    if is_fat32:
        label = _fat32_label(peek, head, wide, before * head.sector_size)
        return FileSystem(
            "vfat",
            label,
            serial_text(wide.serial),
            "FAT32",
            size=sectors * head.sector_size,
            doubt=_TO_GO if peek.read(_TO_GO_AT, len(_TO_GO_MARK)) == _TO_GO_MARK else None,
        )
    root = (head.reserved_sectors + fat_sectors) * head.sector_size
    size = min(head.root_entries * _ENTRY_BYTES, DIRECTORY_BYTES_MAX)
    serial = head.serial if head.extended_mark in (0x28, 0x29) else 0
    version = "FAT12" if clusters < FAT12_CLUSTERS_MAX else "FAT16"
    return FileSystem(
        "vfat",
        _fat_label(peek.read(root, size)),
        serial_text(serial),
        version,
        size=sectors * head.sector_size,
    )


def fat_boot_sector(read: Callable[[int, int], bytes | bytearray], size: int) -> bytes | None:
    """What a FAT file system begins with; ``None`` if it is none.

    Floppies of DOS 1 have no fields in it. Their size, and the mark at the start of their tables,
    tells what they would be; that mark also stands for a signature, which not all systems wrote.

    Args:
        read: bytes of the volume, by offset and length.
        size: of the volume, in bytes.

    Source: Linux ``fs/fat/inode.c``, ``floppy_defaults``.
    """
    data = bytes(read(0, FatBootSector.SIZE))
    head = FatBootSector.unpack(data)
    has_fields = _has_fields(head)
    if has_fields and _is_signed(head):
        return data
    if has_fields:
        place = head.reserved_sectors * head.sector_size
        is_marked = place + 3 <= size and bytes(read(place, 3)) == _mark(head.media)
        return data if is_marked else None
    known = _OLD_FLOPPIES.get(size)
    if known is None:
        return None
    media, cluster_sectors, fat_sectors, root_entries = known
    sector = 512
    if any(bytes(read(at * sector, 3)) != _mark(media) for at in (1, 1 + fat_sectors)):
        return None
    fields = (sector, cluster_sectors, 1, 2, root_entries, size // sector, media, fat_sectors)
    return data[:11] + struct.pack("<HBHBHHBH", *fields) + bytes(486) + b"\x55\xaa"


def _mark(media: int) -> bytes:
    """What a table of FAT12 begins with."""
    return bytes((media, 0xFF, 0xFF))


def _is_signed(head: FatBootSector) -> bool:
    names = (head.kind, head.kind_32)
    return head.signature == _BOOT_SIGNATURE or any(_is_fat_name(name) for name in names)


def _has_fields(head: FatBootSector) -> bool:
    """Whether the fields can be those of a FAT file system."""
    if head.kind in (b"JFS     ", b"HPFS    "):  # OS/2 writes FAT's fields before these too
        return False
    return (
        head.sector_size in (512, 1024, 2048, 4096)
        and head.cluster_sectors.bit_count() == 1
        and head.reserved_sectors > 0
        and head.fat_count > 0
        and (head.media == 0xF0 or head.media >= 0xF8)
    )


def _is_fat_name(name: bytes) -> bool:
    return name.startswith((b"FAT12   ", b"FAT16   ", b"FAT32   ", b"FAT     ", b"MS"))


def _fat_label(directory: bytes) -> str | None:
    """The name of the entry that is the volume's label."""
    for start in range(0, len(directory), _ENTRY_BYTES):
        entry = directory[start : start + _ENTRY_BYTES]
        if entry[0] == 0:
            return None
        is_label = entry[11] & 0x18 == 0x08 and entry[11] & 0x3F != 0x0F
        if is_label and entry[0] != 0xE5 and not any((*entry[20:22], *entry[26:28])):
            # 0x05 stands for 0xE5, which would mark a deleted entry.
            first = b"\xe5" if entry[0] == 0x05 else entry[:1]
            return text(first + entry[1:11], _OEM_CODE_PAGE)
    return None


def _fat32_label(
    peek: Peek, head: FatBootSector, wide: Fat32BootSector, data_offset: int
) -> str | None:
    cluster_size = head.cluster_sectors * head.sector_size
    entry_count = wide.fat_sectors * head.sector_size // 4
    cluster = wide.root_cluster
    for _ in range(ROOT_CLUSTERS_MAX):
        if not 2 <= cluster < entry_count:
            return None
        offset = data_offset + (cluster - 2) * cluster_size
        directory = peek.read(offset, min(cluster_size, DIRECTORY_BYTES_MAX))
        label = _fat_label(directory)
        if label is not None or not all(directory[::_ENTRY_BYTES]):
            return label
        fat_entry = peek.read(head.reserved_sectors * head.sector_size + cluster * 4, 4)
        cluster = int.from_bytes(fat_entry, "little") & 0x0FFFFFFF
    return None


def exfat(peek: Peek) -> FileSystem | None:
    """The file system exFAT."""
    head = ExfatBootSector.unpack(peek.read(0, ExfatBootSector.SIZE))
    if (
        head.name != b"EXFAT   "
        or head.signature != _BOOT_SIGNATURE
        or not 9 <= head.sector_shift <= 12
        or head.cluster_shift > 25 - head.sector_shift
        or not 2 <= head.root_cluster <= head.cluster_count + 1
    ):
        return None
    size = head.sector_count << head.sector_shift
    return FileSystem("exfat", _exfat_label(peek, head), serial_text(head.serial), size=size)


def _exfat_label(peek: Peek, head: ExfatBootSector) -> str | None:
    """The entry of the root directory that is the volume's label."""
    cluster_size = 1 << (head.sector_shift + head.cluster_shift)
    cluster = head.root_cluster
    for _ in range(ROOT_CLUSTERS_MAX):
        if not 2 <= cluster <= head.cluster_count + 1:
            return None
        offset = (head.cluster_heap << head.sector_shift) + (cluster - 2) * cluster_size
        directory = peek.read(offset, min(cluster_size, DIRECTORY_BYTES_MAX))
        for start in range(0, len(directory), _ENTRY_BYTES):
            entry = directory[start : start + _ENTRY_BYTES]
            if entry[0] == 0:
                return None
            if entry[0] == _EXFAT_LABEL:
                return text(entry[2 : 2 + 2 * min(entry[1], 11)], "utf-16-le")
        fat_offset = (head.fat_sector << head.sector_shift) + cluster * 4
        cluster = int.from_bytes(peek.read(fat_offset, 4), "little")
    return None


def ntfs(peek: Peek) -> FileSystem | None:
    """NTFS."""
    head = NtfsBootSector.unpack(peek.read(0, NtfsBootSector.SIZE))
    if (
        head.name != b"NTFS    "
        or head.sector_size not in (256, 512, 1024, 2048, 4096)
        or any(head.zeros)
    ):
        return None
    cluster_size = head.sector_size * count_or_power(head.cluster_sectors)
    clusters = head.record_clusters
    record_size = clusters * cluster_size if clusters > 0 else 1 << min(-clusters, 31)
    label = None
    if record_size <= RECORD_BYTES_MAX:
        offset = head.mft_cluster * cluster_size + _VOLUME_RECORD * record_size
        label = _ntfs_label(peek.read(offset, record_size))
    serial = f"{head.serial:016X}" if head.serial else None
    return FileSystem("ntfs", label, serial, size=head.sector_count * head.sector_size)


def count_or_power(value: int) -> int:
    """Sectors of a cluster: up to 128 as they are, above as minus the power of two."""
    return value if value <= 128 else 1 << (256 - value)


def _ntfs_label(data: bytes) -> str | None:
    """The volume's name, an attribute of its record in the MFT."""
    if len(data) < MftRecord.SIZE:
        return None
    record = MftRecord.unpack(data)
    if record.mark != b"FILE":
        return None
    data = _without_fixups(data, record)
    position = record.attributes_offset
    while position + MftAttribute.SIZE <= len(data):
        attribute = MftAttribute.unpack(data[position:])
        if attribute.type == _VOLUME_NAME:
            start = position + attribute.value_offset
            return text(data[start : start + min(attribute.value_length, 256)], "utf-16-le")
        if attribute.type == _ATTRIBUTES_END or attribute.length == 0:
            return None
        position += attribute.length
    return None


def _without_fixups(data: bytes, record: MftRecord) -> bytes:
    """Put back the last two bytes of each 512, which a record keeps at its start."""
    plain = bytearray(data)
    for number in range(1, min(record.fixup_count, len(data) // 512 + 1)):
        place = record.fixup_offset + 2 * number
        plain[number * 512 - 2 : number * 512] = data[place : place + 2].ljust(2, b"\0")
    return bytes(plain)


def bitlocker(peek: Peek) -> FileSystem | None:
    """A BitLocker volume, of Windows Vista, of later ones, or on a removable disk."""
    head = peek.read(0, 512)
    if head[:11] == b"\xeb\x52\x90-FVE-FS-":
        return FileSystem("BitLocker")
    if head[:11] == b"\xeb\x58\x90-FVE-FS-":
        place = 176
    elif head[:11] == b"\xeb\x58\x90MSWIN4.1":
        place = 440
    else:
        return None
    offset = int.from_bytes(head[place : place + 8], "little")
    metadata = BitlockerMetadata.unpack(peek.read(offset, BitlockerMetadata.SIZE))
    if offset == 0 or metadata.mark != b"-FVE-FS-":
        return None
    return FileSystem("BitLocker", uuid=str(uuid.UUID(bytes_le=metadata.volume_guid)))
