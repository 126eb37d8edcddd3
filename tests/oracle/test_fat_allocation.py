"""FAT12, FAT16, FAT32 and exFAT: maps against The Sleuth Kit, fsck, and what is read back."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems.exfat import FILE_SYSTEM as EXFAT
from imprint.filesystems.fat import FILE_SYSTEM as FAT
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import GARBAGE, allocation_of, attached, fill, spoil_unused, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR: Final = 512


def garbage(path: Path, size: int) -> Path:
    path.write_bytes((GARBAGE * (size // MIB + 1))[:size])
    return path


def allocated_sectors(path: Path, kind: str) -> Runs:
    """What The Sleuth Kit calls allocated, in bytes."""
    lines = run("blkls", "-e", "-l", "-f", kind, path).stdout.splitlines()
    found = re.compile(r"(\d+)\|a")
    matches = (found.match(line) for line in lines)
    with path.open("rb") as file:
        sector = int.from_bytes(file.read(13)[11:], "little") or SECTOR  # exFAT has zeros there
    return Runs.of((int(match[1]) * sector, sector) for match in matches if match is not None)


def fill_fat(path: Path, *, seed: int = 0, size: int) -> dict[str, str]:
    """Write files by mtools, delete a third, write again; gives hashes by name."""
    dice = random.Random(seed)
    kept: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        run("mmd", "-i", path, "::folder")
        written = number = 0
        while written < size:
            length = dice.choice((0, 100, 4 * KIB, 5000, 60_000, 300_000))
            content = dice.randbytes(length)
            name = f"::{'folder/' * (number % 2)}a long name {number}.data"
            file = Path(folder, "x")
            file.write_bytes(content)
            run("mcopy", "-i", path, file, name)
            kept[name] = hashlib.sha256(content).hexdigest()
            written += length
            number += 1
            if number % 3 == 0:
                victim = dice.choice(sorted(kept))
                run("mdel", "-i", path, victim)
                del kept[victim]
    return kept


def hashes_fat(path: Path, names: dict[str, str]) -> dict[str, str]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            run("mcopy", "-n", "-i", path, name, Path(folder, "x"))
            found[name] = hashlib.sha256(Path(folder, "x").read_bytes()).hexdigest()
            Path(folder, "x").unlink()
    return found


@pytest.mark.oracle("mkfs.fat", "mcopy", "fsck.fat", "blkls")
@pytest.mark.parametrize(
    ("options", "kind", "size"),
    [
        ("-F 12", "fat12", 1440 * KIB),
        ("-F 12 -s 8", "fat12", 8 * MIB),
        ("-F 16", "fat16", 32 * MIB),
        ("-F 16 -f 1 -R 7 -r 512", "fat16", 24 * MIB),
        ("-F 16 -R 1 -S 4096 -s 1", "fat16", 64 * MIB),
        ("-F 12 -R 1 -f 1 -r 16 -s 1", "fat12", MIB),
        ("-F 32", "fat32", 64 * MIB),
        ("-F 32 -S 1024 -s 1", "fat32", 72 * MIB),
        ("-F 32 -s 1 -R 64 -b 9", "fat32", 40 * MIB),
    ],
)
def test_fat_keeps_what_the_sleuth_kit_calls_allocated_and_what_is_no_cluster(
    tmp_path: Path, options: str, kind: str, size: int
) -> None:
    """Fails if a cluster is taken for free that is not, or the other way round."""
    path = garbage(tmp_path / "fat", size)
    run("mkfs.fat", *options.split(), path)
    names = fill_fat(path, size=min(size // 3, 4 * MIB))
    found = allocation_of(path, FAT.allocation)
    assert found.doubts == ()
    theirs = allocated_sectors(path, kind)
    # The Sleuth Kit does not count what is behind the last whole cluster.
    behind = found.used - theirs
    assert len(theirs - found.used) == 0
    assert behind.total < found.unit
    with closing(FileStorage.open(path)) as storage:
        assert len(Runs.of(FAT.reached(storage)) - found.used) == 0
    assert spoil_unused(path, found.used) > size // 4
    run("fsck.fat", "-n", path)
    assert hashes_fat(path, names) == names


@pytest.mark.oracle("mkfs.fat")
def test_a_fat_with_bad_clusters_keeps_them(tmp_path: Path) -> None:
    """Fails if a cluster that is marked as bad is given to files after a restore."""
    path = tmp_path / "fat"
    path.write_bytes(bytes(32 * MIB))
    bad = tmp_path / "bad"
    bad.write_text("20000\n")  # in blocks of 1 KiB
    run("mkfs.fat", "-F", "16", "-l", bad, path)
    used = allocation_of(path, FAT.allocation).used
    assert used.covers(20_000 * KIB, KIB)
    assert not used.covers(21_000 * KIB, KIB)


@pytest.mark.oracle("mkfs.fat", "mcopy")
def test_a_dirty_fat_is_believed_only_if_its_tree_is_marked_as_used(tmp_path: Path) -> None:
    """Fails if a file is left out that a crash kept from being marked."""
    path = tmp_path / "fat"
    path.write_bytes(bytes(32 * MIB))
    run("mkfs.fat", "-F", "16", path)
    fill_fat(path, size=MIB)
    content = bytearray(path.read_bytes())
    content[37] |= 1
    found = FAT.allocation(MemoryStorage(bytes(content)))
    assert found.doubts == ()
    assert found.notes == ("it was not unmounted",)
    fat_at = 512 * int.from_bytes(content[14:16], "little")
    fat_size = 512 * int.from_bytes(content[22:24], "little")
    for copy in range(2):  # the tables as they were before anything was written
        start = fat_at + copy * fat_size + 4
        content[start : start + fat_size - 4] = bytes(fat_size - 4)
    assert FAT.allocation(MemoryStorage(bytes(content))).doubts


@pytest.mark.oracle("mkfs.fat")
def test_fat_copies_that_differ_are_doubted_and_united(tmp_path: Path) -> None:
    """Fails if only one of the copies is looked at."""
    path = tmp_path / "fat"
    path.write_bytes(bytes(32 * MIB))
    run("mkfs.fat", "-F", "16", path)
    content = bytearray(path.read_bytes())
    fat_at = 512 * int.from_bytes(content[14:16], "little")
    fat_size = 512 * int.from_bytes(content[22:24], "little")
    content[fat_at + fat_size + 2 * 50] = 0xFF
    found = FAT.allocation(MemoryStorage(bytes(content)))
    whole = FAT.allocation(MemoryStorage(path.read_bytes()))
    assert found.doubts
    assert (found.used - whole.used).total == found.unit


def fat32_with_only_one_active(path: Path, active: int, *, size: int = 40 * MIB) -> bytearray:
    """Files are in that FAT, the others are as they were before."""
    path.write_bytes(bytes(size))
    run("mkfs.fat", "-F", "32", "-s", "1", "-f", "2", path)
    before = path.read_bytes()
    fill_fat(path, size=MIB)
    content = bytearray(path.read_bytes())
    content[40] = 0x80 | active
    fat_at = 512 * int.from_bytes(content[14:16], "little")
    fat_size = 512 * int.from_bytes(content[36:40], "little")
    start = fat_at + (1 - active) * fat_size
    content[start : start + fat_size] = before[start : start + fat_size]
    return content


@pytest.mark.oracle("mkfs.fat", "mcopy")
@pytest.mark.parametrize("active", [0, 1])
def test_fats_that_are_not_mirrored_may_differ_and_the_active_one_counts(
    tmp_path: Path, active: int
) -> None:
    """Fails if a FAT that is not kept up is taken for a copy, or followed."""
    content = fat32_with_only_one_active(tmp_path / "fat", active)
    whole = allocation_of(tmp_path / "fat", FAT.allocation)
    content[65] |= 1
    volume = MemoryStorage(bytes(content))
    found = FAT.allocation(volume)
    assert found.doubts == ()
    assert found.notes == ("it was not unmounted",)
    assert found.used == whole.used
    assert len(Runs.of(FAT.reached(volume)) - found.used) == 0
    content[40] = 0x80 | 1 - active
    assert FAT.allocation(MemoryStorage(bytes(content))).doubts
    content[40] = 0
    assert "differ" in FAT.allocation(MemoryStorage(bytes(content))).doubts[0]
    content[40] = 0x82
    with pytest.raises(CorruptImageError, match="active"):
        FAT.allocation(MemoryStorage(bytes(content)))


@contextlib.contextmanager
def exfat_mounted(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, attached(path) as device:
        run("mount.exfat-fuse", device, folder)
        try:
            yield Path(folder)
        finally:
            run("umount", folder)


def make_exfat(path: Path, *options: str, size: int = 64 * MIB) -> dict[str, str]:
    garbage(path, size)
    run("mkfs.exfat", *options, path)
    with exfat_mounted(path) as place:
        fill_exfat(place)
        return tree(place)


def fill_exfat(place: Path) -> None:
    """Like :func:`fill`, which makes a link, too."""
    with contextlib.suppress(OSError):
        fill(place, size=6 * MIB)


@pytest.mark.root
@pytest.mark.oracle("mkfs.exfat", "mount.exfat-fuse", "fsck.exfat", "blkls")
@pytest.mark.parametrize("options", [(), ("-c", "4K"), ("-c", "128K"), ("-b", "4M")])
def test_exfat_keeps_what_the_sleuth_kit_calls_allocated(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Fails if a cluster is taken for free that is not, or the other way round."""
    path = tmp_path / "exfat"
    files = make_exfat(path, *options)
    found = allocation_of(path, EXFAT.allocation)
    assert found.doubts == ()
    theirs = allocated_sectors(path, "exfat")
    assert len(theirs - found.used) == 0
    assert (found.used - theirs).total < 2 * found.unit
    with closing(FileStorage.open(path)) as storage:
        assert len(Runs.of(EXFAT.reached(storage)) - found.used) == 0
    assert spoil_unused(path, found.used) > 32 * MIB
    run("fsck.exfat", "-n", path)
    with exfat_mounted(path) as place:
        assert tree(place) == files


