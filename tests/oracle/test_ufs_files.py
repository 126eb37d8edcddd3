"""UFS1 and UFS2: names, facts and contents against what makefs was given, and The Sleuth Kit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import struct
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import ImagingError
from imprint.core.units import KIB, MIB
from imprint.filesystems.remains import ORPHANS
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import digest, of_folder, opened, told
from imprint.testing.oracles import run
from imprint.testing.small_ufs import UFS_KINDS, small_ufs

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.tree import Entry

pytestmark = pytest.mark.oracle("makefs", "fls", "icat")

SUPER: Final = 8 * KIB
SMALL_BLOCKS: Final = "bsize=4096,fsize=512"
DELETED: Final = "bsize=4096,fsize=1024,density=8192"  # all inodes in the first group
ORDERS: Final = {"le": "<", "be": ">"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that Unix has, of sizes that need no, one and two levels of pointers."""
    top = tmp_path_factory.mktemp("ufs") / "tree"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "many").mkdir(mode=0o2750)
    dice = random.Random(7)
    for size in (0, 1, 511, 512, 513, 4096, 12 * 4096, 12 * 4096 + 1, 12 * 32768 - 1, 9 * MIB):
        (top / f"of {size}").write_bytes(dice.randbytes(size))
    for size in (1, 59, 60, 61, 119, 120, 121, 900):
        (top / f"link of {size}").symlink_to("x" * size)
    os.link(top / "of 513", top / "a" / "hard")
    (top / "a" / "b" / "c" / "noise").write_bytes(dice.randbytes(50_000))
    os.mkfifo(top / "fifo")
    for number in range(700):
        (top / "many" / f"name {number} of some length").write_bytes(b"%d" % number)
    (top / ("n" * 255)).write_bytes(b"a long name")
    with open(os.fsencode(top) + b"/no \xff\xfe text", "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"named by bytes")
    (top / "of 513").chmod(0o4751)
    for at, path in enumerate(sorted(top.rglob("*"))):
        os.utime(path, (at, 1_000_000_000 + at), follow_symlinks=False)
    return top


def make(path: Path, folder: Path, version: int, order: str, *options: str) -> Path:
    chosen = ",".join((f"version={version}", *options))
    run("makefs", "-t", "ffs", "-B", order, "-o", chosen, "-s", "40m", path, folder)
    return path


def for_sleuth_kit(path: Path, content: bytes | bytearray) -> Path:
    """A copy with the superblock of UFS2 also where The Sleuth Kit looks for it."""
    changed = bytearray(content).ljust(300 * KIB, b"\0")
    if bytes(changed[SUPER + 1372 : SUPER + 1376]) in (b"\x19\x01\x54\x19", b"\x19\x54\x01\x19"):
        changed[64 * KIB : 64 * KIB + 1376] = changed[SUPER : SUPER + 1376]
    path.write_bytes(changed)
    return path


def listed(path: Path) -> set[tuple[str, int, bool]]:
    """Path, inode and whether it is deleted, as ``fls`` tells it; not in folders in a circle."""
    found = set()
    for line in run("fls", "-r", "-p", "-u", "-f", "ufs", path).stdout.splitlines():
        found.add((line, False))
    for line in run("fls", "-r", "-p", "-d", "-f", "ufs", path).stdout.splitlines():
        found.add((line, True))
    rows = set()
    for line, is_deleted in found:
        match = re.match(r"\S+ (?:\* )?(\d+)(?:\(realloc\))?:\t(.*)", line)
        assert match is not None
        if "loop/" not in match[2] and match[2] != ORPHANS:
            rows.add((f"/{match[2]}", int(match[1]), is_deleted))
    return rows


def told_here(path: Path) -> tuple[set[tuple[str, int, bool]], dict[str, Entry]]:
    with opened(path) as files:
        entries = {entry.path: entry for entry in walk(files, deleted=True)}
    del entries["/"], entries[f"/{ORPHANS}"]
    rows = {(entry.path, entry.inode, entry.is_deleted) for entry in entries.values()}
    return rows, entries


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("options", [(), (SMALL_BLOCKS,), ("bsize=65536,fsize=8192",)], ids=str)
def test_it_is_told_as_it_was_made(
    tmp_path: Path, folder: Path, version: int, order: str, options: tuple[str, ...]
) -> None:
    """Fails if a name, a fact or a byte of any file differs; makefs writes whole seconds."""
    found = told(make(tmp_path / "volume", folder, version, order, *options))
    assert len(found) > 700
    assert found == of_folder(folder)


@pytest.mark.root
@pytest.mark.parametrize("version", [1, 2])
def test_devices_and_owners_are_told(tmp_path: Path, version: int) -> None:
    """Fails if a device is a file, or a number of an owner is cut off."""
    source = tmp_path / "tree"
    source.mkdir()
    os.mknod(source / "character", 0o20644, os.makedev(5, 6))
    os.mknod(source / "block", 0o60640, os.makedev(8, 300))
    (source / "file").touch()
    os.chown(source / "file", 70_000, 80_000)
    for at, path in enumerate(source.iterdir()):
        os.utime(path, (at, at))
    assert told(make(tmp_path / "volume", source, version, "be")) == of_folder(source)


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("version", [1, 2])
def test_holes_are_read_as_the_sleuth_kit_reads_them(
    tmp_path: Path, folder: Path, version: int, order: str
) -> None:
    """Fails if a pointer of 0 on any level is no hole, or moves what is behind it."""
    path = make(tmp_path / "volume", folder, version, order, SMALL_BLOCKS)
    content = bytearray(path.read_bytes())
    with opened(path) as files:
        number = find_path(files, f"of {9 * MIB}").inode
    code, width, pointers_at = ("I", 4, 40) if version == 1 else ("Q", 8, 112)
    at = inode_place(content, number, version, ORDERS[order]) + pointers_at
    pointers = struct.unpack_from(f"{ORDERS[order]}15{code}", content, at)
    for hole in (0, 5):
        content[at + hole * width : at + (hole + 1) * width] = bytes(width)
    for block, index in ((pointers[12], 7), (pointers[13], 1)):
        place = block * 512 + index * width
        content[place : place + width] = bytes(width)
    changed = for_sleuth_kit(tmp_path / "changed", content)
    theirs = subprocess.run(
        ["icat", "-f", "ufs", changed, str(number)], capture_output=True, check=True
    )
    assert len(theirs.stdout) == 9 * MIB
    with opened(changed) as files:
        entry = find_path(files, f"of {9 * MIB}")
        assert not entry.is_plain
        assert digest(files.content(entry)) == hashlib.sha256(theirs.stdout).hexdigest()


def inode_place(content: bytes | bytearray, number: int, version: int, order: str) -> int:
    """Where an inode of the first group is."""
    (table,) = struct.unpack_from(f"{order}i", content, SUPER + 16)
    (fragment,) = struct.unpack_from(f"{order}i", content, SUPER + 52)
    return int(table) * int(fragment) + number * 128 * version


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("version", [1, 2])
def test_deleted_names_and_inodes_are_those_that_the_sleuth_kit_finds(
    tmp_path: Path, version: int, order: str
) -> None:
    """Fails if a name is not found that is left, or its content is not what lies there."""
    source = tmp_path / "tree"
    source.mkdir()
    dice = random.Random(version)
    contents = {f"file {number}": dice.randbytes(1000 * number) for number in range(60)}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    for number in range(6):
        (source / f"file folder {number}").mkdir()
        (source / f"file folder {number}" / "inner").write_bytes(b"%d" % number)
    path = make(tmp_path / "volume", source, version, order, DELETED)
    content = bytearray(path.read_bytes())
    gone = delete(content, version, ORDERS[order], 0.4)
    changed = for_sleuth_kit(tmp_path / "changed", content)
    theirs = listed(changed)
    ours, entries = told_here(changed)
    assert ours == theirs
    assert sum(row[2] for row in ours) > 15
    with opened(changed) as files:
        recovered = 0
        for name, number in gone.items():
            entry = entries.get(f"/{name}")
            if entry is None or name not in contents:
                continue
            assert entry.is_deleted
            assert (entry.inode, entry.type) == (number, Type.FILE)
            if entry.size:
                recovered += 1
                assert not entry.is_allocated
                assert digest(files.content(entry)) == hashlib.sha256(contents[name]).hexdigest()
    assert recovered > 5
    assert any("/inner" in path and entry.is_deleted for path, entry in entries.items())


def delete(content: bytearray, version: int, order: str, share: float) -> dict[str, int]:
    """Delete files of the root as the BSDs do; of some of them the inode is left as it is."""
    dice = random.Random(3)
    root = inode_place(content, 2, version, order)
    code, pointers_at = ("I", 40) if version == 1 else ("Q", 112)
    pointers = struct.unpack_from(f"{order}12{code}", content, root + pointers_at)
    (size,) = struct.unpack_from(f"{order}Q", content, root + (8 if version == 1 else 16))
    found = {}
    for chunk in range(0, size, 512):
        at = start = pointers[chunk // 4096] * KIB + chunk % 4096
        before = None
        while at < start + 512:
            number, length, _, count = struct.unpack_from(f"{order}IHBB", content, at)
            name = bytes(content[at + 8 : at + 8 + count]).decode()
            is_chosen = "folder" in name or dice.random() < share
            if name.startswith("file") and is_chosen:
                found[name] = number
                free_inode(content, number, version, order)
                if before is None:
                    content[at : at + 4] = bytes(4)
                    found[name] = 0
                else:
                    (old,) = struct.unpack_from(f"{order}H", content, before + 4)
                    struct.pack_into(f"{order}H", content, before + 4, old + length)
            else:
                before = at
            at += length
    return found


def free_inode(content: bytearray, number: int, version: int, order: str) -> None:
    header = struct.unpack_from(f"{order}i", content, SUPER + 12)[0] * KIB
    maps = struct.unpack_from(f"{order}2I", content, header + 92)
    place = inode_place(content, number, version, order)
    (size,) = struct.unpack_from(f"{order}Q", content, place + (8 if version == 1 else 16))
    code, pointers_at = ("I", 40) if version == 1 else ("Q", 112)
    for index, pointer in enumerate(
        struct.unpack_from(f"{order}12{code}", content, place + pointers_at)
    ):
        if pointer:
            for fragment in range(pointer, pointer - (-min(4096, size - index * 4096) // KIB)):
                content[header + maps[1] + fragment // 8] |= 1 << fragment % 8
    content[header + maps[0] + number // 8] &= ~(1 << number % 8)
    if number % 3 == 0 or size > 12 * 4096:
        content[place : place + 2] = bytes(2)
        content[place + pointers_at : place + pointers_at + (60 * version)] = bytes(60 * version)
        struct.pack_into(f"{order}Q", content, place + (8 if version == 1 else 16), 0)


@pytest.mark.parametrize("kind", UFS_KINDS[:4], ids=str)
def test_a_volume_made_by_hand_is_what_the_sleuth_kit_takes_it_for(
    tmp_path: Path, kind: tuple[int, str, str]
) -> None:
    """Fails if what other tests rely upon is no UFS."""
    path = for_sleuth_kit(tmp_path / "volume", small_ufs(*kind))
    ours, entries = told_here(path)
    assert ours == listed(path)
    for line in run("fls", "-l", "-u", "-f", "ufs", path).stdout.splitlines():
        name, *_, size, group, owner = line.split("\t")[1:]
        if name != ORPHANS:
            entry = entries[f"/{name}"]
            found = (entry.size, entry.owner, entry.group)
            assert found == (int(size), int(owner), int(group))
    for name in ("/small", "/gone.bin", "/$OrphanFiles/OrphanFile-10"):
        entry = entries[name]
        theirs = subprocess.run(
            ["icat", "-f", "ufs", path, str(entry.inode)], capture_output=True, check=True
        )
        with opened(path) as files:
            assert digest(files.content(entry)) == hashlib.sha256(theirs.stdout).hexdigest()


@pytest.mark.parametrize("version", [1, 2])
def test_random_damage_gives_files_notes_or_one_error(
    tmp_path: Path, folder: Path, version: int
) -> None:
    """Fails if hostile inodes, names or pointers raise anything else, or do not end."""
    whole = make(tmp_path / "volume", folder / "a", version, "le", SMALL_BLOCKS).read_bytes()
    storage = MemoryStorage(whole)
    dice = random.Random(version)
    starts = [SUPER, SUPER, inode_place(whole, 2, version, "<")]
    with closing(tree("ufs", storage)) as files:
        starts += [entry.extents[0][0] for entry in walk(files) if entry.extents]
    for _ in range(100):
        at = dice.choice(starts) + dice.choice((dice.randrange(240), dice.randrange(1400)))
        before = whole[at : at + 4]
        storage.write(memoryview(dice.choice((bytes(4), b"\xff" * 4, dice.randbytes(4)))), at)
        with contextlib.suppress(ImagingError), closing(tree("ufs", storage)) as files:
            for entry in walk(files, deleted=True):
                with contextlib.suppress(ImagingError):
                    digest(files.content(entry)) if entry.size < MIB else None
        storage.write(memoryview(before), at)


def test_a_volume_that_is_cut_off_tells_what_is_left(tmp_path: Path, folder: Path) -> None:
    """Fails if files whose bytes are missing cannot be listed, or read as zeros."""
    path = make(tmp_path / "volume", folder, 2, "le")
    with opened(path) as files:
        whole = {entry.path: entry for entry in walk(files)}
    last = max(whole.values(), key=lambda entry: max(entry.extents, default=(0, 0)))
    os.truncate(path, last.extents[-1][0] + 512)
    with closing(FileStorage.open(path)) as volume, closing(tree("ufs", volume)) as files:
        found = {entry.path: entry for entry in walk(files)}
        assert set(found) == set(whole)
        with pytest.raises(ImagingError):
            digest(files.content(found[last.path]))
