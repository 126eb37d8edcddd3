"""Disks restored onto targets of other sizes and sectors, with outside tools as judges."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.units import MIB
from imprint.storage.linux import reread_partitions
from imprint.testing import volumes
from imprint.testing.oracles import run
from imprint.testing.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.oracle("losetup", "sfdisk", "sgdisk", "mkfs.ext4", "e2fsck", "resize2fs"),
]

NOBODY = 65534
AS_NOBODY = """
import os, sys
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.fitting import Fit
from imprint.endpoints.restoring import plan_restore, restore
from imprint.endpoints.target import TargetRequest
request = CopyRequest("disk.raw", TargetRequest("new.raw"))
fit = Fit(grow=True, size=90 << 20)
# Nobody may not be allowed to read root's Python: everything is loaded before.
plan_restore(request, fit)
restore(CopyRequest("disk.raw", TargetRequest("other.raw")), Fit())
os.unlink("other.raw")
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
restore(request, fit)
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A device of 160 MiB with sectors of 4096 bytes, full of what somebody left there."""
    file = tmp_path / "device.raw"
    with file.open("wb") as disk:
        disk.truncate(160 * MIB)
        for at in (0, 33 * MIB, 90 * MIB, 159 * MIB):
            disk.seek(at)
            disk.write(random.Random(at).randbytes(MIB))
    name = run("losetup", "--find", "--show", "--sector-size=4096", file).stdout.strip()
    yield name
    run("losetup", "--detach", name)


def make_volume(folder: Path, *command: str, size: int = 24 * MIB, kind: str = "") -> Path:
    """A volume with files, made by a tool that takes the file as its last argument."""
    path = folder / "volume"
    with path.open("wb") as file:
        file.truncate(size)
    run(*command, path)
    with volumes.mounted(path, kind=kind or None) as point:
        volumes.fill(point, size=4 * MIB)
    return path


def files_in(disk: str | Path, start: int, length: int, kind: str, folder: Path) -> dict[str, str]:
    """What is in a partition, which is looked at by way of a device of its own."""
    place = (f"--offset={start}", f"--sizelimit={length}")
    name = run("losetup", "--find", "--show", "--read-only", *place, disk).stdout.strip()
    point = folder / "point"
    point.mkdir(exist_ok=True)
    options = "ro,norecovery" if kind == "xfs" else "ro"
    try:
        run("mount", "-t", kind, "-o", options, name, point)
        try:
            return volumes.tree(point)
        finally:
            run("umount", point)
    finally:
        run("losetup", "--detach", name)


def table_of(disk: str | Path) -> dict[str, Any]:
    """As sfdisk sees it; sgdisk has to be content with both copies."""
    table: dict[str, Any] = json.loads(run("sfdisk", "-J", disk).stdout)["partitiontable"]
    if table["label"] == "gpt":
        assert "No problems found" in run("sgdisk", "-v", disk).stdout
    return table


def checked(disk: str | Path, start: int, length: int, *command: str) -> str:
    """Let a checker, which must not change anything, look at a partition."""
    place = ("--read-only", f"--offset={start}", f"--sizelimit={length}")
    name = run("losetup", "--find", "--show", *place, disk).stdout.strip()
    try:
        return run(*command, name).stdout
    finally:
        run("losetup", "--detach", name)


EXT = ("mkfs.ext4", "-q", "-F")


@pytest.mark.parametrize("options", [("-b", "1024"), ("-O", "^resize_inode")])
def test_an_ext4_fills_a_larger_file(
    program: Program, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Fails if anything is lost, or the file system or the table is not sound afterwards."""
    volume = make_volume(tmp_path, *EXT, *options)
    with volumes.mounted(volume, "ro") as point:
        before = volumes.tree(point)
    (start,) = volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=26 * MIB)

    result = program.ok("restore", "disk.raw", "new.raw", "--grow", "--size=300M", "--json").json

    assert result["grown"] == {
        "partition": 1,
        "from": 24 * MIB,
        "to": 298 * MIB,
        "filesystem": "ext4",
    }
    assert (tmp_path / "new.raw").stat().st_size == 300 * MIB
    (item,) = table_of(tmp_path / "new.raw")["partitions"]
    assert (item["start"], item["size"]) == (start // 512, 298 * MIB // 512)
    checked(tmp_path / "new.raw", start, 298 * MIB, "e2fsck", "-f", "-n")
    said = checked(tmp_path / "new.raw", start, 298 * MIB, "dumpe2fs", "-h")
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    size = int(facts["Block count"]) * int(facts["Block size"])
    assert 290 * MIB < size <= 298 * MIB
    assert files_in(tmp_path / "new.raw", start, 298 * MIB, "ext4", tmp_path) == before


def test_a_file_grows_without_root(tmp_path: Path) -> None:
    """Fails if a user of virtual machines has to be root, or the copy is not written back."""
    volume = make_volume(tmp_path, *EXT, "-b", "1024")
    with volumes.mounted(volume, "ro") as point:
        before = volumes.tree(point)
    (start,) = volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=26 * MIB)
    place = tmp_path / "theirs?"
    place.mkdir()
    (tmp_path / "disk.raw").rename(place / "disk.raw")
    for path in (place, place / "disk.raw"):
        os.chown(path, NOBODY, NOBODY)
    for path in [tmp_path, *tmp_path.parents][:3]:
        path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], cwd=place, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in place.iterdir()) == ["disk.raw", "new.raw"]
    new = place / "new.raw"
    assert table_of(new)["partitions"][0]["size"] == 88 * MIB // 512
    said = checked(new, start, 88 * MIB, "e2fsck", "-f", "-n")
    assert "/90112 blocks" in said  # of 1 KiB
    assert files_in(new, start, 88 * MIB, "ext4", tmp_path) == before