@pytest.mark.root
@pytest.mark.oracle("mkfs.exfat", "mount.exfat-fuse")
def test_a_dirty_exfat_is_believed_only_if_its_tree_is_marked_as_used(tmp_path: Path) -> None:
    """Fails if a file is left out that a crash kept from being marked."""
    path = tmp_path / "exfat"
    make_exfat(path)
    content = bytearray(path.read_bytes())
    content[106] |= 2
    found = EXFAT.allocation(MemoryStorage(bytes(content)))
    assert found.doubts == ()
    assert found.notes == ("it was not unmounted",)
    heap_at = 512 * int.from_bytes(content[88:92], "little")
    content[heap_at + 8 : heap_at + 512] = bytes(504)  # most of the bitmap, in the first cluster
    assert EXFAT.allocation(MemoryStorage(bytes(content))).doubts


@pytest.mark.oracle("mkfs.exfat")
def test_an_exfat_whose_boot_sectors_were_changed_is_refused(tmp_path: Path) -> None:
    """Fails if a place is believed that the checksum does not cover any more."""
    path = tmp_path / "exfat"
    path.write_bytes(bytes(16 * MIB))
    run("mkfs.exfat", path)
    content = bytearray(path.read_bytes())
    content[88] += 1
    with pytest.raises(CorruptImageError, match="checksum"):
        EXFAT.allocation(MemoryStorage(bytes(content)))


@pytest.mark.oracle("mkfs.fat", "mkfs.exfat")
@pytest.mark.parametrize(("maker", "system"), [("mkfs.fat", FAT), ("mkfs.exfat", EXFAT)])
def test_random_damage_gives_a_map_or_one_error(tmp_path: Path, maker: str, system: object) -> None:
    """Fails if hostile boot sectors, tables or directories raise anything else, or hang."""
    assert system in (FAT, EXFAT)
    path = tmp_path / "volume"
    path.write_bytes(bytes(16 * MIB))
    run(maker, path)
    whole = path.read_bytes()
    dice = random.Random(1)
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 2, 8, 64))):
            at = dice.choice((dice.randrange(512), dice.randrange(MIB), dice.randrange(3 * MIB)))
            content[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        volume = MemoryStorage(bytes(content))
        for look in (FAT, EXFAT) if system is FAT else (EXFAT, FAT):
            with contextlib.suppress(CorruptImageError):
                assert look.allocation(volume).used.end <= volume.size
            with contextlib.suppress(CorruptImageError):
                assert Runs.of(look.reached(volume)).end <= volume.size
