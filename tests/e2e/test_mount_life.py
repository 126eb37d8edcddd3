"""How mounts begin, are written to, and end, whatever happens."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.testing.oracles import check, content, is_equal, run
from imprint.testing.volumes import make_disk, mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.testing.program import Program

MIB: Final = 1 << 20
LINUX: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
PATIENCE_S: Final = 30.0

pytestmark = [
    pytest.mark.oracle("fusermount3", "mkfs.ext4", "sfdisk"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with a partition of ext4 that has one file."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "old").write_text("was there before")
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", "-d", files, volume)
    path = tmp_path / "disk.raw"
    make_disk(path, [(LINUX, volume)], size=20 * MIB)
    return path


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; whatever is left there in the end is taken away."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    yield folder
    while is_mounted(folder):
        run("umount", "-l", folder)


def is_mounted(point: Path) -> bool:
    return f" {point} " in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has asked for yet has."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_there_when_the_command_returns_and_gone_after_the_other(
    program: Program,
    disk: Path,
    point: Path,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if a script has to wait for either."""
    made = program.ok("mount", disk.name, point, "--json").json
    assert (point / "p1" / "old").read_text() == "was there before"
    assert made["disks"] == ["disk.raw", "p1.raw"]
    assert made["trees"] == ["p1"]
    assert made["cow"] is None
    done = program.ok("unmount", point, "--json").json
    assert done == {"folder": str(point), "pid": made["pid"], "image": disk.name}
    assert gone(made["pid"])
    assert list(point.iterdir()) == []
    documented("mount", made)
    documented("unmount", done)


def test_what_cannot_be_mounted_is_told_in_one_line(
    program: Program, disk: Path, point: Path
) -> None:
    """Fails if a mistake leaves the user with a traceback, a library's words, or a mount."""
    assert "found nothing" in program.refuses(5, "mount", disk.name, "missing")[0]
    assert "something else" in program.refuses(5, "mount", disk.name, disk.name)[0]
    assert "with files" in program.refuses(5, "mount", disk.name, "files")[0]
    assert "missing.raw" in program.refuses(3, "mount", "missing.raw", point)[0]
    assert "no partition 7" in program.refuses(2, "mount", f"{disk.name}#p7", point)[0]
    assert "no such user" in program.refuses(2, "mount", disk.name, point, "--owner", "nobody?")[0]
    assert "nothing is mounted" in program.refuses(2, "unmount", point)[0]
    assert "none of ours" in program.refuses(2, "unmount", "/proc")[0]
    program.ok("mount", disk.name, point)
    assert program.refuses(5, "mount", disk.name, point)
    program.ok("unmount", point)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(program: Program, disk: Path, point: Path, number: signal.Signals) -> None:
    """Fails if a shutdown, or Ctrl-C, leaves a dead folder."""
    pid = program.ok("mount", disk.name, point, "--json").json["pid"]
    assert (point / "p1" / "old").exists()
    os.kill(pid, number)
    assert gone(pid)
    assert not is_mounted(point)


def test_in_the_foreground_it_stays_until_it_is_stopped(
    program: Program, disk: Path, point: Path
) -> None:
    """Fails if ``--foreground`` does not serve a supervisor."""
    process = program.start("mount", disk.name, point, "--foreground", "--json")
    assert process.stdout is not None
    assert b'"p1.raw"' in process.stdout.readline()
    assert (point / "p1" / "old").exists()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert not is_mounted(point)


def test_nobody_who_listens_is_no_reason_to_wait(program: Program, disk: Path, point: Path) -> None:
    """Fails if the program hangs, or stays in the background, where its result cannot be told."""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        [sys.executable, "-m", "imprint", "mount", disk.name, point, "--json"],
        cwd=program.folder,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert process.communicate(timeout=PATIENCE_S)[1] == b""
    assert process.returncode == 141
    assert not is_mounted(point)


