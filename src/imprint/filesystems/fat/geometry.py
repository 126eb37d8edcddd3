"""Where the parts of a FAT file system are.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import div_up
from imprint.filesystems.probes.microsoft import (
    FAT12_CLUSTERS_MAX,
    FAT16_CLUSTERS_MAX,
    FAT32_CLUSTERS_MAX,
    Fat32BootSector,
    FatBootSector,
    fat_boot_sector,
)

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader

ENTRY_BYTES: Final = 32
FAT_COUNT_MAX: Final = 4
_NOT_MIRRORED: Final = 0x80
_ACTIVE_FAT: Final = 0x0F
_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Geometry:
    """Sizes and places in bytes of the volume.

    Attributes:
        bits: of an entry: 12, 16 or 32.
        cluster_size: in bytes.
        cluster_count: in the data area.
        fat_at: where the first FAT begins.
        fat_size: of one FAT.
        fat_count: how many there are.
        active: the one that counts.
        is_mirrored: whether the others are copies of it.
        root_at: where the root directory of FAT12 and FAT16 begins.
        root_size: of that; 0 for FAT32.
        root_cluster: where that of FAT32 begins; else 0.
        data_at: where cluster 2 begins.
        end: of the file system.
        info_at: where FAT32's information sector is; ``None``: there is none.
        is_marked_dirty: whether a system that has mounted it says so in the boot sector.
    """

    bits: int
    cluster_size: int
    cluster_count: int
    fat_at: int
    fat_size: int
    fat_count: int
    active: int
    is_mirrored: bool
    root_at: int
    root_size: int
    root_cluster: int
    data_at: int
    end: int
    info_at: int | None
    is_marked_dirty: bool


def read_geometry(reader: VolumeReader, *, may_be_cut: bool = False) -> Geometry:
    """Where everything is.

    Args:
        reader: of the volume.
        may_be_cut: whether the volume may end before the file system does.

    Raises:
        CorruptImageError: if the boot sector contradicts itself, or the volume is cut off.
    """
    found = fat_boot_sector(lambda at, size: reader.read(at, size, "boot sector"), reader.size)
    sector = bytes(reader.read(0, 512, "boot sector")) if found is None else found
    boot = FatBootSector.unpack(sector)
    _check(boot, reader.name)
    fat_sectors = boot.fat_sectors_16 or Fat32BootSector.unpack(sector).fat_sectors
    root_size = boot.root_entries * ENTRY_BYTES
    root_at = (boot.reserved_sectors + boot.fat_count * fat_sectors) * boot.sector_size
    data_at = root_at + div_up(root_size, boot.sector_size) * boot.sector_size
    end = (boot.sector_count_16 or boot.sector_count_32) * boot.sector_size
    cluster_size = boot.cluster_sectors * boot.sector_size
    count = (end - data_at) // cluster_size
    is_32 = boot.fat_sectors_16 == 0
    bits, most = _kind(count, is_32=is_32)
    fat_size = fat_sectors * boot.sector_size
    flags = sector[40] if is_32 else 0
    is_mirrored = not flags & _NOT_MIRRORED
    active = 0 if is_mirrored else flags & _ACTIVE_FAT
    problem = None
    if not 0 < count <= most:
        problem = f"between 1 and {most} clusters, found {count}"
    elif end > reader.size and not may_be_cut:
        problem = f"a volume of {end} bytes, found {reader.size}: its end is missing"
    elif fat_size * 8 < (count + 2) * bits:
        problem = f"a FAT with {count + 2} entries, found {fat_size} bytes for it"
    elif active >= boot.fat_count:
        problem = f"one of {boot.fat_count} FATs to be active, found {active}"
    if problem is not None:
        raise CorruptImageError(f"boot sector: expected {problem}", name=reader.name)
    return Geometry(
        bits=bits,
        cluster_size=cluster_size,
        cluster_count=count,
        fat_at=boot.reserved_sectors * boot.sector_size,
        fat_size=fat_size,
        fat_count=boot.fat_count,
        active=active,
        is_mirrored=is_mirrored,
        root_at=root_at,
        root_size=root_size,
        root_cluster=Fat32BootSector.unpack(sector).root_cluster if is_32 else 0,
        data_at=data_at,
        end=end,
        info_at=_info_at(boot, sector) if is_32 else None,
        is_marked_dirty=bool(sector[65 if is_32 else 37] & 1),
    )


def _info_at(boot: FatBootSector, sector: bytes) -> int | None:
    number = int.from_bytes(sector[48:50], "little")
    return number * boot.sector_size if 0 < number < boot.reserved_sectors else None


def _check(boot: FatBootSector, name: str) -> None:
    need = [
        ("sector_size", boot.sector_size in _SECTOR_SIZES, "512 to 4096"),
        ("cluster_sectors", boot.cluster_sectors.bit_count() == 1, "a power of two"),
        ("reserved_sectors", boot.reserved_sectors > 0, "at least 1"),
        ("fat_count", 0 < boot.fat_count <= FAT_COUNT_MAX, f"1 to {FAT_COUNT_MAX}"),
    ]
    for field, holds, expected in need:
        boot.require(field, holds, expected, where=name)


def _kind(count: int, *, is_32: bool) -> tuple[int, int]:
    """Bits of an entry, and the largest number of clusters.

    mkfs.fat makes FAT32 with fewer clusters than Microsoft's document allows, and Linux goes by
    the field for the size of the FAT, as is done here.
    """
    if is_32:
        return 32, FAT32_CLUSTERS_MAX
    return (12, FAT12_CLUSTERS_MAX) if count <= FAT12_CLUSTERS_MAX else (16, FAT16_CLUSTERS_MAX)
