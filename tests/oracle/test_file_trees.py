"""Names, facts and contents of files against the kernel, mtools, and whoever made the volume."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import shutil
import subprocess
import unicodedata
from typing import TYPE_CHECKING

import pytest

from imprint.core.units import MIB
from imprint.filesystems.walking import walk
from imprint.testing import ntfs_volume
from imprint.testing.file_trees import Told, bare, digest, of_folder, of_tree, opened, told
from imprint.testing.oracles import run
from imprint.testing.volumes import age, attached, mounted

if TYPE_CHECKING:
    from pathlib import Path


pytest.importorskip("pytsk3")


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def in_seconds(facts: dict[str, Told]) -> dict[str, Told]:
    """Where a file system keeps no finer times, or a library tells none."""
    return {
        path: item._replace(
            modified=None if item.modified is None else item.modified // 10**9 * 10**9
        )
        for path, item in facts.items()
    }


def populate(folder: Path) -> None:
    """All that Unix has, of many shapes."""
    age(folder)
    (folder / "empty").touch()
    (folder / "tiny").write_bytes(b"tiny")
    os.link(folder / "tiny", folder / "hard")
    (folder / "short").symlink_to("target")
    (folder / "long").symlink_to("x/" * 450)
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "character", 0o20644, os.makedev(5, 6))
    os.mknod(folder / "block", 0o60644, os.makedev(8, 300))
    os.chown(folder / "tiny", 70_000, 80_000)
    (folder / "tiny").chmod(0o4751)
    os.utime(folder / "tiny", ns=(10**18, 1_234_567_890_123_456_789))
    os.utime(folder / "empty", (0, 0))
    os.utime(folder / "folder1", (4_000_000_000, 4_000_000_000))
    with (folder / "a hole at its end").open("wb") as file:
        file.write(b"a" * 5000)
        file.truncate(3_000_000)
    with (folder / "pieces of one block").open("wb") as file:
        for number in range(400):
            file.seek(number * 16384)
            file.write(b"%d" % number)
    for count in (1, 4, 16, 64, 256):
        (folder / f"with {count}").mkdir()
        for number in range(count):
            (folder / f"with {count}" / f"name {number} of some length").write_bytes(b"%d" % number)
    with open(os.fsencode(folder) + b"/no \xff\xfe text", "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"named by bytes")
    os.sync()


def preallocate(folder: Path) -> None:
    """Blocks that are a file's own, and read as zeros."""
    run("fallocate", "-l", "100K", folder / "preallocated")
    with (folder / "preallocated").open("r+b") as file:
        file.seek(5000)
        file.write(b"written")
    os.sync()


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext4"),
        ("-t", "ext4", "-O", "inline_data", "-I", "512"),
        ("-t", "ext4", "-O", "inline_data", "-I", "1024"),
        ("-t", "ext4", "-O", "bigalloc", "-C", "16384"),
        ("-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "1024"),
        ("-t", "ext3", "-b", "1024", "-I", "128"),
        ("-t", "ext3"),
        ("-t", "ext2"),
    ],
    ids=["ext4", "inline", "folders inline", "clusters", "spread", "old ext3", "ext3", "ext2"],
)
def test_ext_is_told_as_the_kernel_tells_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fails if a name, a fact or a byte of any file differs; old inodes have whole seconds."""
    path = empty(tmp_path / "volume", 64 * MIB)
    run("mke2fs", "-q", *options, path)
    has_extents = "ext4" in options
    with mounted(path) as folder:
        populate(folder)
        if has_extents:
            preallocate(folder)
        if "128" in options:
            os.utime(folder / "folder1", (2_000_000_000, 2_000_000_000))
        expected = of_folder(folder)
    found = told(path)
    assert len(found) > 600
    has_fine_times = "128" not in options
    assert found == expected if has_fine_times else in_seconds(found) == in_seconds(expected)


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
@pytest.mark.parametrize(
    "options",
    [(), ("-b", "size=1024"), ("-n", "size=16384", "-i", "size=1024", "-m", "bigtime=0")],
    ids=["usual", "small blocks", "large folders"],
)
def test_xfs_is_told_as_the_kernel_tells_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fails if a name, a fact or a byte of any file differs."""
    path = empty(tmp_path / "volume", 320 * MIB)
    run("mkfs.xfs", "-q", *options, path)
    with mounted(path) as folder:
        populate(folder)
        preallocate(folder)
        if "bigtime=0" in options:
            os.utime(folder / "folder1", (2_000_000_000, 2_000_000_000))
        os.utime(folder / "with 1", (-5, -5))
        for number in range(3):
            os.setxattr(folder / "tiny", f"user.{number}", b"v" * 3000)
        expected = of_folder(folder)
    assert told(path) == expected


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
def test_what_is_only_in_the_log_of_xfs_is_a_note(tmp_path: Path) -> None:
    """Fails if a copy of a mounted file system is taken for all that it has."""
    path = empty(tmp_path / "volume", 320 * MIB)
    run("mkfs.xfs", "-q", path)
    with mounted(path) as folder:
        (folder / "file").touch()
        os.sync()
        shutil.copyfile(path, tmp_path / "copy")
    with opened(tmp_path / "copy") as files:
        assert ["not unmounted" in note for note in files.notes] == [True]


