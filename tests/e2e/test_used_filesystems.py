"""Only what is used, end to end: captured, put back over garbage, checked, and read again."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.oracles import run
from imprint.testing.volumes import (
    GARBAGE,
    attached,
    cut_out,
    fill,
    make_disk,
    mounted,
    shut_down,
    tree,
    work,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.testing.program import Program

MIB: Final = 1 << 20

pytestmark = [pytest.mark.root, pytest.mark.oracle("losetup", "sfdisk")]


@dataclass(frozen=True)
class Kind:
    """A file system to test with.

    Attributes:
        size: of the volume, in MiB.
        make: command that makes one over what is there.
        check: command that is content with a sound one.
        mount: what ``mount -t`` calls it; ``None``: mtools read and write it.
        programs: that all of this needs.
    """

    size: int
    make: str
    check: str
    mount: str | None
    programs: tuple[str, ...]


KINDS: Final = {
    "ext4": Kind(96, "mkfs.ext4 -q -E nodiscard", "e2fsck -fn", "ext4", ("mkfs.ext4", "e2fsck")),
    "xfs": Kind(304, "mkfs.xfs -q -f -K", "xfs_repair -n", "xfs", ("mkfs.xfs", "xfs_repair")),
    "btrfs": Kind(
        128, "mkfs.btrfs -q -f -K", "btrfs check --readonly", "btrfs", ("mkfs.btrfs", "btrfs")
    ),
    "ntfs": Kind(
        64, "mkfs.ntfs -q -Q -F", "ntfsfix -n", "ntfs-3g", ("mkfs.ntfs", "ntfs-3g", "ntfsfix")
    ),
    "fat32": Kind(
        64, "mkfs.fat -F 32", "fsck.fat -n", None, ("mkfs.fat", "fsck.fat", "mcopy", "mdel")
    ),
    "exfat": Kind(
        64,
        "mkfs.exfat",
        "fsck.exfat -n",
        "exfat-fuse",
        ("mkfs.exfat", "fsck.exfat", "mount.exfat-fuse"),
    ),
}

EACH_KIND: Final = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=name, marks=pytest.mark.oracle(*kind.programs))
        for name, kind in KINDS.items()
    ],
)


def garbage(path: Path, size: int) -> Path:
    """A file of ``size`` MiB in which nothing is zero."""
    path.write_bytes(GARBAGE * size)
    return path


def used_volume(path: Path, kind: Kind) -> dict[str, str]:
    """Make a file system over garbage, and use it; gives its files."""
    garbage(path, kind.size)
    run(*kind.make.split(), path)
    if kind.mount is not None:
        with mounted(path, kind=kind.mount) as folder:
            fill_without_links(folder) if kind.mount == "exfat-fuse" else fill(folder)
        return files_of(path, kind)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill_without_links(folder)
        run("mcopy", "-s", "-i", path, *sorted(folder.iterdir()), "::/")
        run("mdel", "-i", path, "::/into the gaps", "::/sparse")
        run("mcopy", "-i", path, folder / "into the gaps", "::/again")
    return files_of(path, kind)


def fill_without_links(folder: Path) -> None:
    """For file systems that have none."""
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name))
        (Path(name) / "a link").unlink()
        shutil.copytree(name, folder, dirs_exist_ok=True)


def files_of(path: Path, kind: Kind) -> dict[str, str]:
    """Every file by its path."""
    if kind.mount is not None:
        with mounted(path, "ro", kind=kind.mount) as folder:
            return tree(folder)
    with tempfile.TemporaryDirectory() as name:
        run("mcopy", "-s", "-n", "-i", path, "::*", name)
        return tree(Path(name))


def put_back(program: Program, image: Path, size: int) -> Path:
    """Restore an image onto a device of ``size`` MiB that is full of garbage; gives its content."""
    target = garbage(image.with_suffix(".back"), size)
    with attached(target) as device:
        done = program("restore", image, device, "--force")
        assert done.exit_code == 0, done.err
    return target


@EACH_KIND
def test_a_partition_is_whole_after_it_was_put_back_over_garbage(
    program: Program, tmp_path: Path, kind: Kind
) -> None:
    """Fails if a block is left out that a file or the file system's own checker needs."""
    volume, disk, image = (tmp_path / name for name in ("volume", "disk.raw", "disk.qcow2"))
    files = used_volume(volume, kind)
    (start,) = make_disk(disk, [("L", volume)], size=(kind.size + 2) * MIB)
    done = program("capture", disk, image, "--used", "--json", "--prove", "--verify")
    assert done.exit_code == 0, done.err
    assert done.messages == []
    assert done.json["proved"]
    assert done.json["left_out"] > kind.size * MIB // 3
    back = put_back(program, image, kind.size + 2)
    cut_out(back, start, volume, size=kind.size * MIB)
    run(*kind.check.split(), volume)
    assert files_of(volume, kind) == files
    assert len(files) > 20
    assert back.read_bytes()[:start] == disk.read_bytes()[:start]


@EACH_KIND
def test_a_disk_without_partitions_is_whole_too(
    program: Program, tmp_path: Path, kind: Kind
) -> None:
    """Fails if what is at the disk's start or end, as copies of superblocks, is left out."""
    volume, image = tmp_path / "volume.raw", tmp_path / "volume.qcow2"
    files = used_volume(volume, kind)
    options = ("--used", "-o", "compression=zstd", "--json")
    done = program("convert", volume, image, *options)
    assert done.exit_code == 0, done.err
    assert done.json["left_out"] > kind.size * MIB // 3
    back = put_back(program, image, kind.size)
    run(*kind.check.split(), back)
    assert files_of(back, kind) == files


def power_cut(path: Path, folder: Path, frozen: Path) -> None:
    """Everything stops at once."""
    shut_down(folder, flush_log=True)
    shutil.copyfile(path, frozen)


def live_copy(path: Path, _: Path, frozen: Path) -> None:
    """The disk as it is while it is in use."""
    shutil.copyfile(path, frozen)


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        pytest.param(KINDS["ext4"], power_cut, id="ext4"),
        pytest.param(KINDS["xfs"], power_cut, id="xfs"),
        pytest.param(KINDS["btrfs"], live_copy, id="btrfs"),
    ],
)
@pytest.mark.oracle("mkfs.ext4", "mkfs.xfs", "mkfs.btrfs")
def test_what_a_raw_copy_shows_after_a_crash_is_there(
    program: Program, tmp_path: Path, kind: Kind, stop: Callable[[Path, Path, Path], None]
) -> None:
    """Fails if blocks are left out that only the log knows of: their files would be lost."""
    volume, frozen, image = (tmp_path / name for name in ("volume", "disk.raw", "disk.qcow2"))
    garbage(volume, kind.size)
    run(*kind.make.split(), volume)
    with mounted(volume, kind=kind.mount) as folder:
        work(folder, files=90)
        stop(volume, folder, frozen)
    done = program("capture", frozen, image, "--used", "--json", "--prove")
    assert done.exit_code == 0, done.err
    assert done.json["left_out"] > kind.size * MIB // 3, done.err
    back = put_back(program, image, kind.size)
    volume.unlink()
    found = []
    for path in (frozen, back):  # the same volume twice: one after the other
        with mounted(path, kind=kind.mount) as folder:
            found.append(tree(folder))
    assert found[0] == found[1]
    assert sum(name.startswith("new") for name in found[0]) >= 25