@pytest.mark.oracle("mkfs.ntfs", "ntfsresize", "ntfs-3g")
def test_an_ntfs_fills_a_larger_file(program: Program, tmp_path: Path) -> None:
    """Fails if ntfsresize is not content, or a file differs."""
    volume = make_volume(tmp_path, "mkfs.ntfs", "-F", "-Q", "-q", kind="ntfs-3g")
    with volumes.mounted(volume, "ro", kind="ntfs-3g") as point:
        before = volumes.tree(point)
    (start,) = volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=26 * MIB)

    result = program.ok("restore", "disk.raw", "new.raw", "--grow", "--size=70M", "--json").json

    new, length = tmp_path / "new.raw", 68 * MIB
    assert result["grown"]["filesystem"] == "ntfs"
    said = checked(new, start, length, "ntfsresize", "--info", "--force", "--no-progress-bar")
    (line,) = [line for line in said.splitlines() if line.startswith("Current volume size")]
    assert length - 8192 < int(line.split(":")[1].split()[0]) <= length
    assert files_in(new, start, length, "ntfs-3g", tmp_path) == before
    # It waits for Windows to check it: ntfsresize would not touch it again.
    messages = program.refuses(4, "restore", "new.raw", "more.raw", "--grow", "--size=90M")
    assert "not sound enough" in messages[0]
    assert not (tmp_path / "more.raw").exists()


@pytest.mark.oracle("mkfs.xfs", "xfs_growfs", "xfs_repair")
def test_an_xfs_fills_a_larger_file(program: Program, tmp_path: Path) -> None:
    """Fails if it stays as it was, or xfs_repair finds something."""
    volume = make_volume(tmp_path, "mkfs.xfs", "-q", size=304 * MIB, kind="xfs")
    with volumes.mounted(volume, "ro,norecovery", kind="xfs") as point:
        before = volumes.tree(point)
    (start,) = volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=306 * MIB)

    program.ok("restore", "disk.raw", "new.raw", "--grow", "--size=450M", "--force")

    new, length = tmp_path / "new.raw", 448 * MIB
    checked(new, start, length, "xfs_repair", "-n")
    said = checked(new, start, length, "xfs_db", "-r", "-c", "sb 0", "-c", "print dblocks")
    assert int(said.split("=")[1]) * 4096 == length
    assert files_in(new, start, length, "xfs", tmp_path) == before


def test_a_logical_partition_fills_a_larger_file(program: Program, tmp_path: Path) -> None:
    """Fails if sfdisk disagrees about an extended partition that was enlarged."""
    volume = make_volume(tmp_path, *EXT)
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(40 * MIB)
    lines = (
        "label: dos",
        "start=2048,size=4096,type=83",
        "start=8192,size=71680,type=5",
        "start=10240,size=4096,type=83",
        f"start=20480,size={24 * MIB // 512},type=83",
    )
    run("sfdisk", "-q", disk, stdin="\n".join(lines).encode())
    run("dd", f"if={volume}", f"of={disk}", "bs=1M", "seek=10", "conv=notrunc,sparse")

    program.ok("restore", "disk.raw", "new.raw", "--grow", "--size=90M")

    new = tmp_path / "new.raw"
    ends = [item["start"] + item["size"] for item in table_of(new)["partitions"]]
    assert ends == [6144, 90 * 2048, 14336, 90 * 2048]
    assert "No errors detected" in run("sfdisk", "--verify", new).stdout
    assert "Remaining 0 unallocated" not in run("sfdisk", "--verify", new).stderr
    checked(new, 10 * MIB, 80 * MIB, "e2fsck", "-f", "-n")