@pytest.mark.oracle("mkfs.xfs")
def test_xfs_of_version_4_is_told_as_it_was_made(tmp_path: Path) -> None:
    """Fails if folders, inodes or trees of version 4 are taken for those of version 5."""
    content = bytes(range(256)) * 2000
    (tmp_path / "file").write_bytes(content)
    many = "\n".join(f"name{number} ---644 0 0 {tmp_path / 'file'}" for number in range(100))
    made = f"/\n1 1\nd--755 0 0\nsmall ---640 3 4 {tmp_path / 'file'}\nlink l--777 0 0 small\n"
    made += f"folder d--755 0 0\n{many}\n$\n$\n"
    (tmp_path / "prototype").write_text(made)
    path = empty(tmp_path / "volume", 320 * MIB)
    run("mkfs.xfs", "-q", "-m", "crc=0", "-p", tmp_path / "prototype", path)
    found = told(path)
    hashes = {item.content for name, item in found.items() if name not in ("/link", "/folder")}
    assert hashes == {bytes_digest(content)}
    assert len(found) == 103
    assert found["/link"].content == "small"
    assert found["/small"].mode == (0o640, 3, 4)


def bytes_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder of what any file system can hold."""
    folder = tmp_path / "tree"
    (folder / "Über" / "deeper").mkdir(parents=True)
    for number in range(100):
        (folder / "Über" / f"file number {number}").write_bytes(b"%d" % number * number)
    (folder / "Über" / "deeper" / "ñ in a long name.bin").write_bytes(os.urandom(77_777))
    (folder / "empty").touch()
    (folder / "large").write_bytes(os.urandom(2_000_000))
    (folder / "SHORT.TXT").write_bytes(b"a short name")
    return folder


@pytest.mark.oracle("mkfs.vfat", "mcopy")
@pytest.mark.parametrize(("bits", "size"), [(12, 8), (16, 40), (32, 70)])
def test_fat_is_told_as_mtools_made_it(tmp_path: Path, plain: Path, bits: int, size: int) -> None:
    """Fails if a name or a byte of any file differs, or its time by more than FAT's two seconds."""
    path = empty(tmp_path / "volume", size * MIB)
    run("mkfs.vfat", "-F", str(bits), "-n", "LABEL", path)
    environment = {**os.environ, "TZ": "UTC"}
    items = sorted(plain.iterdir())
    subprocess.run(["mcopy", "-s", "-m", "-i", path, *items, "::"], check=True, env=environment)
    found, expected = told(path), of_folder(plain)
    assert bare(found) == bare(expected)
    for name, item in found.items():
        assert item.modified is not None
        was = expected[name].modified
        assert was is not None
        assert item.type.value == "directory" or abs(item.modified - was) <= 2 * 10**9


@pytest.mark.root
@pytest.mark.oracle("mkfs.exfat", "mount.exfat-fuse")
def test_exfat_is_told_as_another_driver_tells_it(tmp_path: Path, plain: Path) -> None:
    """Fails if a name or a byte of any file differs."""
    path = empty(tmp_path / "volume", 40 * MIB)
    run("mkfs.exfat", path)
    point = tmp_path / "point"
    point.mkdir()
    with attached(path) as device:
        run("mount.exfat-fuse", device, point)
        try:
            shutil.copytree(plain, point, dirs_exist_ok=True)
            expected = of_folder(point)
        finally:
            run("umount", point)
        run("sync")
    assert len(expected) == len(of_folder(plain))
    assert bare(told(path)) == bare(expected)


