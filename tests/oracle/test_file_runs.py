"""Where files lie, by file system, against the kernel, debugfs, The Sleuth Kit and mtools."""

from __future__ import annotations

import os
import random
import re
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.btrfs import FILE_SYSTEM as BTRFS
from imprint.filesystems.exfat import FILE_SYSTEM as EXFAT
from imprint.filesystems.ext import FILE_SYSTEM as EXT
from imprint.filesystems.fat import FILE_SYSTEM as FAT
from imprint.filesystems.hfsplus import FILE_SYSTEM as HFSPLUS
from imprint.filesystems.ntfs import FILE_SYSTEM as NTFS
from imprint.filesystems.xfs import FILE_SYSTEM as XFS
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import btrfs_volume, ext_volume, ntfs_volume, xfs_volume
from imprint.testing.oracles import run
from imprint.testing.small_hfsplus import small_hfsplus
from imprint.testing.volumes import attached, mounted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from imprint.filesystems.files import Locating

Triple = tuple[int, int, int]


def runs_of(path: Path, system: Locating) -> list[Triple]:
    """What is told, pieces that are neighbours in a file as one."""
    with closing(FileStorage.open(path)) as storage:
        return joined(system.file_runs(storage))


def joined(runs: Iterable[Triple]) -> list[Triple]:
    """Pieces that go on in the file and in the volume as one."""
    found: list[Triple] = []
    for position, offset, length in sorted(runs, key=lambda item: item[1]):
        if found:
            before, place, count = found[-1]
            if (before + count, place + count) == (position, offset):
                found[-1] = before, place, count + length
                continue
        found.append((position, offset, length))
    return found


def told_by_kernel(folder: Path) -> list[Triple]:
    """The extents of all files of a mounted file system, by ``filefrag``; holes are left out."""
    found: list[Triple] = []
    line = re.compile(r"\s*\d+:\s+(\d+)\.\.\s*\d+:\s+(\d+)\.\.\s*\d+:\s+(\d+):(.*)")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        for text in run("filefrag", "-v", "-b1", path).stdout.splitlines():
            match = line.match(text)
            if match is not None and "inline" not in match[4]:
                found.append((int(match[1]), int(match[2]), int(match[3])))
    return joined(found)


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "filefrag", "debugfs")
@pytest.mark.parametrize(
    "options",
    [
        "-t ext4 -b 4096",
        "-t ext4 -b 1024 -O bigalloc -C 8192 -g 2048",
        "-t ext4 -b 1024 -O inline_data,^flex_bg -I 512",
        "-t ext3 -b 1024",
        "-t ext2 -b 4096 -I 128",
    ],
)
def test_the_files_of_ext_are_where_the_kernel_says(options: str, tmp_path: Path) -> None:
    """Fails if an extent is missed, is at a wrong place, or is united with its neighbour."""
    path = ext_volume.make(tmp_path / "volume", options)
    with mounted(path) as folder:
        ext_volume.populate(folder)
    with mounted(path, "ro") as folder:
        expected = told_by_kernel(folder)
    found = runs_of(path, EXT)
    assert len(expected) > 40
    assert set(expected) <= set(found)
    block = int(re.findall(r"Block size: +(\d+)", run("dumpe2fs", "-h", path).stdout)[0])
    own = " ".join(run("debugfs", "-R", f"blocks <{number}>", path).stdout for number in (7, 8))
    others = Runs.of((offset, length) for _, offset, length in set(found) - set(expected))
    assert others & Runs.of((int(word) * block, block) for word in own.split()) == others


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs", "filefrag")
@pytest.mark.parametrize("options", ["-b size=4096", "-b size=1024 -i nrext64=1,size=512"])
def test_the_files_of_xfs_are_where_the_kernel_says(options: str, tmp_path: Path) -> None:
    """Fails if an extent is missed or at a wrong place, in inodes or in trees."""
    path = xfs_volume.make(tmp_path / "volume", *options.split())
    with mounted(path) as folder:
        xfs_volume.populate(folder, reflink=False)  # told apart there
    with mounted(path, "ro") as folder:
        expected = told_by_kernel(folder)
    assert len(expected) > 40
    assert sorted(runs_of(path, XFS)) == sorted(expected)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g", "ntfsinfo")
@pytest.mark.parametrize("options", ["", "-c 512"])
def test_the_files_of_ntfs_are_where_ntfs_3g_says(options: str, tmp_path: Path) -> None:
    """Fails if a list of runs is misread, or one of a named stream or a large record is missed."""
    path = ntfs_volume.make(tmp_path / "volume", *options.split())
    with ntfs_volume.ntfs_mounted(path) as folder:
        ntfs_volume.age(folder)
        files = [item.stat().st_ino for item in folder.rglob("*") if not item.is_symlink()]
    unit = 512 if options else 4096
    expected: list[Triple] = []
    for number in files:
        told = run("ntfsinfo", "-f", "-v", "-i", str(number), path).stdout
        for part in told.split("Dumping attribute ")[1:]:
            if part.startswith("$DATA"):
                lists = re.findall(r"\t0x([0-9a-f]+)\t+0x([0-9a-f]+)\t+0x([0-9a-f]+)", part)
                expected += [
                    (int(at, 16) * unit, int(place, 16) * unit, int(count, 16) * unit)
                    for at, place, count in lists
                ]
    found = runs_of(path, NTFS)
    assert len(expected) > 40
    assert set(joined(expected)) <= set(found)
    with closing(FileStorage.open(path)) as storage:
        reached = Runs.of(NTFS.reached(storage))
    others = set(found) - set(joined(expected))
    assert len(others) < 12  # those of the file system itself
    assert all(reached.covers(offset, length) for _, offset, length in others)


