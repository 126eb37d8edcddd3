"""The assertions of NIST CFTT for acquisition tools, each with a test that names it.

Source: Digital Data Acquisition Tool Specification 4.0, and its Assertions and Test Plan 1.0.
AM-.. are mandatory; AO-.. hold if the tool supports what they are about. Further tests elsewhere
name those that they go deeper into.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.core.runs import Runs
from imprint.testing import oracles
from imprint.testing.bad_device import TOOLS, bad_device
from imprint.testing.volumes import attached, make_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.program import Program

ASSERTIONS: Final = (
    *("AM-01", "AM-02", "AM-03", "AM-04", "AM-05", "AM-06", "AM-07", "AM-08", "AM-09", "AM-10"),
    *("AO-01", "AO-02", "AO-03", "AO-04", "AO-05", "AO-06", "AO-07", "AO-08", "AO-09", "AO-10"),
    *("AO-11", "AO-12", "AO-13", "AO-14", "AO-15", "AO-16", "AO-17", "AO-18", "AO-19", "AO-20"),
    *("AO-21", "AO-22", "AO-23", "AO-24"),
)
NOT_SUPPORTED: Final = {
    "AO-10": "going on with an image on another device when the first is full",
    "AO-15": "clones whose partitions are moved to the borders of cylinders",
    "AO-18": "filling the sectors of a clone behind the end of the image",
}
"""What is no part of imprint, so that the assertion says nothing of it."""

MIB: Final = 1 << 20
SIZE: Final = 4 * MIB
CONTENT: Final = random.Random(34).randbytes(SIZE - MIB) + bytes(MIB - 512) + b"\x55" * 512
BAD: Final = [(512, 512), (MIB + 512, 7 * 512), (2 * MIB, 65536), (SIZE - 512, 512)]
LARGER: Final = b"\xee" * (SIZE + 2 * MIB)
BEHIND: Final = b"\xee" * MIB + bytes(MIB)
"""What is behind a clone then. The last MiB of a larger device is zeros, which
docs/reference/restore.md says: an old backup table there would belong to a disk that is gone."""
TESTS: Final = Path(__file__).resolve().parent.parent


def test_each_assertion_has_a_test_that_names_it() -> None:
    """Fails if an assertion is neither tested nor said to be out of scope, or is both."""
    named: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"(?i)a[mo][-_]\d\d", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = f"{node.name} {ast.get_docstring(node)}"
                named.update(
                    f"{kind.upper()}-{number}"
                    for kind, number in re.findall(r"(?i)(?<![a-z])(a[mo])[-_](\d\d)", said)
                )
    assert len(set(ASSERTIONS)) == 34
    assert named | set(NOT_SUPPORTED) == set(ASSERTIONS)
    assert not named & set(NOT_SUPPORTED)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A disk whose last sector is not zero."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@contextlib.contextmanager
def _device(path: Path, content: bytes) -> Iterator[str]:
    """A device to write."""
    path.write_bytes(content)
    with attached(path) as device:
        # A loop device remembers from its last user that it may not be written.
        oracles.run("blockdev", "--setrw", device)
        yield device


@contextlib.contextmanager
def _mounted(folder: Path, *words: str | Path) -> Iterator[Path]:
    point = folder / "mounted"
    point.mkdir()
    oracles.run("mount", *words, point)
    try:
        yield point
    finally:
        oracles.run("umount", point)


def _digest(content: bytes, name: str = "sha256") -> str:
    return hashlib.new(name, content, usedforsecurity=False).hexdigest()


def _without(bad: list[tuple[int, int]]) -> bytes:
    content = bytearray(CONTENT)
    for start, length in bad:
        content[start : start + length] = bytes(length)
    return bytes(content)


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev")
@pytest.mark.parametrize("kind", ["device", "partition", "file", "pipe"])
def test_am_01_am_02_am_06_every_kind_of_source_is_read_to_its_last_sector(
    program: Program, tmp_path: Path, kind: str
) -> None:
    """Fails if a source, by the interface that it has, is read in part, or otherwise than it is."""
    inner = tmp_path / "inner"
    inner.write_bytes(CONTENT)
    words, content = ["capture"], CONTENT
    with contextlib.ExitStack() as stack:
        stdin = b""
        if kind == "device":
            words.append(stack.enter_context(attached(inner)))
        elif kind == "partition":
            make_disk(tmp_path / "disk", [("L", inner)], size=8 * MIB)
            words.append("disk#p1")
        elif kind == "pipe":
            words.append("-")
            stdin = CONTENT
        else:
            words.append(inner.name)
        done = program(*words, "image.raw", "--json", stdin=stdin)
    assert done.exit_code == 0, done.err
    assert done.json["size"] == SIZE
    assert (tmp_path / "image.raw").read_bytes() == content


def test_am_03_the_environment_is_the_one_that_the_log_names(
    program: Program, source: Path
) -> None:
    """Fails if nobody can tell later where an image was made."""
    program.ok("capture", source, "image.E01")
    found = json.loads((program.folder / "image.E01.log.json").read_bytes())["environment"]
    system = os.uname()
    assert (found["system"], found["release"]) == (system.sysname, system.release)
    assert (found["host"], found["machine"]) == (system.nodename, system.machine)


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev", "mkfs.ext4", "mkfs.xfs", "mount", "umount")
@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
def test_am_05_an_image_is_made_on_any_file_system(
    program: Program, source: Path, tmp_path: Path, kind: str
) -> None:
    """Fails if an image depends on what it is stored on."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(320 * MIB)
    with contextlib.ExitStack() as stack:
        if kind == "tmpfs":
            point = stack.enter_context(_mounted(tmp_path, "-t", "tmpfs", "tmpfs"))
        else:
            oracles.run(f"mkfs.{kind}", "-q", backing)
            device = stack.enter_context(attached(backing))
            oracles.run("blockdev", "--setrw", device)
            point = stack.enter_context(_mounted(tmp_path, device))
        program.ok("capture", source, point / "image.raw", "--also", point / "image.E01")
        assert (point / "image.raw").read_bytes() == CONTENT
        program.ok("verify", point / "image.E01")