def test_without_libfuse_it_says_what_is_missing(program: Program, disk: Path, point: Path) -> None:
    """Fails if a machine without FUSE shows the words of a module that nobody knows."""
    program.environment["FUSE_LIBRARY_NAME"] = "no-such-library"
    messages = program.refuses(4, "mount", disk.name, point)
    assert "needs libfuse" in messages[0]
    assert "fuse3" in messages[1]


def test_another_program_may_unmount(program: Program, disk: Path, point: Path) -> None:
    """Fails if the process outlives ``umount`` or ``fusermount3 -u``."""
    for words in (
        ["fusermount3", "-u"],
        ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"],
    ):
        pid = program.ok("mount", disk.name, point, "--json").json["pid"]
        run(*words, point)
        assert gone(pid)


def test_what_was_killed_is_in_nobodys_way(program: Program, disk: Path, point: Path) -> None:
    """Fails if a folder stays dead after a crash: neither mounted again nor unmounted."""
    for _ in range(2):
        pid = program.ok("mount", disk.name, point, "--json").json["pid"]
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
    program.ok("mount", disk.name, point)
    assert (point / "p1" / "old").exists()
    program.ok("unmount", point)


def test_what_is_in_use_is_left_unless_it_is_let_go(
    program: Program, disk: Path, point: Path
) -> None:
    """Fails if an open file is torn away from its reader, even by ``--lazy``."""
    pid = program.ok("mount", disk.name, point, "--json").json["pid"]
    with (point / "p1" / "old").open() as file:
        assert "in use" in program.refuses(5, "unmount", point)[0]
        program.ok("unmount", point, "--lazy")
        assert not is_mounted(point)
        assert file.read() == "was there before"
    assert gone(pid)


@pytest.mark.root
@pytest.mark.oracle("qemu-img", "losetup")
def test_what_is_written_goes_into_the_overlay_and_nowhere_else(
    program: Program, disk: Path, point: Path
) -> None:
    """Fails if the image changes, a write is lost, or QEMU cannot use what came of it."""
    before = digest(disk)
    program.ok("mount", disk.name, point, "--cow", "changes.qcow2")
    with mounted(point / "p1.raw") as place:
        (place / "new").write_bytes(b"written" * 100_000)
        (place / "old").unlink()
    program.ok("unmount", point)
    overlay = program.folder / "changes.qcow2"
    check(overlay, "qcow2")
    assert digest(disk) == before
    after = program.folder / "after.raw"
    after.write_bytes(content(overlay, "qcow2"))
    with mounted(after, "ro", f"offset={MIB}") as place:
        assert (place / "new").read_bytes() == b"written" * 100_000
        assert not (place / "old").exists()
    program.ok("mount", disk.name, point, "--cow", "changes.qcow2")
    with mounted(point / "p1.raw", "ro") as place:
        assert (place / "new").stat().st_size == 700_000
    program.ok("unmount", point)
    assert is_equal(overlay, after, first_format="qcow2", second_format="raw")
    assert digest(disk) == before


@pytest.mark.root
@pytest.mark.oracle("qemu-img", "fstrim")
def test_what_is_discarded_gives_its_room_back(program: Program, disk: Path, point: Path) -> None:
    """Fails if an overlay only ever grows."""
    program.ok("mount", disk.name, point, "--cow", "changes.qcow2")
    overlay = program.folder / "changes.qcow2"
    with mounted(point / "p1.raw") as place:
        (place / "large").write_bytes(os.urandom(8 * MIB))
        os.sync()
        assert overlay.stat().st_blocks * 512 > 8 * MIB
        (place / "large").unlink()
        os.sync()
        run("fstrim", place)
    program.ok("unmount", point)
    assert overlay.stat().st_blocks * 512 < 3 * MIB
    check(overlay, "qcow2")


