"""Where the parts of an exFAT file system are.

Source: Microsoft "exFAT file system specification" 1.00, sections 3 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, uint

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader

BOOT_SECTORS: Final = 11
"""What the checksum in the twelfth covers."""

_DIRTY: Final = 0x0002
_MEDIA_FAILURE: Final = 0x0004
_ACTIVE_FAT: Final = 0x0001
_UNCOVERED: Final = (106, 107, 112)  # flags and percentage: they change while it is mounted


class BootSector(Structure, size=512, endian="<"):
    """The first sector."""

    name: bytes = raw(8, at=3, doc="EXFAT and three blanks")
    sector_count: int = uint(8, at=72, doc="of the volume")
    fat_sector: int = uint(4, at=80, doc="where the first FAT begins")
    fat_sectors: int = uint(4, at=84, doc="of one FAT")
    heap_sector: int = uint(4, at=88, doc="where cluster 2 begins")
    cluster_count: int = uint(4, at=92, doc="in the heap")
    root_cluster: int = uint(4, at=96, doc="where the root directory begins")
    revision: int = uint(2, at=104, doc="0x0100")
    flags: int = uint(2, at=106, doc="which FAT counts, dirty, media failure")
    sector_shift: int = uint(1, at=108, doc="9 to 12")
    cluster_shift: int = uint(1, at=109, doc="sectors of a cluster; a cluster has 32 MiB at most")
    fat_count: int = uint(1, at=110, doc="1, or 2 for TexFAT")
    signature: int = uint(2, at=510, doc="0xaa55")


@dataclass(frozen=True)
class Geometry:
    """Sizes and places in bytes of the volume.

    Attributes:
        cluster_size: in bytes.
        cluster_count: in the heap.
        fat_at: where each FAT begins.
        fat_size: of one.
        active: which of them, and of the bitmaps, counts.
        root_cluster: where the root directory begins.
        heap_at: where cluster 2 begins.
        is_dirty: whether it was not unmounted.
        has_failed: whether a system has met bad sectors.
    """

    cluster_size: int
    cluster_count: int
    fat_at: tuple[int, ...]
    fat_size: int
    active: int
    root_cluster: int
    heap_at: int
    is_dirty: bool
    has_failed: bool


def read_geometry(reader: VolumeReader) -> Geometry:
    """Where everything is.

    Raises:
        CorruptImageError: if the boot sectors do not match their checksum or contradict
            themselves, or if the volume is cut off.
    """
    boot = BootSector.unpack(reader.read(0, BootSector.SIZE, "boot sector"))
    need = [
        ("signature", boot.signature == 0xAA55, "0xaa55"),
        ("sector_shift", 9 <= boot.sector_shift <= 12, "9 to 12"),
        ("cluster_shift", boot.cluster_shift <= 25 - boot.sector_shift, "clusters of 32 MiB"),
        ("fat_count", boot.fat_count in (1, 2), "1 or 2"),
        ("revision", boot.revision >> 8 == 1, "version 1"),
    ]
    for field, holds, expected in need:
        boot.require(field, holds, expected, where=reader.name)
    _check_sum(reader, 1 << boot.sector_shift)
    sector = 1 << boot.sector_shift
    cluster_size = sector << boot.cluster_shift
    fat_size = boot.fat_sectors * sector
    fat_end = boot.fat_sector * sector + boot.fat_count * fat_size
    heap_at = boot.heap_sector * sector
    problem = None
    if boot.sector_count * sector > reader.size:
        problem = f"a volume of {boot.sector_count * sector} bytes, found {reader.size}"
    elif boot.fat_sector < 24 or fat_end > heap_at:
        problem = "the allocation table between the boot sectors and the clusters"
    elif heap_at + boot.cluster_count * cluster_size > boot.sector_count * sector:
        problem = f"{boot.cluster_count} clusters inside the volume"
    elif fat_size < 4 * (boot.cluster_count + 2):
        problem = f"an allocation table with {boot.cluster_count + 2} entries"
    if problem is not None:
        raise CorruptImageError(f"boot sector: expected {problem}", name=reader.name)
    return Geometry(
        cluster_size=cluster_size,
        cluster_count=boot.cluster_count,
        fat_at=tuple(
            boot.fat_sector * sector + number * fat_size for number in range(boot.fat_count)
        ),
        fat_size=fat_size,
        active=min(boot.flags & _ACTIVE_FAT, boot.fat_count - 1),
        root_cluster=boot.root_cluster,
        heap_at=heap_at,
        is_dirty=bool(boot.flags & _DIRTY),
        has_failed=bool(boot.flags & _MEDIA_FAILURE),
    )


def boot_checksum(sectors: bytes | bytearray) -> int:
    """Section 3.4: a sum that is turned right by a bit before each byte, 32 bits wide."""
    total = 0
    for at, byte in enumerate(sectors):
        if at not in _UNCOVERED:
            total = ((total << 31 | total >> 1) + byte) & 0xFFFFFFFF
    return total


def _check_sum(reader: VolumeReader, sector: int) -> None:
    content = reader.read(0, (BOOT_SECTORS + 1) * sector, "boot sectors")
    total = boot_checksum(content[: BOOT_SECTORS * sector])
    if content[BOOT_SECTORS * sector :] != total.to_bytes(4, "little") * (sector // 4):
        raise CorruptImageError("boot sectors: they do not match their checksum", name=reader.name)
