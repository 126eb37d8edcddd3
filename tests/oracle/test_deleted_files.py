"""Files that were deleted, and what is left of them, against what was deleted and ``fls``."""

from __future__ import annotations

import hashlib
import os
import random
import re
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.units import KIB, MIB
from imprint.filesystems.remains import ORPHANS, free_space, joined, slack
from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import find_path, walk
from imprint.storage.file import FileStorage
from imprint.testing import ntfs_volume
from imprint.testing.file_trees import digest
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.tree import Entry

pytest.importorskip("pytsk3")

CONTENT = {
    name: random.Random(name).randbytes(size)
    for name, size in {"first.bin": 50_000, "second.bin": 33_333, "third.bin": 700}.items()
}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def fat(tmp_path: Path) -> Path:
    """A FAT16 with the files."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.vfat", "-F", "16", "-s", "4", path)
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
        run("mcopy", "-i", path, tmp_path / name, "::")
    return path


def entries_of(files: SleuthKit) -> dict[str, Entry]:
    return {entry.name: entry for entry in walk(files, deleted=True)}


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mdel")
def test_deleted_files_of_fat_are_recovered_where_their_clusters_stand(
    fat: Path, tmp_path: Path
) -> None:
    """Fails if a deleted file has another content, or is told where nobody asks for it."""
    run("mdel", "-i", fat, "::first.bin", "::second.bin")
    with closing(FileStorage.open(fat)) as volume, closing(SleuthKit(volume, "vfat")) as files:
        live = {entry.name for entry in walk(files)}
        assert "third.bin" in live
        assert not {"_irst.bin", "_econd.bin", ORPHANS} & live
        found = entries_of(files)
        for name in ("first.bin", "second.bin"):
            entry = found[f"_{name[1:]}"]
            assert (entry.is_deleted, entry.is_allocated) == (True, False)
            assert digest(files.content(entry)) == sha(CONTENT[name])
        assert not found["third.bin"].is_deleted
        assert find_path(files, "/_irst.bin", deleted=True).is_deleted
    (tmp_path / "new").write_bytes(b"n" * 3000)
    run("mcopy", "-i", fat, tmp_path / "new", "::new.bin")
    with closing(FileStorage.open(fat)) as volume, closing(SleuthKit(volume, "vfat")) as files:
        found = entries_of(files)
        assert digest(files.content(found["_econd.bin"])) == sha(CONTENT["second.bin"])
        assert digest(files.content(found["new.bin"])) == sha(b"n" * 3000)


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mdel", "blkls")
def test_slack_and_free_space_are_what_files_left(fat: Path) -> None:
    """Fails if the bytes behind the end of a file, or of free clusters, are others."""
    run("mdel", "-i", fat, "::first.bin")
    raw = fat.read_bytes()
    with closing(FileStorage.open(fat)) as volume, closing(SleuthKit(volume, "vfat")) as files:
        entry = find_path(files, "/second.bin")
        ((offset, length),) = slack(entry)
        start = raw.index(CONTENT["second.bin"])
        assert offset == start + 33_333
        assert length == -33_333 % (2 * KIB)
        free = free_space("vfat", volume)
        place = raw.index(CONTENT["first.bin"])
        assert free.covers(place, 50_000)
        assert not free.clip(start, start + 33_333)
        space = joined(volume, free, name="free")
        assert space.size == free.total
        buffer = bytearray(space.size)
        space.readinto(memoryview(buffer), 0)
        assert CONTENT["first.bin"] in bytes(buffer)
        assert CONTENT["second.bin"] not in bytes(buffer)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g", "fls", "icat")
def test_a_deleted_file_of_ntfs_is_recovered_as_windows_leaves_it(tmp_path: Path) -> None:
    """Fails if a record that is free, with all its runs, or a small content in it, is not read."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        for name, content in CONTENT.items():
            (folder / name).write_bytes(content)
        numbers = {name: (folder / name).stat().st_ino for name in CONTENT}
    raw = path.read_bytes()
    cluster = raw[13] * 512
    mft = struct.unpack_from("<Q", raw, 48)[0] * cluster
    kept = {
        name: bytearray(raw[mft + number * KIB : mft + (number + 1) * KIB])
        for name, number in numbers.items()
    }
    with ntfs_volume.ntfs_mounted(path) as folder:
        for name in CONTENT:
            (folder / name).unlink()
    with path.open("r+b") as file:
        for name, record in kept.items():
            assert record[:4] == b"FILE"
            record[22] &= ~1  # in use: all that Windows changes in the record
            file.seek(mft + numbers[name] * KIB)
            file.write(record)
    listed = run("fls", "-r", "-p", "-d", path).stdout
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, "ntfs")) as files:
        found = {
            entry.inode: entry
            for entry in walk(files, deleted=True)
            if entry.is_deleted and entry.inode in numbers.values()
        }
        for name, number in numbers.items():
            assert re.search(rf" {number}(-128-\d+)?(\(realloc\))?:", listed)
            entry = found[number]
            assert not entry.is_allocated
            assert digest(files.content(entry)) == sha(CONTENT[name])


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_files_are_recovered_of_which_the_record_counts_the_deletion(tmp_path: Path) -> None:
    """Fails if a file is lost that ntfs-3g, or Windows, deleted, alone or with its folder."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        for above in ("kept", "gone"):
            (folder / above).mkdir()
            for name, content in CONTENT.items():
                (folder / above / name).write_bytes(content)
        wanted = {
            (folder / above / name).stat().st_ino: content
            for above in ("kept", "gone")
            for name, content in CONTENT.items()
        }
    with ntfs_volume.ntfs_mounted(path) as folder:
        for name in CONTENT:
            (folder / "kept" / name).unlink()
        run("rm", "-r", folder / "gone")
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, "ntfs")) as files:
        found = {entry.inode: entry for entry in walk(files, deleted=True) if entry.is_deleted}
        for number, content in wanted.items():
            entry = found[number]
            assert (entry.type, entry.size) == (Type.FILE, len(content))
            assert not entry.is_allocated
            assert digest(files.content(entry)) == sha(content)


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("kind", ["ext4", "ext2"])
def test_a_large_folder_of_ext_is_told_whole(tmp_path: Path, kind: str) -> None:
    """Fails if names are missing, or are there twice, where the library's own way is too slow."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    run("mke2fs", "-q", "-t", kind, "-b", "1024", "-N", "20000", path)
    count = 9_000
    with mounted(path) as folder:
        (folder / "large").mkdir()
        for number in range(count):
            (folder / "large" / f"{number} is a name that takes some room {'x' * 100}").touch()
        for number in range(0, count, 3):
            (folder / "large" / f"{number} is a name that takes some room {'x' * 100}").unlink()
        inodes = {entry.name: entry.inode() for entry in os.scandir(folder / "large")}
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, kind)) as files:
        large = find_path(files, "/large")
        found = list(files.children(large))
        assert len(found) == count * 2 // 3
        assert {entry.name: entry.inode for entry in found} == inodes
        assert files.notes == []
        list(files.children(large, deleted=True))
        assert files.notes == ["/large: it is too large to look for deleted names in it"]


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_a_large_folder_of_ntfs_is_told_whole(tmp_path: Path) -> None:
    """Fails if names are missing, or are there twice, where the library's own way is too slow."""
    path = ntfs_volume.make(tmp_path / "volume")
    count = 12_000
    with ntfs_volume.ntfs_mounted(path) as folder:
        (folder / "large").mkdir()
        for number in range(count):
            (folder / "large" / f"a name that takes some room {number}").touch()
        inodes = {entry.name: entry.inode() for entry in os.scandir(folder / "large")}
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, "ntfs")) as files:
        large = find_path(files, "/large")
        first = iter(files.children(large))
        start = next(first)
        assert len(list(files.children(find_path(files, "/$Extend")))) > 2  # in between
        found = [start, *first]
        assert len(found) == count
        assert {entry.name: entry.inode for entry in found} == inodes
        assert files.notes == []
        list(files.children(large, deleted=True))
        assert files.notes == ["/large: it is too large to look for deleted names in it"]