@pytest.mark.oracle("xorriso", "genisoimage")
@pytest.mark.parametrize(
    "program", [("xorriso", "-as", "mkisofs"), ("genisoimage",)], ids=["xorriso", "genisoimage"]
)
@pytest.mark.parametrize("names", ["-R", "-J", "-RJ"])
def test_iso_9660_is_told_as_it_was_made(
    tmp_path: Path, plain: Path, program: tuple[str, ...], names: str
) -> None:
    """Fails if a name, a byte, or what Rock Ridge knows, differs; Rock Ridge comes first."""
    has_facts = "R" in names
    if has_facts:
        deep = plain / "1" / "2" / "3" / "4" / "5" / "6" / "7" / "8" / "9"  # 8 are allowed
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(b"deep")
        (plain / "link").symlink_to("../there/./" + "/".join(f"part{i}" for i in range(30)))
        (plain / "root").symlink_to("/")
        (plain / ("n" * 200)).write_bytes(b"a long name")
        (plain / "empty").chmod(0o4751)
        os.chown(plain / "large", 1000, 2000)
        os.utime(plain / "large", ns=(0, 1_234_567_890_000_000_000))
    path = tmp_path / "disc.iso"
    run(*program, "-quiet", *(f"-{option}" for option in names[1:]), "-o", path, plain)
    found, expected = told(path), of_folder(plain)
    if has_facts:
        found.pop("/rr_moved", None)  # what the program puts folders into that are too deep
        assert in_seconds(found) == in_seconds(expected)
    else:
        assert bare(found) == bare(expected)


@pytest.mark.oracle("xorriso")
def test_iso_9660_without_further_names_has_capitals(tmp_path: Path, plain: Path) -> None:
    """Fails if version numbers are taken for parts of names."""
    path = tmp_path / "disc.iso"
    run("genisoimage", "-quiet", "-iso-level", "3", "-o", path, plain)
    found = told(path)
    assert {"/SHORT.TXT", "/LARGE", "/EMPTY"} <= set(found)
    expected = of_folder(plain)
    assert sorted(item.content for item in found.values()) == sorted(
        item.content for item in expected.values()
    )


@pytest.mark.oracle("genisoimage")
def test_a_file_in_several_extents_is_one_file(tmp_path: Path) -> None:
    """Fails if a file above 4 GiB, which has a record for each 4 GiB, is cut off, or several."""
    folder = tmp_path / "tree"
    folder.mkdir()
    parts = {"A.BIN": os.urandom(3 * 2048), "B.BIN": os.urandom(5000)}
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    path = tmp_path / "disc.iso"
    run("genisoimage", "-quiet", "-o", path, folder)
    disc = bytearray(path.read_bytes())
    first, second = (disc.index(name.encode() + b";1") - 33 for name in parts)
    disc[first + 25] |= 0x80  # ECMA-119 9.1.6: this is not the last record of the file
    disc[second + 33] = ord("A")
    path.write_bytes(disc)
    with opened(path) as files:
        (entry,) = files.children(files.root())
        assert (entry.path, entry.size) == ("/A.BIN", 3 * 2048 + 5000)
        assert digest(files.content(entry)) == bytes_digest(b"".join(parts.values()))