def test_a_device_with_other_sectors_is_filled(
    program: Program, tmp_path: Path, device: str
) -> None:
    """Fails if a device of 4096-byte sectors gets a table that its kernel cannot read."""
    volume = make_volume(tmp_path, *EXT, "-b", "4096")
    with volumes.mounted(volume, "ro") as point:
        before = volumes.tree(point)
    disk = tmp_path / "disk.raw"
    (start,) = volumes.make_disk(disk, [("linux", volume)], size=26 * MIB)

    planned = program.ok("restore", "disk.raw", device, "--grow", "--force", "--dry-run", "--json")
    assert planned.json["grown"]["to"] == 158 * MIB
    with Path(device).open("rb") as untouched:
        assert untouched.read(MIB) == random.Random(0).randbytes(MIB)
    for extra in ((), ("--delta",)):
        done = program.ok("restore", "disk.raw", device, "--grow", "--force", "--json", *extra)
        assert done.json["grown"]["to"] == 158 * MIB
        assert done.json["bytes_written"] < 30 * MIB  # what nobody uses is left alone
        table = table_of(device)
        assert table["sectorsize"] == 4096
        (item,) = table["partitions"]
        assert (item["start"] * 4096, item["size"] * 4096) == (start, 158 * MIB)
        checked(device, start, 158 * MIB, "e2fsck", "-f", "-n")
        assert files_in(device, start, 158 * MIB, "ext4", tmp_path) == before

    fd = os.open(device, os.O_RDONLY)
    reread_partitions(fd)
    os.close(fd)
    # Back to sectors of 512: the same partition, by another tool's account.
    program.ok("restore", device, "back.raw", "--sector-size=512")
    (item,) = table_of(tmp_path / "back.raw")["partitions"]
    assert (item["start"] * 512, item["size"] * 512) == (start, 158 * MIB)


def test_a_disk_shrinks_only_as_far_as_its_partitions(program: Program, tmp_path: Path) -> None:
    """Fails if the backup GPT is not at the new end, or a partition is cut off."""
    volume = make_volume(tmp_path, *EXT)
    disk = tmp_path / "disk.raw"
    (start,) = volumes.make_disk(disk, [("linux", volume)], size=80 * MIB)

    program.ok("restore", "disk.raw", "new.raw", "--shrink-to-fit", "--size=26M")

    table_of(tmp_path / "new.raw")
    checked(tmp_path / "new.raw", start, 24 * MIB, "e2fsck", "-f", "-n")
    messages = program.refuses(
        5, "restore", "disk.raw", "less.raw", "--shrink-to-fit", "--size=20M"
    )
    assert "resize2fs" in messages[1]
    assert not (tmp_path / "less.raw").exists()


@pytest.mark.oracle("cryptsetup")
def test_what_is_encrypted_stays_in_a_larger_partition(program: Program, tmp_path: Path) -> None:
    """Fails if the user is told that something has grown that has not."""
    volume = tmp_path / "volume"
    volume.touch()
    os.truncate(volume, 24 * MIB)
    fast = ("--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--batch-mode")
    run("cryptsetup", "luksFormat", *fast, volume, "-", stdin=b"secret")
    volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=26 * MIB)

    done = program.ok("restore", "disk.raw", "new.raw", "--grow", "--size=50M", "--json")

    assert done.json["grown"]["filesystem"] is None
    assert done.json["grown"]["to"] == 48 * MIB
    assert "stays as it is" in done.err
    assert table_of(tmp_path / "new.raw")["partitions"][0]["size"] == 48 * MIB // 512


@pytest.mark.parametrize(
    ("options", "what"),
    [(("-O", "^64bit", "-b", "1024"), "4398046511104"), (("-O", "bigalloc"), "bigalloc")],
)
def test_an_ext4_that_cannot_grow_is_refused_at_once(
    program: Program, tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    """Fails if it turns out only when the disk has been written."""
    volume = make_volume(tmp_path, *EXT, *options)
    volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=26 * MIB)
    messages = program.refuses(4, "restore", "disk.raw", "new.raw", "--grow", "--size=5T")
    assert what in messages[0]
    assert not (tmp_path / "new.raw").exists()


