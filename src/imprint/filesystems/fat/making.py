"""Making empty FAT file systems: floppies as their drives expect them, and volumes of any size.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, Boot Sector and BPB; ECMA-107
for what drives of floppies expect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

from imprint.core.errors import UsageError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import GIB, KIB, MIB, div_up
from imprint.filesystems.fat.folders import LABEL, NewFile, stamp_of
from imprint.filesystems.fat.geometry import ENTRY_BYTES
from imprint.filesystems.probes.microsoft import FAT12_CLUSTERS_MAX, FAT16_CLUSTERS_MAX

SECTOR: Final = 512
_CLUSTER_SECTORS_MAX: Final = 64
_FAT32_CLUSTERS_MIN: Final = FAT16_CLUSTERS_MAX + 1
_SIZE_MAX: Final = 0xFFFFFFFF * SECTOR
_LABEL_CHARS: Final = 11
_JUMP: Final = {False: b"\xeb\x3c\x90", True: b"\xeb\x58\x90"}

_CODE: Final = bytes.fromhex("cd18f4ebfd")
"""``int 18h``: there is no system here, try the next disk; where that returns, halt."""


class Writable(Protocol):
    """A volume that is written, and not read."""

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``."""

    def flush(self) -> None:
        """Wait until all that was written is durable, if that counts yet."""


class BootSector(Structure, size=512, endian="<"):
    """What FAT12, FAT16 and FAT32 begin with alike."""

    jump: bytes = raw(3, at=0, doc="over the fields")
    maker: bytes = raw(8, at=3, doc="of the file system")
    sector_size: int = uint(2, at=11, doc="in bytes", default=SECTOR)
    cluster_sectors: int = uint(1, at=13, doc="a power of two")
    reserved_sectors: int = uint(2, at=14, doc="before the first FAT")
    fat_count: int = uint(1, at=16, doc="copies of the FAT", default=2)
    root_entries: int = uint(2, at=17, doc="0 for FAT32")
    sector_count_16: int = uint(2, at=19, doc="0: see sector_count_32")
    media: int = uint(1, at=21, doc="also the first byte of the FAT")
    fat_sectors_16: int = uint(2, at=22, doc="of one FAT; 0 for FAT32")
    track_sectors: int = uint(2, at=24, doc="on a track")
    heads: int = uint(2, at=26, doc="of the drive")
    hidden_sectors: int = uint(4, at=28, doc="before the volume")
    sector_count_32: int = uint(4, at=32, doc="used if sector_count_16 is 0")
    signature: int = uint(2, at=510, doc="of sectors that may be started", default=0xAA55)


class Tail(Structure, size=26, endian="<"):
    """What follows the fields of FAT12 and FAT16, and those of FAT32."""

    drive: int = uint(1, at=0, doc="as the BIOS numbers it")
    mark: int = uint(1, at=2, doc="what follows is there", default=0x29)
    serial: int = uint(4, at=3, doc="of the volume")
    label: bytes = raw(11, at=7, doc="of the volume, in capitals")
    kind: bytes = raw(8, at=18, doc="FAT12 or the like: only a hint")


@dataclass(frozen=True)
class Shape:
    """How a file system is laid out.

    Attributes:
        bits: of an entry: 12, 16 or 32.
        sectors: of 512 bytes, in all.
        cluster_sectors: of a cluster.
        reserved: sectors before the first FAT.
        root_entries: of the root folder; 0 for FAT32.
        fat_sectors: of one FAT.
        media: the byte that tells one kind of floppy from another.
        track_sectors: on a track.
        heads: of the drive.
    """

    bits: int
    sectors: int
    cluster_sectors: int
    reserved: int
    root_entries: int
    fat_sectors: int
    media: int = 0xF8
    track_sectors: int = 63
    heads: int = 255

    @property
    def cluster_count(self) -> int:
        """Clusters in the data area; negative if there is no room for what is before it."""
        root = div_up(self.root_entries * ENTRY_BYTES, SECTOR)
        data = self.sectors - self.reserved - root - 2 * self.fat_sectors
        return data // self.cluster_sectors


