"""Files put into FAT images and removed by the command line."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20

pytestmark = pytest.mark.oracle("fsck.fat", "mcopy")


def checked(path: Path) -> None:
    """Fails if the checker has something to say against a file system."""
    subprocess.run(["fsck.fat", "-n", path], check=True)


def content_of(image: Path, name: str) -> bytes:
    """Of a file, as mtools read it."""
    command = ["mcopy", "-n", "-i", str(image), f"::{name}", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.oracle("qemu-img")
def test_files_come_and_go_by_the_command_line(program: Program, tmp_path: Path) -> None:
    """Fails if verbs refuse what people do with floppies, or change what they were not told to."""
    folder = tmp_path / "game"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "LEVEL1").write_bytes(b"1" * 3000)
    (folder / "run.exe").write_bytes(b"MZ")
    (folder / "loop").symlink_to(folder)
    program.ok("mkfs", "f.img", "--size", "1440K", "--label", "game")
    made = program.ok("put", "-r", folder, "f.img:/", "--json").json
    assert (made["files"], made["folders"], made["size"]) == (2, 2, 3002)
    assert made["skipped"] == [str(folder / "loop")]
    image = program.folder / "f.img"
    assert content_of(image, "game/data/LEVEL1") == b"1" * 3000
    program.refuses(5, "put", folder / "run.exe", "f.img:/game")
    program.ok("put", folder / "run.exe", "f.img:/game", "--force")
    program.ok("put", folder / "run.exe", "f.img:/OTHER.EXE")
    assert content_of(image, "other.exe") == b"MZ"
    program.refuses(2, "put", folder, "f.img:/")
    program.refuses(2, "put", folder / "run.exe", folder / "loop", "f.img:/NEW")
    program.refuses(3, "put", folder / "run.exe", "f.img:/nowhere/x")
    program.refuses(5, "rm", "f.img:/game")
    program.refuses(3, "rm", "f.img:/nothing")
    program.ok("rm", "-r", "f.img:/game")
    program.ok("mkdir", "-p", "f.img:/a/b/c", "f.img:/a/b")
    program.refuses(5, "mkdir", "f.img:/a")
    checked(image)
    program.refuses(5, "mkfs", "f.img")
    program.refuses(5, "mkfs", "f.img", "--size", "1440K")
    program.ok("mkfs", "f.img", "--force")
    checked(image)

    program.ok("mkfs", "d.qcow2", "--size", "64M", "--fat", "32")
    program.ok("put", folder / "data" / "LEVEL1", "d.qcow2:/")
    program.ok("convert", "d.qcow2", "d.raw")
    checked(program.folder / "d.raw")
    assert content_of(program.folder / "d.raw", "level1") == b"1" * 3000
    subprocess.run(["qemu-img", "check", program.folder / "d.qcow2"], check=True)
    program.refuses(2, "put", folder / "run.exe", "d.qcow2")


@pytest.mark.oracle("sfdisk", "mkfs.ext4")
def test_other_file_systems_and_partitions(program: Program, tmp_path: Path) -> None:
    """Fails if a partition's neighbour is written to, or another file system is."""
    disk = program.folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    table = "label: dos\nstart=2048, size=40960, type=e\nstart=43008, size=40960, type=83\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True)
    volume = program.folder / "ext4"
    with volume.open("wb") as file:
        file.truncate(20 * MIB)
    subprocess.run(["mkfs.ext4", "-q", volume], check=True)
    with disk.open("r+b") as file:
        file.seek(43008 * 512)
        file.write(volume.read_bytes())
    new = tmp_path / "x"
    new.write_bytes(b"content")
    program.ok("mkfs", "disk.img#p1", "--label", "part")
    program.ok("put", new, "disk.img#p1:/")
    after = disk.read_bytes()
    assert after[43008 * 512 :][: 20 * MIB] == volume.read_bytes()
    part = program.folder / "part.img"
    part.write_bytes(after[2048 * 512 : 43008 * 512])
    checked(part)
    assert content_of(part, "x") == b"content"
    program.refuses(4, "put", new, "disk.img#p2:/")
    program.refuses(5, "mkfs", "disk.img#p2")
    program.refuses(5, "mkfs", "disk.img")
