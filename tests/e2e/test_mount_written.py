"""Folders of a mounted disk that is written meanwhile: they show what is there now."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.oracles import run
from imprint.testing.volumes import make_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.program import Program

MIB: Final = 1 << 20
LINUX: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
DATA: Final = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
OLD: Final = b"was there before\n" * 9000

pytestmark = [
    pytest.mark.oracle("fusermount3", "mkfs.ext4", "mkfs.vfat", "mcopy", "debugfs", "sfdisk"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse"),
]


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a file, and one more file in a folder."""
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "old").write_bytes(OLD)
    (folder / "sub" / "deep").write_bytes(b"deep")
    return folder


@pytest.fixture
def disk(tmp_path: Path, files: Path) -> Path:
    """A disk with ext4 in its first partition and FAT in its second one; 20 MiB are free."""
    ext4, fat = empty(tmp_path / "ext4", 16 * MIB), empty(tmp_path / "fat", 16 * MIB)
    run("mkfs.ext4", "-q", "-d", files, ext4)
    run("mkfs.vfat", fat)
    run("mcopy", "-i", fat, files / "old", "::old")
    path = tmp_path / "disk.raw"
    make_disk(path, [(LINUX, ext4), (DATA, fat)], size=56 * MIB)
    return path


@pytest.fixture
def point(program: Program, disk: Path) -> Iterator[Path]:
    """The disk, mounted for writing."""
    folder = program.folder / "mounted"
    folder.mkdir()
    before = disk.read_bytes()
    program.ok("mount", disk.name, folder, "--cow", "changes.qcow2")
    yield folder
    program.ok("unmount", folder)
    assert disk.read_bytes() == before


def change(partition: Path, *requests: str) -> None:
    """Let debugfs change a file system of ext4."""
    run("debugfs", "-w", "-f", "-", partition, stdin="\n".join(requests).encode())