def _floppy(
    size: int,
    cluster_sectors: int,
    root_entries: int,
    media: int,
    fat_sectors: int,
    /,
    **drive: int,
) -> tuple[int, Shape]:
    shape = Shape(
        12,
        size * 2,
        cluster_sectors,
        1,
        root_entries,
        fat_sectors,
        media,
        drive["track_sectors"],
        drive["heads"],
    )
    return size * KIB, shape


FLOPPIES: Final = dict(
    (
        _floppy(160, 1, 64, 0xFE, 1, track_sectors=8, heads=1),
        _floppy(180, 1, 64, 0xFC, 2, track_sectors=9, heads=1),
        _floppy(320, 2, 112, 0xFF, 1, track_sectors=8, heads=2),
        _floppy(360, 2, 112, 0xFD, 2, track_sectors=9, heads=2),
        _floppy(720, 2, 112, 0xF9, 3, track_sectors=9, heads=2),
        _floppy(1200, 1, 224, 0xF9, 7, track_sectors=15, heads=2),
        _floppy(1440, 1, 224, 0xF0, 9, track_sectors=18, heads=2),
        _floppy(2880, 2, 240, 0xF0, 9, track_sectors=36, heads=2),
    )
)
"""By their size in bytes."""


def shape_of(size: int, bits: int | None = None) -> Shape:
    """How a volume of a size is laid out best.

    Args:
        size: of the volume, in bytes; what does not fill a sector is left over.
        bits: 12, 16 or 32; ``None``: what is usual for the size.

    Raises:
        UsageError: if there is no such file system of that size.
    """
    if size in FLOPPIES and bits in (None, 12):
        return FLOPPIES[size]
    wanted = bits or (12 if size < 16 * MIB else 16 if size < 512 * MIB else 32)
    if not 64 * SECTOR <= size <= _SIZE_MAX:
        raise UsageError(f"expected 32 KiB to 2 TiB for a FAT file system, found {size} bytes")
    clusters = 1 if wanted != 32 else _fat32_cluster(size)
    while clusters <= _CLUSTER_SECTORS_MAX:
        shape = _laid_out(size // SECTOR, clusters, wanted)
        count = shape.cluster_count
        if wanted == 12 and 0 < count <= FAT12_CLUSTERS_MAX:
            return shape
        if wanted == 16 and FAT12_CLUSTERS_MAX < count <= FAT16_CLUSTERS_MAX:
            return shape
        if wanted == 32 and count >= _FAT32_CLUSTERS_MIN:
            return shape
        clusters *= 2
    raise UsageError(f"expected another size for FAT{wanted}, found {size} bytes")


def make(
    volume: Writable, shape: Shape, *, label: str, serial: int, hidden: int, seconds: float
) -> None:
    """Write an empty file system; the boot sector last, so that no half of one is found.

    Args:
        volume: at least as large as the shape says.
        shape: of the file system.
        label: at most 11 characters; empty: none.
        serial: a number of 32 bits.
        hidden: sectors of the disk before the volume.
        seconds: when, since 1970.

    Raises:
        UsageError: if there can be no such label.
        TargetError: if it cannot be written.
    """
    name = _label(label)
    data_at = (shape.reserved + 2 * shape.fat_sectors) * SECTOR
    root_bytes = shape.root_entries * ENTRY_BYTES or shape.cluster_sectors * SECTOR
    # What was there before must not be found by anybody: neither the boot sector nor the tables.
    zeros = memoryview(bytes(MIB))
    for at in range(0, data_at + root_bytes, len(zeros)):
        volume.write(zeros[: data_at + root_bytes - at], at)
    if label:
        entry = bytearray(NewFile(LABEL, 0, 0, stamp_of(seconds)).encode(name))
        volume.write(memoryview(entry), data_at)
    for number in range(2):
        start = (shape.reserved + number * shape.fat_sectors) * SECTOR
        volume.write(memoryview(_first_entries(shape)), start)
    boot = _boot_sector(shape, name, serial, hidden)
    if shape.bits == 32:
        info = _information(shape)
        for at, sector in ((SECTOR, info), (6 * SECTOR, boot), (7 * SECTOR, info)):
            volume.write(memoryview(sector), at)
    volume.flush()
    volume.write(memoryview(boot), 0)
    volume.flush()


def _fat32_cluster(size: int) -> int:
    """Sectors of a cluster, as Microsoft's table has them."""
    for limit, sectors in ((260 * MIB, 1), (8 * GIB, 8), (16 * GIB, 16), (32 * GIB, 32)):
        if size <= limit:
            return sectors
    return _CLUSTER_SECTORS_MAX


def _laid_out(sectors: int, cluster_sectors: int, bits: int) -> Shape:
    """A shape whose FATs are as large as its clusters need."""
    reserved, root_entries = (32, 0) if bits == 32 else (1, 512 if sectors > 8192 else 224)
    shape = Shape(bits, sectors, cluster_sectors, reserved, root_entries, 1)
    while (needed := div_up((shape.cluster_count + 2) * bits, 8 * SECTOR)) > shape.fat_sectors:
        shape = replace(shape, fat_sectors=needed)
    return shape


def _boot_sector(shape: Shape, label: bytes, serial: int, hidden: int) -> bytes:
    is_32 = shape.bits == 32
    is_small = shape.sectors <= 0xFFFF and not is_32
    sector = bytearray(
        BootSector(
            jump=_JUMP[is_32],
            maker=b"IMPRINT ",
            cluster_sectors=shape.cluster_sectors,
            reserved_sectors=shape.reserved,
            root_entries=shape.root_entries,
            sector_count_16=shape.sectors if is_small else 0,
            media=shape.media,
            fat_sectors_16=0 if is_32 else shape.fat_sectors,
            track_sectors=shape.track_sectors,
            heads=shape.heads,
            hidden_sectors=hidden,
            sector_count_32=0 if is_small else shape.sectors,
        ).pack()
    )
    at = 64 if is_32 else 36
    if is_32:
        fields = ((36, shape.fat_sectors, 4), (44, 2, 4), (48, 1, 2), (50, 6, 2))
        for place, value, length in fields:
            sector[place : place + length] = value.to_bytes(length, "little")
    drive = 0x80 if shape.media == 0xF8 else 0
    kind = b"FAT%d" % shape.bits
    tail = Tail(drive=drive, serial=serial, label=label, kind=kind.ljust(8))
    sector[at : at + Tail.SIZE] = tail.pack()
    code_at = at + Tail.SIZE
    sector[code_at : code_at + len(_CODE)] = _CODE
    return bytes(sector)


def _first_entries(shape: Shape) -> bytes:
    """Those that belong to no cluster, and of FAT32 that of the root."""
    if shape.bits == 12:
        return bytes([shape.media, 0xFF, 0xFF])
    if shape.bits == 16:
        return bytes([shape.media]) + b"\xff\xff\xff"
    return bytes([shape.media]) + b"\xff\xff\x0f" + b"\xff\xff\xff\x0f" + b"\xff\xff\xff\x0f"


def _information(shape: Shape) -> bytes:
    """FAT32's information sector: how many clusters are free, and where to begin to look."""
    sector = bytearray(SECTOR)
    fields = (
        (0, 0x41615252),
        (484, 0x61417272),
        (488, shape.cluster_count - 1),
        (492, 2),
        (508, 0xAA550000),
    )
    for place, value in fields:
        sector[place : place + 4] = value.to_bytes(4, "little")
    return bytes(sector)


def _label(text: str) -> bytes:
    if len(text) > _LABEL_CHARS or not all(" " <= char < "\x7f" for char in text):
        raise UsageError(f"expected a label of at most 11 plain characters, found {text!r:.40}")
    if any(char in '"*+,./:;<=>?[\\]|' for char in text):
        raise UsageError(f"expected a label without punctuation, found {text!r}")
    return (text.upper() or "NO NAME").encode().ljust(_LABEL_CHARS)