@pytest.mark.oracle("mkfs.vfat", "mkswap")
@pytest.mark.parametrize("tool", [("mkfs.vfat",), ("mkswap", "-q")])
def test_what_cannot_grow_is_refused_and_the_target_is_kept(
    program: Program, tmp_path: Path, tool: tuple[str, ...]
) -> None:
    """Fails if the target is written before everything is known to work."""
    root = make_volume(tmp_path, *EXT).rename(tmp_path / "root")
    last = tmp_path / "last"
    last.touch()
    os.truncate(last, 8 * MIB)
    run(*tool, last)
    disk = tmp_path / "disk.raw"
    volumes.make_disk(disk, [("linux", root), ("linux", last)], size=40 * MIB)
    target = tmp_path / "target.raw"
    target.write_bytes(b"mine")
    os.truncate(target, 90 * MIB)

    messages = program.refuses(4, "restore", "disk.raw", "target.raw", "--grow", "--force")

    assert "cannot be grown; partition 1 (ext4) could be, but is not the last" in messages[0]
    assert target.read_bytes()[:4] == b"mine"
    assert program.refuses(4, "restore", "disk.raw", "t.qcow2", "--grow", "--size=90M")
    assert program.refuses(2, "restore", "-", "t.raw", "--grow", "--size=90M")


def test_a_tool_that_fails_leaves_a_whole_disk(program: Program, tmp_path: Path) -> None:
    """Fails if the user does not learn what is there, or cannot go on from it."""
    volume = make_volume(tmp_path, *EXT, "-O", "^metadata_csum")
    disk = tmp_path / "disk.raw"
    (start,) = volumes.make_disk(disk, [("linux", volume)], size=26 * MIB)
    good = tmp_path / "good.raw"
    shutil.copy(disk, good)
    run("debugfs", "-w", "-R", "set_inode_field <2> mode 0100644", f"{disk}?offset={start}")

    result = program("restore", "disk.raw", "new.raw", "--grow", "--size=90M")

    assert result.exit_code == 5
    assert "the disk is restored" in result.messages[0]
    assert "e2fsck ended with" in result.messages[0]
    assert table_of(tmp_path / "new.raw")["partitions"][0]["size"] == 88 * MIB // 512
    program.ok("restore", "good.raw", "new.raw", "--grow", "--force")
    checked(tmp_path / "new.raw", start, 88 * MIB, "e2fsck", "-f", "-n")


def test_without_grow_a_disk_is_restored_byte_by_byte(
    program: Program, tmp_path: Path, device: str
) -> None:
    """Fails if the backup is moved unasked, or nobody is told where it is."""
    volume = make_volume(tmp_path, *EXT, "-b", "4096")
    disk = tmp_path / "disk.raw"
    volumes.make_disk(disk, [("linux", volume)], size=26 * MIB)

    done = program.ok("restore", "disk.raw", device, "--force", "--sector-size=512")

    assert any("backup GPT: stays in the middle" in line for line in done.messages)
    with Path(device).open("rb") as written:
        assert written.read(26 * MIB) == disk.read_bytes()


def test_a_file_that_is_there_keeps_its_size(program: Program, tmp_path: Path) -> None:
    """Fails if a larger file is replaced by a small one, or changed in place wrongly."""
    volume = make_volume(tmp_path, *EXT)
    disk = tmp_path / "disk.raw"
    (start,) = volumes.make_disk(disk, [("linux", volume)], size=26 * MIB)
    target = tmp_path / "target.raw"
    for extra in ((), ("--delta",)):
        with target.open("wb") as file:
            file.write(random.Random(4).randbytes(3 * MIB))
            file.truncate(70 * MIB)
        result = program.ok("restore", disk, target, "--grow", "--force", "--json", *extra)
        assert result.json["grown"]["to"] == 68 * MIB
        assert result.json["size"] == target.stat().st_size == 70 * MIB
        assert table_of(target)["partitions"][0]["size"] == 68 * MIB // 512
        checked(target, start, 68 * MIB, "e2fsck", "-f", "-n")


def test_a_restore_that_was_killed_can_be_given_again(program: Program, tmp_path: Path) -> None:
    """Fails if there is a moment that leaves half a table, or a device that stays behind."""
    volume = make_volume(tmp_path, *EXT)
    (start,) = volumes.make_disk(tmp_path / "disk.raw", [("linux", volume)], size=26 * MIB)
    words = ("restore", "disk.raw", "new.raw", "--grow", "--size=70M", "--force")
    new = tmp_path / "new.raw"
    for wait_s in (0.2, 0.35, 0.45, 0.6):
        process = program.start(*words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.kill()
        process.communicate()
        if new.exists():
            assert table_of(new)["partitions"][0]["size"] == 68 * MIB // 512
            new.unlink()
    program.ok(*words)
    checked(new, start, 68 * MIB, "e2fsck", "-f", "-n")
    assert str(tmp_path) not in run("losetup", "--list", "--noheadings").stdout