@pytest.mark.oracle("xorriso")
def test_hfsplus_is_told_as_it_was_made(tmp_path: Path, plain: Path) -> None:
    """Fails if a fact or a byte of any file differs; names are taken apart as HFS+ does."""
    (plain / "link").symlink_to("large")
    run("xorriso", "-as", "mkisofs", "-quiet", "-hfsplus", "-R", "-o", tmp_path / "disc", plain)
    content = (tmp_path / "disc").read_bytes()
    start = content.index(b"H+\0\4") - 1024
    (tmp_path / "volume").write_bytes(content[start:])
    expected = {unicodedata.normalize("NFD", name): item for name, item in of_folder(plain).items()}
    assert in_seconds(told(tmp_path / "volume")) == in_seconds(expected)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_ntfs_is_told_as_ntfs3g_tells_it(tmp_path: Path, plain: Path) -> None:
    """Fails if a name, a time or a byte of any file or stream differs, in whatever way it lies."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path, "-o", "streams_interface=windows,compression") as folder:
        shutil.copytree(plain, folder, dirs_exist_ok=True)
        with (folder / "sparse").open("wb") as file:
            file.truncate(5_000_000)
            file.seek(2_000_000)
            file.write(b"in the middle")
        with (folder / "not written to its end").open("wb") as file:
            file.write(b"A" * 10_000)
            file.truncate(500_000)
        (folder / "squeezed").mkdir()
        os.setxattr(folder / "squeezed", "system.ntfs_attrib_be", (0x810).to_bytes(4, "big"))
        (folder / "squeezed" / "text").write_bytes(b"this is said again and again\n" * 20_000)
        streams = {"small": b"a stream", "large": os.urandom(300_000)}
        for name, content in streams.items():
            (folder / f"SHORT.TXT:{name}").write_bytes(content)
        (folder / "squeezed:of a folder").write_bytes(b"folders have them, too")
        expected = of_folder(folder)
    with opened(path) as files:
        found = of_tree(files, left_out=["/$Extend"])
        entries = {entry.name: entry for entry in files.children(files.root())}
        entry = entries["SHORT.TXT"]
        assert sorted(entry.streams) == ["large", "small"]
        for name, content in streams.items():
            assert digest(files.content(entry, name)) == bytes_digest(content)
        assert entries["squeezed"].streams == ("of a folder",)
        assert files.content(entries["squeezed"], "of a folder").size == 22
        assert files.notes == []
    times = {name: item.modified for name, item in found.items()}
    assert times == {name: item.modified for name, item in expected.items()}
    assert bare(found) == bare(expected)


@pytest.mark.oracle("istat", "icat", "fls")
def test_apfs_is_told_as_the_sleuth_kit_tells_it(corpus: Path) -> None:
    """Fails if names, times or contents of a container of macOS differ."""
    pytest.importorskip("pyfsapfs")
    path = corpus / "forensics" / "log2timeline+dfvfs" / "test_data" / "apfs.raw"
    place = ("-P", "apfs", "-B", "107")
    listed = run("fls", *place, "-r", "-p", path).stdout
    expected = {
        name: int(inode) for inode, name in re.findall(r"^./. (\d+):\t(.+)$", listed, re.MULTILINE)
    }
    with opened(path) as files:
        prefix = "/apfs_test/"
        entries = {
            entry.path.removeprefix(prefix): entry
            for entry in walk(files)
            if entry.path.startswith(prefix)
        }
        assert {name: entry.inode for name, entry in entries.items()} == expected
        for entry in entries.values():
            facts = run("istat", *place, path, str(entry.inode)).stdout
            for word, when in (
                ("Created", entry.times.created),
                ("Content Modified", entry.times.modified),
                ("Attributes Modified", entry.times.changed),
                ("Accessed", entry.times.accessed),
            ):
                assert when is not None
                said = re.search(rf"{word}:\s+(\S+ [\d:]+)\.(\d{{9}})", facts)
                assert said is not None
                seconds = dt.datetime.fromisoformat(f"{said[1]}+00:00").timestamp()
                assert when == int(seconds) * 10**9 + int(said[2])
            if entry.type.value == "file" and entry.size:
                content = subprocess.run(
                    ["icat", *place, path, str(entry.inode)], check=True, capture_output=True
                ).stdout
                assert digest(files.content(entry)) == bytes_digest(content)
        fork = entries["a_directory/a_resourcefork"]
        assert fork.streams == ("rsrc",)
        assert files.content(fork, "rsrc").size == 17
        assert entries["a_link"].target == "a_directory/another_file"
        assert files.notes == []


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("kind", ["ext4", "ext3"])
def test_folders_with_trees_of_names_hold_what_the_kernel_says(tmp_path: Path, kind: str) -> None:
    """Fails if blocks that find names are read as names: of files that do not exist."""
    path = empty(tmp_path / "volume", 64 * MIB)
    run("mke2fs", "-q", "-t", kind, "-N", "30000", "-b", "1024", path)
    with mounted(path) as folder:
        for count in (40, 300, 3000):
            (folder / f"{count}").mkdir()
            for number in range(count):
                (folder / f"{count}" / f"some longer name here {number}").touch()
            for number in range(0, count, 2):
                (folder / f"{count}" / f"some longer name here {number}").unlink()
        expected = of_folder(folder)
    assert bare(told(path)) == bare(expected)
