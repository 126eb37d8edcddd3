"""Targets: allocation maps of file systems that have few structures. All on 16 TiB of zeros."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.filesystems import swap
from imprint.filesystems.allocation import Walking
from imprint.filesystems.exfat import FILE_SYSTEM as EXFAT
from imprint.filesystems.exfat.geometry import BOOT_SECTORS, BootSector, boot_checksum
from imprint.filesystems.exfat.walk import Entry as ExfatEntry
from imprint.filesystems.f2fs import FILE_SYSTEM as F2FS
from imprint.filesystems.f2fs import layout as f2fs
from imprint.filesystems.fat import FILE_SYSTEM as FAT
from imprint.filesystems.fat.tree import FatTree
from imprint.filesystems.fat.walk import Entry as FatEntry
from imprint.filesystems.files import Locating
from imprint.filesystems.hfs import FILE_SYSTEM as HFS
from imprint.filesystems.hfs_common import NodeDescriptor, TreeHeader
from imprint.filesystems.hfsplus import FILE_SYSTEM as HFSPLUS
from imprint.filesystems.hfsplus import layout as hfsplus
from imprint.filesystems.probes.apple import HFS_OFFSET, HfsMasterBlock
from imprint.filesystems.probes.linux import SwapHeader
from imprint.filesystems.probes.microsoft import Fat32BootSector, FatBootSector
from imprint.filesystems.ufs import FILE_SYSTEM as UFS
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.endless import EndlessVolume
from imprint.testing.fuzzing.file_listings import listing
from imprint.testing.fuzzing.file_places import locating
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.small_f2fs import PLACES, seal_f2fs, small_f2fs
from imprint.testing.small_hfs import HFS_PLACES, small_hfs, wrapped
from imprint.testing.small_hfsplus import small_hfsplus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imprint.filesystems.allocation import Allocating

_REACHED_MAX: Final = 20_000
_EMPTY: Final = (bytes(4096),)


def targets() -> Iterator[Target]:
    """One for each file system; where there are no seeds, they are in the corpus."""
    yield _target(
        "fat",
        FAT,
        places=(
            Place(FatBootSector),
            Place(Fat32BootSector),
            Place(FatEntry, b"FOLDER "),
            Place(FatEntry, b"Z          "),
        ),
        further=(
            listing("vfat", MemoryStorage, reader=FatTree),
            listing("vfat", EndlessVolume, reader=FatTree),
        ),
    )
    yield _target(
        "exfat",
        EXFAT,
        places=(
            Place(BootSector),
            Place(ExfatEntry, b"\x81\0\0\0"),
            Place(ExfatEntry, b"\x85\x02"),
            Place(ExfatEntry, b"\xc0\x03"),
            Place(ExfatEntry, b"\xc0\x01"),
        ),
        seal=seal_exfat,
    )
    yield _target(
        "f2fs",
        F2FS,
        (small_f2fs(),),
        parts=PLACES,
        places=(
            Place(f2fs.Superblock, f2fs.SUPER_OFFSETS[0]),
            Place(f2fs.Checkpoint, 2 * f2fs.BLOCK),
            Place(f2fs.Checkpoint, PLACES.index(1024) * f2fs.BLOCK),
            Place(f2fs.NodeFooter, -f2fs.NodeFooter.SIZE),
        ),
        seal=seal_f2fs,
    )
    yield _target("hfs", HFS, (small_hfs(),), places=HFS_PLACES)
    yield _target(
        "hfsplus",
        HFSPLUS,
        (small_hfsplus(), wrapped(small_hfsplus())),
        places=(
            Place(HfsMasterBlock, HFS_OFFSET),
            Place(hfsplus.VolumeHeader, hfsplus.HEADER_OFFSET),
            Place(hfsplus.JournalInfo, 8 * 512),
            *(Place(NodeDescriptor, block * 512) for block in range(10, 16)),
            *(Place(TreeHeader, block * 512 + 14) for block in range(10, 16, 2)),
        ),
    )
    yield _target("ufs", UFS)
    yield _target("swap", swap.FILE_SYSTEM, places=(Place(SwapHeader, swap.HEADER_AT),))


def seal_exfat(content: bytearray) -> None:
    """Make the checksum of the boot sectors right."""
    shift = content[108] if len(content) > 108 else 9
    sector = 1 << (shift if 9 <= shift <= 12 else 9)
    end = BOOT_SECTORS * sector
    if len(content) >= end + sector:
        value = boot_checksum(content[:end]).to_bytes(4, "little")
        content[end : end + sector] = value * (sector // 4)


def _target(
    name: str,
    system: Allocating,
    seeds: Sequence[bytes] = _EMPTY,
    *,
    parts: Sequence[int] = (),
    further: tuple[Callable[[bytes], None], ...] = (),
    places: tuple[Place, ...] = (),
    seal: Callable[[bytearray], None] | None = None,
) -> Target:
    def map_volume(content: bytes) -> None:
        volume = EndlessVolume(content, parts)
        found = system.allocation(volume)
        assert found.used.end <= volume.size
        assert found.unit > 0

    def walk_volume(content: bytes) -> None:
        volume = EndlessVolume(content, parts)
        assert isinstance(system, Walking)
        runs = system.reached(volume)
        for offset, length in islice(runs, _REACHED_MAX):
            assert 0 <= offset <= offset + length <= volume.size
        deque(runs, maxlen=0)

    steps: list[Callable[[bytes], None]] = [map_volume]
    if isinstance(system, Walking):
        steps.append(walk_volume)
    if isinstance(system, Locating):
        steps.append(locating(system, lambda content: EndlessVolume(content, parts)))
    return Target(name, lambda: list(seeds), (*steps, *further), places=places, seal=seal)
