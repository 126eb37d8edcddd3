"""File systems of 16 TiB with hardly anything in them: what their maps take stays in bounds."""

from __future__ import annotations

import struct
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.units import MIB
from imprint.filesystems.exfat import FILE_SYSTEM as EXFAT
from imprint.filesystems.exfat.geometry import BootSector
from imprint.filesystems.f2fs import FILE_SYSTEM as F2FS
from imprint.filesystems.f2fs import layout as f2fs
from imprint.filesystems.fat import FILE_SYSTEM as FAT
from imprint.filesystems.files import Locating
from imprint.filesystems.hfs_common import UNMOUNTED
from imprint.filesystems.hfsplus import FILE_SYSTEM as HFSPLUS
from imprint.filesystems.hfsplus import layout as hfsplus
from imprint.filesystems.probes.microsoft import Fat32BootSector, FatBootSector
from imprint.testing.format_faults import bounded_memory
from imprint.testing.fuzzing.allocation_maps import seal_exfat
from imprint.testing.fuzzing.endless import SIZE, EndlessVolume
from imprint.testing.fuzzing.sparse import load
from imprint.testing.small_f2fs import PLACES, seal_f2fs, small_f2fs
from imprint.testing.small_hfsplus import small_hfsplus

if TYPE_CHECKING:
    from imprint.core.layout import Structure
    from imprint.filesystems.allocation import Walking

CORPUS: Final = Path(__file__).parent / "corpus"
MEMORY_BYTES_MAX: Final = 200 * MIB


def put(content: bytearray, structure: Structure, at: int = 0) -> None:
    """Only what the structure declares."""
    packed = structure.pack()
    for field in type(structure).FIELDS.values():
        content[at + field.at : at + field.at + field.size] = packed[
            field.at : field.at + field.size
        ]


def kept(name: str) -> bytearray:
    return bytearray(load((CORPUS / f"{name}.hex").read_text(encoding="ascii")))


def fat() -> EndlessVolume:
    """FAT32 with nearly as many clusters as there can be."""
    content = kept("fat/fat32")
    boot = FatBootSector.unpack(content).replace(
        sector_size=4096, cluster_sectors=1, fat_count=1, reserved_sectors=1
    )
    fat_sectors = (1 << 28) * 4 // 4096
    boot = boot.replace(sector_count_16=0, sector_count_32=fat_sectors + (1 << 28) - MIB)
    put(content, boot)
    put(content, Fat32BootSector.unpack(content).replace(fat_sectors=fat_sectors, root_cluster=2))
    content = content[:4096]
    content += bytes.fromhex("f8ffff0f ffffff0f ffffff0f")
    return EndlessVolume(bytes(content))


def exfat() -> EndlessVolume:
    """With a table of half a GiB, and a bitmap that is one large file without a chain."""
    count = 1 << 27
    content = kept("exfat/chained")
    boot = BootSector.unpack(content)
    sector = 1 << boot.sector_shift
    shift = 16 - boot.sector_shift
    fat_sectors = 4 * (count + 2) // sector + 1
    heap = boot.fat_sector + fat_sectors
    boot = boot.replace(
        fat_sectors=fat_sectors,
        heap_sector=heap,
        cluster_count=count,
        cluster_shift=shift,
        root_cluster=2,
        sector_count=heap + (count << shift),
    )
    put(content, boot)
    seal_exfat(content)
    bitmap_clusters = count // 8 >> 16
    entry = bytes([0x81]) + bytes(19) + struct.pack("<IQ", 3, count // 8)
    ends = (0xFFFFFFFF).to_bytes(4, "little")
    chain = b"".join((4 + at).to_bytes(4, "little") for at in range(bitmap_clusters - 1)) + ends
    table = ends * 3 + chain
    at = boot.fat_sector * sector
    content = content[:at].ljust(at, b"\0") + table
    root_at = heap * sector
    return PatchedVolume(bytes(content), root_at, entry)


class PatchedVolume(EndlessVolume):
    """With a second piece of content somewhere."""

    def __init__(self, content: bytes, at: int, more: bytes) -> None:
        super().__init__(content)
        self._pieces.append((at, more))


def big_f2fs() -> EndlessVolume:
    """With eight million segments, none of which is used."""
    places = list(PLACES)
    content = bytearray(small_f2fs())
    at = f2fs.SUPER_OFFSETS[0]
    main = 1 << 20
    count = (SIZE // f2fs.BLOCK - main) >> 9
    block = f2fs.Superblock.unpack(content[at:])
    needed = -(-count // f2fs.SIT_ENTRIES)
    sit_segments = 2 * (-(-needed >> 9) + 1)
    sit = 1 << 15
    nat = sit + (sit_segments << 9)
    block = block.replace(
        block_count=main + (count << 9),
        sit_segments=sit_segments,
        sit_block=sit,
        nat_block=nat,
        summary_block=nat + 1024,
        main_block=main,
        main_segments=count,
        checkpoint_payload=6,
    )
    put(content, block, at)
    for index, place in enumerate(places):
        if place in (512, 519, 1024, 1026):
            head = f2fs.Checkpoint.unpack(content[index * f2fs.BLOCK :])
            size = (sit_segments // 2 << 9) // 8
            put(content, head.replace(sit_bitmap_bytes=size), index * f2fs.BLOCK)
    journal = places.index(513) * f2fs.BLOCK + f2fs.SUMMARIES_BYTES
    content[journal : journal + 2] = bytes(2)
    seal_f2fs(content)
    return EndlessVolume(bytes(content), places)


def big_hfsplus() -> EndlessVolume:
    """With the largest number of blocks, and a bitmap of half a GiB."""
    content = bytearray(small_hfsplus())
    at = hfsplus.HEADER_OFFSET
    header = hfsplus.VolumeHeader.unpack(content[at:])
    size = 1 << 29
    extent = size.to_bytes(8) + bytes(4) + (1 << 17).to_bytes(4)
    extent += (1 << 16).to_bytes(4) + (1 << 17).to_bytes(4) + bytes(56)
    header = header.replace(
        block_size=4096,
        total_blocks=(1 << 32) - 1,
        allocation_fork=extent,
        extents_fork=bytes(80),
        catalog_fork=bytes(80),
        attributes_fork=bytes(80),
        attributes=UNMOUNTED,
    )
    put(content, header, at)
    return EndlessVolume(bytes(content))


@pytest.mark.parametrize(
    ("system", "volume", "unit"),
    [
        (FAT, fat(), 4096),
        (EXFAT, exfat(), 65536),
        (F2FS, big_f2fs(), 4096),
        (HFSPLUS, big_hfsplus(), 4096),
    ],
    ids=["fat", "exfat", "f2fs", "hfsplus"],
)
def test_the_map_of_a_volume_of_many_units_takes_little_memory(
    system: Walking, volume: EndlessVolume, unit: int
) -> None:
    """Fails if a table or a bitmap is held as a whole, or its entries as numbers."""
    with bounded_memory(MEMORY_BYTES_MAX):
        found = system.allocation(volume)
        deque(system.reached(volume), maxlen=0)
        if isinstance(system, Locating):
            deque(system.file_runs(volume), maxlen=0)
    assert found.unit == unit
    assert found.used.total < SIZE