@pytest.mark.root
@pytest.mark.oracle(*TOOLS)
@pytest.mark.parametrize("target", ["image.raw", "image.E01", "repo:place::image"])
def test_am_08_am_09_am_10_a_failing_device_is_imaged_but_for_what_is_told(
    program: Program, tmp_path: Path, target: str
) -> None:
    """Fails if a good sector is lost, a bad one not told with its place, or holds old bytes."""
    program.ok("repo", "init", "place")
    with bad_device(tmp_path, CONTENT, BAD) as device:
        done = program("capture", device, target, "--json", "--hash", "sha256", "--log-to", "log")
    assert done.exit_code == 6, done.err
    found = done.json
    assert [(area["offset"], area["length"]) for area in found["bad"]] == BAD
    assert found["hashes"]["sha256"] == _digest(_without(BAD))
    log = json.loads((tmp_path / "log.log.json").read_bytes())
    assert [(area["first_sector"], area["last_sector"]) for area in log["bad"]] == [
        (start // 512, (start + length) // 512 - 1) for start, length in BAD
    ]
    program("convert", target, "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == _without(BAD)


@pytest.mark.oracle("qemu-img", "ewfinfo")
@pytest.mark.parametrize("target", ["i.raw", "i.E01", "i.Ex01", "i.aff4", "i.qcow2", "i.vhd"])
def test_ao_01_ao_02_ao_06_ao_07_ao_08_an_image_is_the_disk_in_its_format_and_can_prove_it(
    program: Program, source: Path, tmp_path: Path, target: str
) -> None:
    """Fails if an image is not the disk, not of the format, or changes that are not found."""
    marks = {"E01": b"EVF\t\r\n\xff\0", "Ex01": b"EVF2\r\n\x81\0", "aff4": b"PK\3\4"}
    found = program.ok("capture", source, target, "--hash", "sha256", "--verify", "--json").json
    assert found["verified"] is True
    suffix = target.rpartition(".")[2]
    assert found["format"] == suffix.lower()
    path = tmp_path / target
    assert path.read_bytes().startswith(marks.get(suffix, b""))
    if suffix in ("qcow2", "vhd"):
        name = {"vhd": "vpc"}.get(suffix, suffix)
        assert oracles.info(path)["format"] == name
    if suffix == "E01":
        oracles.run("ewfinfo", path)
    assert (
        program.ok("hash", target, "--json", "--hash", "sha256").json["hashes"]["sha256"]
        == (found["hashes"]["sha256"])
    )
    if suffix in ("E01", "Ex01", "aff4"):
        program.ok("verify", target)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
        changed = program("verify", target, "--json")
        assert changed.exit_code == 1
        places = changed.json["damage"]
        assert places
        assert all(0 <= place["offset"] < SIZE and place["length"] > 0 for place in places)


LIMITED: Final = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from imprint.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("target", ["image.raw", "image.E01"])
def test_ao_03_an_error_of_writing_an_image_is_told(source: Path, target: str) -> None:
    """Fails if an image that the system does not take any more of passes for a whole one."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "capture", "source", target, "--no-log"],
        cwd=source.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert target in done.stderr
    assert not (source.parent / target).exists()


@pytest.mark.root
@pytest.mark.oracle("mount", "umount")
@pytest.mark.parametrize("target", ["image.raw", "image.E01"])
def test_ao_04_a_full_disk_is_told(
    program: Program, source: Path, tmp_path: Path, target: str
) -> None:
    """Fails if an image that has no room passes for a whole one."""
    with _mounted(tmp_path, "-t", "tmpfs", "-o", "size=2M", "tmpfs") as point:
        done = program("capture", source, point / target)
        assert done.exit_code == 5
        assert "no space left" in done.err.lower()
        assert not (point / target).exists()


@pytest.mark.parametrize("target", ["i.001", "i.E01"])
def test_ao_05_no_segment_is_larger_than_asked(
    program: Program, source: Path, tmp_path: Path, target: str
) -> None:
    """Fails if a segment does not fit where it shall go, or the segments are not the disk."""
    program.ok("capture", source, target, "--split", "1M", "--no-log")
    segments = sorted(tmp_path.glob("i.*"))
    assert len(segments) >= 3
    assert all(path.stat().st_size <= MIB for path in segments)
    program.ok("convert", segments[0], "back.img", "-O", "raw")
    assert (tmp_path / "back.img").read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["b.E01", "b.aff4", "b.qcow2", "b.vmdk"])
def test_ao_09_another_format_holds_the_same(
    program: Program, source: Path, tmp_path: Path, target: str
) -> None:
    """Fails if a conversion changes the data, or loses which of it could not be read."""
    program.ok("capture", source, "a.E01", "--no-log")
    program.ok("convert", "a.E01", target)
    program.ok("convert", target, "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == CONTENT


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev")
def test_am_04_ao_11_ao_13_ao_14_ao_17_ao_24_a_clone_is_made_while_the_disk_is_imaged(
    program: Program, source: Path, tmp_path: Path
) -> None:
    """Fails if a sector is not in its place, what lies behind is touched, or the source changes."""
    before = source.stat().st_mtime_ns
    with attached(source) as original, _device(tmp_path / "clone", LARGER) as copy:
        program.ok("capture", original, "image.E01", "--also", copy, "--force", "--verify")
    assert (tmp_path / "clone").read_bytes() == CONTENT + BEHIND
    assert source.read_bytes() == CONTENT
    assert source.stat().st_mtime_ns == before
    program.ok("verify", "image.E01")


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev", "sfdisk")
@pytest.mark.parametrize("part", ["", "#p2"])
def test_ao_12_ao_14_ao_16_ao_17_a_clone_is_made_of_an_image_or_a_part_of_it(
    program: Program, source: Path, tmp_path: Path, part: str
) -> None:
    """Fails if a sector is not in its place, is missing, or what lies behind is touched."""
    whole = source
    if part:
        whole = tmp_path / "disk"
        make_disk(whole, [("L", source), ("L", source)], size=16 * MIB)
    program.ok("capture", whole, "image.E01", "-f", "raw", "--no-log")
    with _device(tmp_path / "clone", LARGER) as device:
        program.ok("restore", f"image.E01{part}", device, "--force")
    assert (tmp_path / "clone").read_bytes() == CONTENT + BEHIND


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev", "sfdisk")
def test_ao_19_ao_20_a_smaller_clone_is_made_only_if_asked_for(
    program: Program, source: Path, tmp_path: Path
) -> None:
    """Fails if somebody takes a truncated clone for a whole one, or the part that fits is not all.

    Without the option nothing is written; with it, all partitions are on the clone.
    """
    make_disk(tmp_path / "disk", [("L", source)], size=12 * MIB)
    program.ok("capture", "disk", "image.E01", "-f", "raw", "--no-log")
    untouched = b"\xee" * (8 * MIB)
    with _device(tmp_path / "clone", untouched) as device:
        said = program.refuses(5, "restore", "image.E01", device, "--force")
        assert str(12 * MIB) in said[0]
        assert str(8 * MIB) in said[0]
        assert (tmp_path / "clone").read_bytes() == untouched
        program.ok("restore", "image.E01", device, "--force", "--shrink-to-fit")
    clone = (tmp_path / "clone").read_bytes()
    assert clone[MIB : MIB + SIZE] == CONTENT
    oracles.run("sfdisk", "--verify", tmp_path / "clone")


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev", "mount", "umount")
def test_ao_21_an_error_of_writing_a_clone_is_told(
    program: Program, source: Path, tmp_path: Path
) -> None:
    """Fails if a clone that lacks sectors passes for a whole one.

    The device is a file with holes on a file system that is full.
    """
    with _mounted(tmp_path, "-t", "tmpfs", "-o", "size=1M", "tmpfs") as point:
        backing = point / "backing"
        with backing.open("wb") as file:
            file.truncate(SIZE)
        with attached(backing) as device:
            oracles.run("blockdev", "--setrw", device)
            done = program("capture", source, device, "--force")
    assert done.exit_code == 5, done.err
    assert device in done.messages[0]


@pytest.mark.oracle("split", "sha1sum")
def test_ao_22_hashes_of_blocks_are_those_of_other_tools(
    program: Program, source: Path, tmp_path: Path
) -> None:
    """Fails if hashes of blocks cannot be compared with anything."""
    words = ("--piecewise", "1M", "--hash", "sha1", "--no-log", "--json")
    found = program.ok("capture", source, "image.E01", *words).json["pieces"]
    oracles.run("split", "-b", "1M", source, tmp_path / "part.")
    said = oracles.run("sha1sum", *sorted(tmp_path.glob("part.*"))).stdout.splitlines()
    assert [piece["hashes"]["sha1"] for piece in found] == [line.split()[0] for line in said]


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev")
def test_ao_23_ao_24_the_log_is_true_and_the_source_is_not_written(
    program: Program, source: Path, tmp_path: Path
) -> None:
    """Fails if the log says what is not so, or a source that may be written is opened for that."""
    with attached(source) as device:
        oracles.run("blockdev", "--setro", device)
        words = ("--require-read-only", "--hash", "md5,sha1", "--examiner", "m.e.")
        program.ok("capture", device, "image.E01", *words)
        log: dict[str, Any] = json.loads((tmp_path / "image.E01.log.json").read_bytes())
        oracles.run("blockdev", "--setrw", device)
    assert source.read_bytes() == CONTENT
    assert log["hashes"]["read"] == {name: _digest(CONTENT, name) for name in ("md5", "sha1")}
    assert log["source"]["medium"]["size"] == log["size"] == SIZE
    assert log["source"]["medium"]["is_read_only"] is True
    assert log["case"] == {"examiner": "m.e."}
    assert (log["result"], log["bad"]) == ("done", [])
    assert Runs.of([(0, SIZE)]).total == log["bytes_read"]
