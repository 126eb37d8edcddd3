"""Extended attributes and access control lists, as the kernel tells them of mounted volumes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from imprint.core.units import KIB, MIB
from imprint.filesystems.attributes import list_in_words
from imprint.filesystems.walking import walk
from imprint.testing.attributed_files import ACCESS, DICE, by_kernel, dress, many
from imprint.testing.file_trees import opened
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.filesystems.tree import FileTree
    from imprint.testing.attributed_files import Attributes


def by_us(files: FileTree) -> Attributes:
    found = {entry.path: files.attributes(entry) for entry in walk(files)}
    assert files.notes == []
    return {path: facts for path, facts in found.items() if not path.startswith("/$Orphan")}


def compared(path: Path, fill: Callable[[Path], None]) -> Attributes:
    """Fill a volume, and expect what the kernel says of it once it is mounted again."""
    with mounted(path) as folder:
        fill(folder)
    with mounted(path, "ro") as folder:
        expected = by_kernel(folder)
    with opened(path) as files:
        found = by_us(files)
    assert found == expected
    return found


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize(
    ("options", "count", "size"),
    [
        (("-t", "ext4", "-b", "4096"), 25, 100),
        (("-t", "ext4", "-I", "1024", "-b", "1024", "-O", "inline_data"), 10, 100),
        (("-t", "ext4", "-O", "ea_inode"), 12, 30 * KIB),
        (("-t", "ext2", "-I", "128"), 8, 100),
    ],
    ids=["ext4", "inline", "inodes", "ext2"],
)
def test_ext_has_the_attributes_that_the_kernel_tells(
    tmp_path: Path, options: tuple[str, ...], count: int, size: int
) -> None:
    """Fails if one is missed, made up, or has other bytes: in inodes, blocks, inodes of values."""
    pytest.importorskip("pytsk3")
    path = empty(tmp_path / "volume", 32 * MIB)
    run("mke2fs", "-q", *options, path)

    def fill(folder: Path) -> None:
        dress(folder)
        many(folder, count=count, size=size)
        if "ea_inode" in options:
            os.setxattr(folder / "few", "user.longest", DICE.randbytes(64 * KIB))

    found = compared(path, fill)
    assert found["/listed"]["system.posix_acl_access"] == ACCESS
    assert sum(map(len, found.values())) > count


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
@pytest.mark.parametrize(
    ("options", "count"),
    [((), 3), ((), 60), (("-b", "size=1024", "-i", "nrext64=0"), 900)],
    ids=["leaf", "node", "levels"],
)
def test_xfs_has_the_attributes_that_the_kernel_tells(
    tmp_path: Path, options: tuple[str, ...], count: int
) -> None:
    """Fails if one is missed: in an inode, a leaf, a tree, or in blocks of its own."""
    path = empty(tmp_path / "volume", 320 * MIB)
    run("mkfs.xfs", "-q", *options, path)

    def fill(folder: Path) -> None:
        dress(folder)
        many(folder, count=count, size=200)
        for size in (255, 256, 3000, 4040, 4041, 64 * KIB):
            os.setxattr(folder / "many", f"user.size {size}", DICE.randbytes(size))
            os.setxattr(folder / "none", f"trusted.size {size}", DICE.randbytes(size))

    found = compared(path, fill)
    assert list_in_words(found["/listed"]["system.posix_acl_access"]) == (
        "user::rwx,user:70000:r--,group::r-x,mask::r-x,other::---"
    )


@pytest.mark.oracle("mkfs.xfs", "xfs_db")
def test_xfs_of_version_4_keeps_them_in_blocks_without_heads(tmp_path: Path) -> None:
    """Fails if heads of version 5 are looked for where there are none. ``xfs_db`` sets them."""
    (tmp_path / "prototype").write_text("/\n1 1\nd--755 0 0\nfile ---640 3 4 /etc/hostname\n$\n")
    path = empty(tmp_path / "volume", 320 * MIB)
    run("mkfs.xfs", "-q", "-m", "crc=0", "-i", "attr=2", "-p", tmp_path / "prototype", path)
    sizes = [*range(1, 1000, 90), 5000, 60_000]
    commands = [f"attr_set -u -v {size} name{size}" for size in sizes]
    for command in commands:
        run("xfs_db", "-x", "-c", "path /file", "-c", command, path)
    with opened(path) as files:
        found = by_us(files)["/file"]
    assert {name: len(value) for name, value in found.items()} == {
        f"user.name{size}": size for size in sizes
    }
    assert all(value.count(value[:1]) == len(value) for value in found.values())


@pytest.mark.root
@pytest.mark.oracle("mkfs.btrfs", "btrfs")
def test_btrfs_has_the_attributes_that_the_kernel_tells(tmp_path: Path) -> None:
    """Fails if one is missed, or taken from another subvolume."""
    path = empty(tmp_path / "volume", 128 * MIB)
    run("mkfs.btrfs", "-q", path)

    def fill(folder: Path) -> None:
        dress(folder)
        many(folder, count=200, size=900)
        run("btrfs", "subvolume", "create", folder / "below")
        dress(folder / "below")
        os.setxattr(folder / "below" / "few", "user.comment", b"another")
        for name in ("user.name02000402", "user.name01371838"):  # of the same CRC-32C: one item
            os.setxattr(folder / "listed", name, name.encode())
        run("btrfs", "property", "set", folder / "none", "compression", "zstd")

    found = compared(path, fill)
    assert found["/none"] == {"btrfs.compression": b"zstd"}
    assert len(found["/listed"]) == 3


@pytest.mark.root
@pytest.mark.oracle("mkfs.btrfs", "mksquashfs")
@pytest.mark.parametrize("options", [(), ("-noX", "-noI")], ids=["packed", "plain"])
def test_squashfs_has_the_attributes_that_the_kernel_tells(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Fails if one is missed: values that files share stand in one place."""
    holder = empty(tmp_path / "holder", 128 * MIB)
    run("mkfs.btrfs", "-q", holder)  # XFS would tell lists twice, and ext has little room
    path = tmp_path / "volume"
    with mounted(holder) as folder:
        dress(folder)
        many(folder, count=100, size=200)
        shared = DICE.randbytes(12 * KIB)
        for number in range(5):
            (folder / f"sharer {number}").touch()
            os.setxattr(folder / f"sharer {number}", "user.shared", shared)
            os.setxattr(folder / f"sharer {number}", f"user.own {number}", shared)
        run("mksquashfs", folder, path, "-quiet", "-no-progress", "-xattrs", *options)
    with mounted(path, "ro") as folder:
        expected = by_kernel(folder)
    with opened(path) as files:
        found = by_us(files)
    assert found == expected
    assert found["/sharer 3"] == {"user.shared": shared, "user.own 3": shared}
    assert found["/link"] == {"trusted.of a link": b"2"}
    assert found["/null"] == {"trusted.of a device": b"4"}


@pytest.mark.parametrize(("name", "folder"), [("hfsplus.raw", ""), ("apfs.raw", "/apfs_test")])
def test_those_of_macos_are_told_as_they_were_set(corpus: Path, name: str, folder: str) -> None:
    """Fails if they are missed. Set by ``xattr -w``, in create_test_data.sh of dfVFS."""
    pytest.importorskip({"hfsplus.raw": "pytsk3", "apfs.raw": "pyfsapfs"}[name])
    path = corpus / "formats" / "log2timeline+dfvfs" / "test_data" / name
    if not path.exists():
        pytest.skip(f"the corpus has no {name}")
    with opened(path) as files:
        found = {path: facts for path, facts in by_us(files).items() if facts}
    found.pop("/apfs_test", None)  # what macOS notes of the volume itself
    assert found == {f"{folder}/a_directory/a_file": {"user.myxattr": b"My extended attribute"}}
