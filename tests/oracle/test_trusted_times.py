"""Captures that do not read files that seem not to have changed, of real file systems.

Each snapshot has to be the disk byte by byte, whatever was done to the disk in between; and what is
not read has to be what nobody has touched.
"""

from __future__ import annotations

import mmap
import os
import random
import re
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems.ntfs import FILE_SYSTEM as NTFS
from imprint.storage.file import FileStorage
from imprint.testing import ext_volume, ntfs_volume, xfs_volume
from imprint.testing.again import Disk, places
from imprint.testing.oracles import run
from imprint.testing.program import Program
from imprint.testing.volumes import make_disk, mounted, shut_down

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

LARGE: Final = 6 * MIB


def fill(folder: Path) -> None:
    """Files that stay as they are, and one for each of the changes."""
    dice = random.Random(7)
    for name in ("still", "still too"):
        (folder / name).write_bytes(dice.randbytes(LARGE))
    for name in CHANGES:
        (folder / name).write_bytes(dice.randbytes(300 * KIB + 100))
    for number in range(20):
        (folder / f"small {number}").write_bytes(dice.randbytes(1000 * number + 1))


def overwrite(path: Path) -> None:
    """In place, of the same size, and with the times of before as far as programs can set them."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(100 * KIB)
        file.write(b"other content")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def append(path: Path) -> None:
    """So that it grows in its last block and behind it."""
    with path.open("ab") as file:
        file.write(b"more" * 3000)


def replace(path: Path) -> None:
    """By another file of the same name and size."""
    content = bytearray(path.read_bytes())
    path.unlink()
    content[0] ^= 255
    path.write_bytes(content)


def rename_over(path: Path) -> None:
    """Another file takes its place, and that other one's name is free."""
    other = path.with_name("newer")
    other.write_bytes(random.Random(8).randbytes(path.stat().st_size))
    other.rename(path)


def link(path: Path) -> None:
    """A second name, by which it is changed."""
    other = path.with_name("another name")
    os.link(path, other)
    overwrite(other)


def punch(path: Path) -> None:
    """A hole into its middle, if the file system can."""
    run("fallocate", "-p", "-o", str(64 * KIB), "-l", str(128 * KIB), path, accept=(0, 1))