@pytest.mark.oracle("mkfs.fat", "mcopy", "fls", "istat")
@pytest.mark.parametrize(("options", "size"), [("-F 12", 4), ("-F 16", 32), ("-F 32 -s 1", 48)])
def test_the_files_of_fat_are_where_the_sleuth_kit_says(
    options: str, size: int, tmp_path: Path
) -> None:
    """Fails if the border between two files, or a break in one, is not seen."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(size * MIB)
    told = run("mkfs.fat", "-v", *options.split(), path).stdout
    unit = 512 * int(re.findall(r"(\d+) sectors? per cluster", told)[0])
    content = tmp_path / "content"
    for number in range(60):
        content.write_bytes(bytes([number]) * (number * 977 % 30_000 + 1))
        run("mcopy", "-i", path, content, f"::file{number}")
        if number % 5 == 4:
            run("mdel", "-i", path, f"::file{number - 3}")
    content.write_bytes(bytes(300_000))
    run("mcopy", "-i", path, content, "::pieces")
    expected = []
    for name in re.findall(
        r"^r/r (\d+):", run("fls", "-f", "fat", "-F", path).stdout, re.MULTILINE
    ):
        told = run("istat", "-f", "fat", path, name).stdout.split("Sectors:")[1]
        sectors = Runs.of((int(word) * 512, 512) for word in told.split() if word != "0")
        expected += [(start, start + length) for start, length in sectors]
    with closing(FileStorage.open(path)) as storage:
        found = sorted((offset, offset + length) for _, offset, length in FAT.file_runs(storage))
    ends = dict(found)
    assert len(expected) > 40
    for start, end in expected:
        assert end <= ends[start] < end + unit
    assert len(found) <= len(expected) + 10  # the root directory, in clusters of 512 bytes
    assert all(one[1] <= other[0] for one, other in pairwise(found))


def written(folder: Path, copies: int = 20) -> list[bytes]:
    """Files of some sizes; all of different content."""
    dice = random.Random(8)
    found = [dice.randbytes(dice.choice((5000, 9000, 70_000, 600_000))) for _ in range(copies)]
    for number, content in enumerate(found):
        with (folder / f"file{number}").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or files that are written later may come before
    return found


def check_by_content(path: Path, system: Locating, files: list[bytes], unit: int) -> None:
    """Each file begins where a run does, and so does its second copy, if there is one."""
    with closing(FileStorage.open(path)) as storage:
        runs = list(system.file_runs(storage))
    lengths = {offset: length for _, offset, length in runs}
    volume = path.read_bytes()
    for content in files:
        at = volume.find(content[:512])
        while at >= 0:
            if volume[at : at + len(content)] == content:
                assert lengths[at] == len(content) + -len(content) % unit
            else:
                assert at in lengths
            at = volume.find(content[:512], at + 1)


@pytest.mark.root
@pytest.mark.oracle("mkfs.exfat", "mount.exfat-fuse")
def test_the_files_of_exfat_are_where_their_content_is(tmp_path: Path) -> None:
    """Fails if files without a chain, or with one, are told at wrong places."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    run("mkfs.exfat", "-c", "4K", path)
    folder = tmp_path / "folder"
    folder.mkdir()
    with attached(path) as device:
        run("mount.exfat-fuse", device, folder)
        try:
            files = written(folder)
            (folder / "file3").unlink()
            (folder / "pieces").write_bytes(random.Random(3).randbytes(3 * MIB))
        finally:
            run("umount", folder)
    del files[3]
    check_by_content(path, EXFAT, files, 4096)


@pytest.mark.root
@pytest.mark.oracle("mkfs.btrfs")
@pytest.mark.parametrize("profile", ["single", "dup"])
def test_the_files_of_btrfs_are_where_their_content_is(profile: str, tmp_path: Path) -> None:
    """Fails if addresses are taken for places, or a copy is forgotten."""
    path = btrfs_volume.make(tmp_path / "volume", "-d", profile)
    with mounted(path) as folder:
        files = written(folder)
    check_by_content(path, BTRFS, files, 4096)


def test_the_files_of_hfsplus_are_among_what_is_reached() -> None:
    """Fails if a run of a fork is lost or united with the next one."""
    volume = MemoryStorage(small_hfsplus())
    runs = [(offset, length) for _, offset, length in HFSPLUS.file_runs(volume)]
    assert runs == list(HFSPLUS.reached(volume))
    assert len(runs) > 5