def test_an_overlay_in_memory_leaves_nothing(program: Program, disk: Path, point: Path) -> None:
    """Fails if what was to be forgotten stays somewhere, or cannot be read while it is there."""
    before = sorted(program.folder.iterdir())
    program.ok("mount", disk.name, point, "--cow", "memory")
    with (point / "disk.raw").open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"for now", 5 * MIB)
    with (point / "disk.raw").open("rb") as file:
        file.seek(5 * MIB)
        assert file.read(7) == b"for now"
    program.ok("unmount", point)
    assert sorted(program.folder.iterdir()) == before


@pytest.mark.oracle("qemu-img", "mkfs.ext4")
def test_disks_can_be_written_like_files(program: Program, disk: Path, point: Path) -> None:
    """Fails if a range is written elsewhere, zeros are not zeros, or a disk changes its size."""
    program.ok("mount", disk.name, point, "--cow", "changes.qcow2")
    for refused in ("p1/new", "new"):
        with pytest.raises(OSError, match="Read-only"):
            (point / refused).write_bytes(b"x")
    with pytest.raises(OSError, match="Read-only"):
        (point / "p1" / "old").write_bytes(b"x")
    with pytest.raises(OSError, match="Read-only"):
        (point / "p1" / "old").unlink()
    expected = bytearray(disk.read_bytes())
    with (point / "disk.raw").open("r+b", buffering=0) as file:
        for offset, length in ((0, 10), (MIB - 5, 5000), (3 * MIB + 7, 300_001), (20 * MIB - 9, 9)):
            data = os.urandom(length)
            assert os.pwrite(file.fileno(), data, offset) == length
            expected[offset : offset + length] = data
        os.fsync(file.fileno())
        subprocess.run(
            ["fallocate", "--punch-hole", "-o", "5000000", "-l", "1000000", file.name], check=True
        )
        expected[5_000_000:6_000_000] = bytes(1_000_000)
        with pytest.raises(OSError, match="not permitted"):
            file.truncate(MIB)
        with pytest.raises(OSError, match="No space left"):
            os.pwrite(file.fileno(), b"x", 20 * MIB)
    with (point / "p1.raw").open("r+b", buffering=0) as file:
        file.write(b"by the partition")
        expected[MIB : MIB + 16] = b"by the partition"
    assert (point / "disk.raw").read_bytes() == expected
    with pytest.raises(OSError, match="not permitted"):
        (point / "disk.raw").write_bytes(b"")
    program.ok("unmount", point)
    check(program.folder / "changes.qcow2", "qcow2")
    assert content(program.folder / "changes.qcow2", "qcow2") == expected


@pytest.mark.oracle("qemu-img")
def test_what_was_made_durable_survives_a_crash(program: Program, disk: Path, point: Path) -> None:
    """Fails if ``fsync`` on a disk promises what is not so."""
    pid = program.ok("mount", disk.name, point, "--cow", "changes.qcow2", "--json").json["pid"]
    # Nobody is there any more when it is closed.
    with contextlib.suppress(OSError), (point / "disk.raw").open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"durable" * 30_000, 7 * MIB)
        os.fsync(file.fileno())
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
    found = content(program.folder / "changes.qcow2", "qcow2")
    assert found[7 * MIB : 7 * MIB + 210_000] == b"durable" * 30_000


def test_an_overlay_belongs_to_its_disk(program: Program, disk: Path, point: Path) -> None:
    """Fails if changes of one disk are laid over another, or a file that is none is overwritten."""
    program.ok("mount", disk.name, point, "--cow", "changes.qcow2")
    program.ok("unmount", point)
    other = program.folder / "other.raw"
    other.write_bytes(bytes(20 * MIB))
    assert program.refuses(5, "mount", other.name, point, "--cow", "changes.qcow2")
    (program.folder / "text").write_text("not an overlay")
    assert program.refuses(5, "mount", disk.name, point, "--cow", "text")
    assert (program.folder / "text").read_text() == "not an overlay"
    assert not is_mounted(point)