def map_in(path: Path) -> None:
    """Through memory, not by a write."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[200 * KIB : 200 * KIB + 4] = b"mmap"


CHANGES: Final[dict[str, Callable[[Path], object]]] = {
    "overwritten": overwrite,
    "appended": append,
    "deleted": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("new name")),
    "replaced": replace,
    "renamed over": rename_over,
    "linked": link,
    "punched": punch,
    "truncated": lambda path: os.truncate(path, 1000),
    "mapped": map_in,
    "only touched": lambda path: path.touch(),
    "of another mode": lambda path: path.chmod(0o600),
}


Kind = tuple[str, "Callable[[Path], AbstractContextManager[Path]]"]


def make_ext(options: str) -> Callable[[Path], Kind]:
    def make(path: Path) -> Kind:
        ext_volume.make(path, options)
        return "ext", mounted

    return make


def make_xfs(path: Path) -> Kind:
    xfs_volume.make(path)
    return "xfs", mounted


def make_ntfs(path: Path) -> Kind:
    ntfs_volume.make(path)
    return "ntfs", ntfs_volume.ntfs_mounted


KINDS: Final = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make_ext("-t ext4"), id="ext4"),
        pytest.param(make_ext("-t ext4 -b 1024 -I 128 -O ^metadata_csum"), id="ext4-128"),
        pytest.param(make_ext("-t ext3"), id="ext3"),
        pytest.param(make_xfs, id="xfs"),
        pytest.param(make_ntfs, id="ntfs"),
    ],
)
ORACLES: Final = ("mke2fs", "debugfs", "mkfs.xfs", "mkfs.ntfs", "ntfs-3g", "fallocate", "filefrag")


@pytest.mark.root
@pytest.mark.oracle(*ORACLES)
@KINDS
def test_every_snapshot_is_the_disk(make: Callable[[Path], Kind], tmp_path: Path) -> None:
    """Fails if any kind of change is missed, or nothing is gained by not looking at the rest."""
    path = tmp_path / "disk"
    kind, mount = make(path)
    with mount(path) as folder:
        fill(folder)
    disk = Disk(path, kind)
    first = disk.capture()
    assert first.content == path.read_bytes()
    with mount(path) as folder:
        for name, change in CHANGES.items():
            change(folder / name)
    second = disk.capture()
    assert second.content == path.read_bytes()
    assert first.read.total - second.read.total > LARGE
    third = disk.capture()
    assert third.content == path.read_bytes()
    assert third.read.total < second.read.total


@pytest.mark.root
@pytest.mark.oracle(*ORACLES)
@pytest.mark.parametrize("make", [make_ext("-t ext4"), make_xfs], ids=["ext4", "xfs"])
def test_what_did_not_change_is_really_not_read(
    make: Callable[[Path], Kind], tmp_path: Path
) -> None:
    """Fails if a file that was only read costs reading it, but for what shares a chunk."""
    path = tmp_path / "disk"
    kind, mount = make(path)
    with mount(path) as folder:
        fill(folder)
    disk = Disk(path, kind)
    disk.capture()
    with mount(path) as folder:
        overwrite(folder / "overwritten")
        if kind == "ext":
            assert (folder / "still").read_bytes()  # which sets its time of access
        still = places(folder, "still", "still too")
        changed = places(folder, "overwritten")
    assert still.total >= 2 * LARGE
    second = disk.capture()
    assert (second.read & still).total <= 4 * 256 * KIB
    assert (second.read & changed) == changed
    assert any(re.search(r"\d+ files of \d+ are as in snapshot", said) for said in second.said)
    whole = disk.capture(trust_times=False)
    assert (whole.read & still) == still


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "debugfs")
def test_what_was_changed_just_before_the_snapshot_is_read_again(tmp_path: Path) -> None:
    """Fails if a file counts as unchanged whose time of change could be that of two changes."""
    path = ext_volume.make(tmp_path / "disk", "-t ext4")
    with mounted(path) as folder:
        (folder / "young").write_bytes(os.urandom(LARGE))
    disk = Disk(path)  # with its own times
    first = disk.capture()
    assert disk.capture().read == first.read


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "mkfs.xfs", "debugfs")
@pytest.mark.parametrize("make", [make_ext("-t ext4"), make_xfs], ids=["ext4", "xfs"])
@pytest.mark.parametrize("is_dirty_first", [True, False])
def test_a_volume_that_was_not_unmounted_is_read_whole(
    make: Callable[[Path], Kind],
    is_dirty_first: bool,
    tmp_path: Path,
) -> None:
    """Fails if what is only in a journal is overlooked, in this state of the disk or the last."""
    path = tmp_path / "disk"
    kind, mount = make(path)

    def dirty() -> None:
        clean = path.with_name("copy")
        with mount(path) as folder:
            overwrite(folder / "overwritten")
            (folder / "new").write_bytes(b"new" * 1000)
            os.sync()
            shut_down(folder, flush_log=True)
            run("cp", path, clean)
        clean.replace(path)

    with mount(path) as folder:
        fill(folder)
    disk = Disk(path)
    if is_dirty_first:
        dirty()
    else:
        disk.kind = kind
    first = disk.capture()
    if is_dirty_first:
        with mount(path):
            pass
    else:
        disk.kind = ""
        dirty()
    second = disk.capture()
    assert second.content == path.read_bytes()
    assert second.read.total > first.read.total - MIB
    (said,) = [line for line in second.said if "volume is read, changed or not" in line]
    assert "unmounted" in said or "replay" in said
    assert ("when the snapshot was taken" in said) == is_dirty_first


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "debugfs", "mkswap")
def test_files_that_are_written_past_the_file_system_are_read(tmp_path: Path) -> None:
    """Fails if the content of a swap file, or of GRUB's environment, stays that of before."""
    path = ext_volume.make(tmp_path / "disk", "-t ext4")
    with mounted(path) as folder:
        (folder / "swapfile").write_bytes(bytes(LARGE))
        run("mkswap", folder / "swapfile")
        (folder / "grubenv").write_bytes(b"# GRUB Environment Block\n".ljust(1024, b"#"))
        swap, environment = places(folder, "swapfile"), places(folder, "grubenv")
    disk = Disk(path, "ext")
    disk.capture()
    (start, length), (block, _) = list(swap)[-1], next(iter(environment))
    with path.open("r+b") as file:
        for place in (start + length // 2, block + 40):
            file.seek(place)
            file.write(b"by the kernel, or by GRUB")
    again = disk.capture()
    assert again.content == path.read_bytes()


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "debugfs", "e2fsck", "tune2fs", "mkfs.fat", "sfdisk")
def test_volumes_of_a_disk_are_compared_each_by_itself(tmp_path: Path) -> None:
    """Fails if a FAT is not read, or says nothing of why; or if another file system is trusted."""
    fat, root = tmp_path / "fat", ext_volume.make(tmp_path / "root", "-t ext4", size=32 * MIB)
    fat.touch()
    os.truncate(fat, 8 * MIB)
    run("mkfs.fat", fat)
    with mounted(root) as folder:
        (folder / "still").write_bytes(os.urandom(LARGE))
    # tune2fs -U below wants a check that is not earlier than the last mount, by the second.
    run("env", "E2FSCK_TIME=4000000000", "e2fsck", "-fy", root)
    run("env", "E2FSPROGS_FAKE_TIME=4000000000", "tune2fs", "-c", "9", root)
    path = tmp_path / "disk"
    starts = make_disk(path, [("uefi", fat), ("linux", root)], size=48 * MIB)
    disk = Disk(path)
    first = disk.capture()
    disk_said = disk.capture()
    assert disk_said.content == path.read_bytes()
    assert first.read.total - disk_said.read.total > LARGE - MIB
    boot = Runs.of([(starts[0], 8 * MIB)])
    assert (disk_said.read & boot) == (first.read & boot)
    assert any("programs can set all times" in said for said in disk_said.said)
    # The same files, at the same places, in a file system that is another one.
    run("env", "E2FSPROGS_FAKE_TIME=4000000000", "tune2fs", "-U", "random", "-f", root)
    make_disk(path, [("uefi", fat), ("linux", root)], size=48 * MIB)
    other = disk.capture()
    assert other.content == path.read_bytes()
    assert (other.read - boot).total > (first.read - boot).total - MIB
    assert any("another one than in the snapshot" in said for said in other.said)


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "debugfs")
def test_what_is_written_past_a_file_system_is_noticed_if_it_is_much(tmp_path: Path) -> None:
    """Fails if a sample of what seems unchanged is not compared."""
    path = ext_volume.make(tmp_path / "disk", "-t ext4")
    with mounted(path) as folder:
        (folder / "still").write_bytes(os.urandom(LARGE))
        still = places(folder, "still")
    disk = Disk(path, "ext")
    disk.capture()
    with path.open("r+b") as file:
        for start, length in still:
            file.seek(start)
            file.write(os.urandom(length))
    again = disk.capture()
    assert again.content == path.read_bytes()
    assert any("has changed where it seemed not to" in said for said in again.said)


