"""What the boot sector of NTFS says of sizes and places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB, MIB
from imprint.filesystems.ntfs.layout import BOOT_BYTES, STRIDE
from imprint.filesystems.probes.microsoft import NtfsBootSector, count_or_power

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader

_SECTOR_SIZES: Final = (256, 512, 1024, 2048, 4096)
_CLUSTER_BYTES_MAX: Final = 2 * MIB
_RECORD_BYTES_MAX: Final = 64 * KIB

CLUSTER_COUNT_MAX: Final = 1 << 32
"""More than Windows makes; the bitmap is 512 MiB then."""


@dataclass(frozen=True)
class Geometry:
    """Sizes and places. Clusters are counted from the volume's start.

    Attributes:
        where: the volume's name, for errors.
        sector_size: in bytes.
        cluster_size: in bytes.
        cluster_count: whole ones; behind them is the copy of the boot sector, at least.
        record_size: of the MFT, in bytes.
        mft_cluster: where the MFT begins.
        mirror_cluster: where the copy of its first records begins.
        end: of the sectors that the boot sector counts, in bytes.
    """

    where: str
    sector_size: int
    cluster_size: int
    cluster_count: int
    record_size: int
    mft_cluster: int
    mirror_cluster: int
    end: int

    @property
    def clusters_end(self) -> int:
        """The first byte behind the last cluster."""
        return self.cluster_count * self.cluster_size


def read_geometry(reader: VolumeReader) -> Geometry:
    """Where everything is.

    Raises:
        CorruptImageError: if the boot sector contradicts itself, or the volume is cut off.
    """
    boot = NtfsBootSector.unpack(reader.read(0, NtfsBootSector.SIZE, "boot sector"))
    name = reader.name
    boot.require("name", boot.name == b"NTFS    ", "the mark of NTFS", where=name)
    boot.require("sector_size", boot.sector_size in _SECTOR_SIZES, "256 to 4096", where=name)
    sectors = count_or_power(boot.cluster_sectors)
    cluster_size = boot.sector_size * sectors
    is_size = sectors.bit_count() == 1 and STRIDE <= cluster_size <= _CLUSTER_BYTES_MAX
    boot.require("cluster_sectors", is_size, "clusters of 512 bytes to 2 MiB", where=name)
    clusters = boot.record_clusters
    record_size = clusters * cluster_size if clusters > 0 else 1 << -clusters
    is_size = STRIDE <= record_size <= _RECORD_BYTES_MAX and record_size.bit_count() == 1
    boot.require("record_clusters", is_size, "records of 512 bytes to 64 KiB", where=name)
    count = boot.sector_count // sectors
    end = boot.sector_count * boot.sector_size
    is_count = count * cluster_size >= BOOT_BYTES and count <= CLUSTER_COUNT_MAX
    boot.require("sector_count", is_count, "1 to 2^32 clusters", where=name)
    if end > reader.size:
        raise CorruptImageError(
            f"boot sector: expected a volume of {end} bytes, found {reader.size}: "
            "its end is missing",
            name=name,
        )
    boot.require("mft_cluster", boot.mft_cluster < count, f"below {count}", where=name)
    boot.require("mirror_cluster", boot.mirror_cluster < count, f"below {count}", where=name)
    return Geometry(
        where=name,
        sector_size=boot.sector_size,
        cluster_size=cluster_size,
        cluster_count=count,
        record_size=record_size,
        mft_cluster=boot.mft_cluster,
        mirror_cluster=boot.mirror_cluster,
        end=end,
    )