def listed(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_what_is_copied_into_a_partition_is_in_its_folder(program: Program, point: Path) -> None:
    """Fails if the folders show the image, or the kernel what it has seen there before."""
    new = program.folder / "new file"
    assert listed(point / "p2") == ["old"]
    assert not (point / "p2" / "new file").exists()
    for number in range(3):
        new.write_bytes(b"%d " % number * (1000 + number * 40_000))
        run("mcopy", "-o", "-i", point / "p2.raw", new, "::new file")
        assert (point / "p2" / "new file").stat().st_size == new.stat().st_size
        assert (point / "p2" / "new file").read_bytes() == new.read_bytes()
        assert listed(point / "p2") == ["new file", "old"]
    run("mmd", "-i", point / "p2.raw", "::folder")
    run("mcopy", "-i", point / "p2.raw", new, "::folder/copy")
    assert (point / "p2" / "folder" / "copy").read_bytes() == new.read_bytes()
    run("mdel", "-i", point / "p2.raw", "::new file")
    assert not (point / "p2" / "new file").exists()
    assert (point / "p2" / "old").read_bytes() == OLD
    assert (point / "p1" / "old").read_bytes() == OLD


def test_what_debugfs_changes_is_changed_in_the_folder(program: Program, point: Path) -> None:
    """Fails if facts of a file, or names deep in a tree, stay as they were."""
    new = program.folder / "new"
    new.write_bytes(os.urandom(300_000))
    top = point / "p1"
    assert (top / "sub" / "deep").read_bytes() == b"deep"
    change(
        point / "p1.raw",
        *(f"write {new} sub/new", "symlink sub/link deep", "rm old"),
        *("set_inode_field sub/deep mode 0100640", "set_inode_field sub/deep mtime @1234567890"),
    )
    assert listed(top) == ["lost+found", "sub"]
    assert listed(top / "sub") == ["deep", "link", "new"]
    assert (top / "sub" / "new").read_bytes() == new.read_bytes()
    assert (top / "sub" / "link").read_bytes() == b"deep"
    facts = (top / "sub" / "deep").stat()
    assert (facts.st_mode, facts.st_mtime) == (0o100640, 1234567890)
    assert not (top / "old").exists()


def test_a_file_that_is_open_stays_what_it_was(program: Program, point: Path) -> None:
    """Fails if who reads a file gets bytes, or the end, of another one with its name."""
    new = program.folder / "new"
    new.write_bytes(b"something else " * 100)
    with (point / "p1" / "old").open("rb", buffering=0) as first:
        assert first.read(5000) == OLD[:5000]
        change(point / "p1.raw", f"write {new} new", "unlink old", "ln new old", "unlink new")
        with (point / "p1" / "old").open("rb", buffering=0) as second:
            assert second.read(30) == new.read_bytes()[:30]
            assert os.pread(first.fileno(), 30, 0) == OLD[:30]
            assert first.read(5000) == OLD[5000:10_000]
            assert second.read(30) == new.read_bytes()[30:60]
            assert first.read() == OLD[10_000:]
        (point / "p1" / "old").stat()
        assert os.pread(first.fileno(), 100_000, 50_000) == OLD[50_000:150_000]


def test_many_open_files_of_many_states_are_bounded(program: Program, point: Path) -> None:
    """Fails if each state that has an open file is a process more, or one ends too early."""
    new = program.folder / "new"
    server = json.loads((point / ".imprint").read_text())["pid"]

    def helpers() -> int:
        threads = Path(f"/proc/{server}/task").glob("*/children")
        return sum(len(thread.read_text().split()) for thread in threads)

    opened = []
    for number in range(30):
        new.write_bytes(b"%d" % number)
        run("mcopy", "-o", "-i", point / "p2.raw", new, "::new")
        opened.append((point / "p2" / "old").open("rb"))
    assert helpers() <= 12
    for file in opened:
        with file:
            assert file.read() == OLD
    assert (point / "p2" / "new").read_bytes() == b"29"
    assert helpers() <= 2


def test_a_file_system_that_is_made_anew_is_shown(point: Path, files: Path) -> None:
    """Fails if a partition is taken for what it was, or a folder stays of what is none."""
    assert listed(point / "p2") == ["old"]
    run("mkfs.ext4", "-q", "-F", "-d", files, point / "p2.raw")
    assert listed(point / "p2") == ["lost+found", "old", "sub"]
    assert (point / "p2" / "sub" / "deep").read_bytes() == b"deep"
    with (point / "p1.raw").open("r+b") as file:
        file.write(bytes(MIB))
    assert listed(point) == ["disk.raw", "p1.raw", "p2", "p2.raw"]
    with pytest.raises(FileNotFoundError):
        (point / "p1").stat()
    run("mkfs.vfat", point / "p1.raw")
    assert listed(point / "p1") == []


def test_a_partition_that_is_made_is_there(point: Path, files: Path) -> None:
    """Fails if a new table counts only after the next mount."""
    start, size = 34 * MIB // 512, 16 * MIB // 512
    line = f"start={start},size={size},type={LINUX}".encode()
    run("sfdisk", "-q", "--no-reread", "--append", point / "disk.raw", stdin=line)
    assert listed(point) == ["disk.raw", "p1", "p1.raw", "p2", "p2.raw", "p3.raw"]
    assert (point / "p3.raw").stat().st_size == 16 * MIB
    run("mkfs.ext4", "-q", "-F", "-d", files, point / "p3.raw")
    assert (point / "p3" / "old").read_bytes() == OLD
    with (point / "disk.raw").open("rb") as file:
        file.seek(start * 512 + 1024 + 56)
        assert file.read(2) == b"\x53\xef"  # ext4's magic
    run("sfdisk", "-q", "--no-reread", "--delete", point / "disk.raw", "2")
    assert listed(point) == ["disk.raw", "p1", "p1.raw", "p3", "p3.raw"]


def test_an_overlay_that_is_taken_up_again_is_shown(program: Program, disk: Path) -> None:
    """Fails if the folders of a second mount show the image."""
    folder = program.folder / "again"
    folder.mkdir()
    new = program.folder / "new"
    new.write_bytes(b"new")
    for number in range(2):
        program.ok("mount", disk.name, folder, "--cow", "kept.qcow2")
        if number == 0:
            run("mcopy", "-i", folder / "p2.raw", new, "::new")
            run("mkfs.vfat", folder / "p1.raw")
        assert listed(folder / "p2") == ["new", "old"]
        assert listed(folder / "p1") == []
        program.ok("unmount", folder)


@pytest.mark.oracle("cryptsetup")
def test_files_in_a_container_are_those_of_now(program: Program, files: Path) -> None:
    """Fails if what is written into an encrypted volume does not show in its folder."""
    folder, secret = program.folder / "again", program.folder / "secret"
    folder.mkdir()
    secret.write_text("secret")
    (program.folder / "key").write_bytes(bytes(range(64)))
    volumes = [empty(program.folder / name, 16 * MIB) for name in ("before", "after")]
    run("mkfs.ext4", "-q", "-d", files, volumes[0])
    shutil.copy(volumes[0], volumes[1])
    change(volumes[1], f"write {files / 'old'} new", "rm old")
    for volume in volumes:
        with volume.open("r+b") as file:
            file.truncate(48 * MIB)
        run(
            *("cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "-q"),
            *("--force-offline-reencrypt", "--reduce-device-size", "32M", "--key-size", "512"),
            *("--volume-key-file", program.folder / "key", "--key-file", secret),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", volume),
        )
    facts = run("cryptsetup", "luksDump", "--dump-json-metadata", volumes[1]).stdout
    start = int(json.loads(facts)["segments"]["0"]["offset"])
    path = program.folder / "luks.raw"
    make_disk(path, [(LINUX, volumes[0])], size=56 * MIB)
    program.environment["IMPRINT_PASSPHRASE"] = "secret"
    program.ok("mount", path.name, folder, "--cow", "memory")
    try:
        assert listed(folder / "p1-luks") == ["lost+found", "old", "sub"]
        with (folder / "p1.raw").open("r+b") as disk:
            disk.seek(start)
            disk.write(volumes[1].read_bytes()[start:])
        assert listed(folder / "p1-luks") == ["lost+found", "new", "sub"]
        assert (folder / "p1-luks" / "new").read_bytes() == OLD
        assert (folder / "p1-luks.raw").read_bytes()[1080:1082] == b"\x53\xef"
        with (folder / "p1.raw").open("r+b") as disk:
            disk.write(bytes(start))
        assert listed(folder) == ["disk.raw", "p1.raw"]
    finally:
        program.ok("unmount", folder)