@pytest.mark.oracle("mke2fs")
def test_files_of_an_image_that_a_tool_made_again_are_read(tmp_path: Path) -> None:
    """Fails if images are taken for the same whose tool gives each the same times and identity."""
    path, folder = tmp_path / "disk", tmp_path / "files"
    folder.mkdir()
    disk = Disk(path)
    for content in (b"1", b"2"):
        (folder / "file").write_bytes(content * LARGE)
        os.utime(folder / "file", (1000, 1000))
        path.write_bytes(b"")
        os.truncate(path, 32 * MIB)
        identity = "12345678-1234-1234-1234-123456789abc"
        options = ["-q", "-F", "-t", "ext4", "-d", str(folder), "-U", identity]
        seed = f"hash_seed={identity}"
        run("env", "E2FSPROGS_FAKE_TIME=1000", "mke2fs", *options, "-E", seed, path)
        found = disk.capture()
        assert found.content == path.read_bytes()
    assert any("0 files of 0 are as in snapshot" in said for said in found.said)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_a_file_of_ntfs_that_has_several_records_is_one(tmp_path: Path) -> None:
    """Fails if extents that a further record tells are trusted although the file has changed."""
    path = ntfs_volume.make(tmp_path / "disk", size=ntfs_volume.SMALL_BYTES)
    with ntfs_volume.ntfs_mounted(path) as folder:
        ntfs_volume.crowd(folder)
        for name in sorted(folder.glob("file*"))[::2]:
            name.unlink()
        with suppress(OSError), (folder / "pieces").open("ab", buffering=0) as pieces:
            for number in range(1000):
                pieces.write(number.to_bytes(2, "little") * 2 * KIB)
        size = (folder / "pieces").stat().st_size
    with closing(FileStorage.open(path)) as storage:
        known = {file.size: file for file in NTFS.states(storage).files}
    assert len(known[size].runs) > 100
    assert isinstance(known[size].state, tuple)  # of several records
    disk = Disk(path)
    first = disk.capture()
    second = disk.capture()
    assert first.read.total - second.read.total > size // 2
    with ntfs_volume.ntfs_mounted(path) as folder, (folder / "pieces").open("r+b") as file:
        file.seek(size - 600)
        file.write(b"other content")
    assert disk.capture().content == path.read_bytes()


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "debugfs", "cmp")
def test_the_program_restores_what_it_captured_so(tmp_path: Path) -> None:
    """Fails if the option is not passed on, or what is restored is another disk."""
    program = Program(tmp_path)
    program.ok("repo", "init", "r")
    path = ext_volume.make(tmp_path / "disk.raw", "-t ext4")
    with mounted(path) as folder:
        fill(folder)
    read = []
    for number, options in enumerate([[], ["--trust-times"], ["--trust-times", "--used"]]):
        now_s = int(time.time()) + 60 * (number + 1)
        program.environment["SOURCE_DATE_EPOCH"] = str(now_s)
        run("env", f"E2FSPROGS_FAKE_TIME={now_s}", "tune2fs", "-c", str(number + 1), path)
        found = program.ok("capture", path, "repo:r::disk", *options, "--json")
        read.append(found.json["bytes_read"])
        if "--used" not in options:
            program.ok("restore", "repo:r::disk", "again.raw", "--force")
            run("cmp", path, tmp_path / "again.raw")
        with mounted(path) as folder:
            overwrite(folder / "overwritten")
    assert read[0] - read[1] > LARGE
    assert read[0] - read[2] > LARGE
    program.ok("restore", "repo:r::disk", "again.raw", "--force")
    run("e2fsck", "-fn", tmp_path / "again.raw")
    with mounted(tmp_path / "again.raw") as folder:
        expected = random.Random(7).randbytes(LARGE)
        assert (folder / "still").read_bytes() == expected
