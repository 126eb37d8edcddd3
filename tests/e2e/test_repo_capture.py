"""Disks in repositories, through the command line: what goes in comes out, and says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
SIZE = 8 * MIB
DATA = 3 * 70_000
"""Bytes of data on ``disk.raw``, in three places."""


@pytest.fixture
def place(program: Program) -> str:
    """An empty repository."""
    program.ok("repo", "init", "r")
    return "repo:r"


def test_capture_says_all_that_scripts_count_on(
    program: Program, disk: Path, place: str, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if a fixed key is missing, or the hashes are not those of the disk."""
    target = f"{place}::disk"
    found = program.ok("capture", disk, target, "--hash", "md5,sha256", "--verify", "--json").json
    documented("capture", found)
    assert found["size"] == SIZE
    assert DATA <= found["bytes_read"] < SIZE
    assert DATA <= found["bytes_stored"] < SIZE
    assert found["bad"] == []
    assert found["verified"] is True
    assert found["image"] == "disk"
    content = disk.read_bytes()
    merkle = found["hashes"].pop("merkle")
    assert found["hashes"] == {
        name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha256")
    }
    info = program.ok("info", target, "--json").json
    documented("info", info)
    assert info["format"] == "repository"
    assert info["size"] == SIZE
    assert info["stored_size"] == found["bytes_stored"]
    assert info["snapshot"] == found["snapshot"]
    assert info["hashes"] == {**found["hashes"], "merkle": merkle}
    assert info["parent"] is None
    assert found["snapshot"][:12] in program.ok("info", target).text


def test_no_hashes_are_taken_unless_they_are_asked_for(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if a capture into a repository costs a hash that its tree has anyway."""
    found = program.ok("capture", disk, f"{place}::disk", "--json").json
    assert list(found["hashes"]) == ["merkle"]


def test_a_second_capture_stores_nothing_and_a_third_what_is_new(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if what is there already is stored again, or what is new is not found."""
    target = f"{place}::disk"
    first = program.ok("capture", disk, target, "--json").json
    second = program.ok("capture", disk, target, "--json").json
    assert second["hashes"] == first["hashes"]
    assert second["snapshot"] != first["snapshot"]
    assert second["bytes_stored"] == 0
    with disk.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(random.Random(9).randbytes(4096))
    third = program.ok("capture", disk, target, "--json").json
    assert third["hashes"] != first["hashes"]
    assert 4096 <= third["bytes_stored"] < DATA
    lines = program.ok("repo", "list", "r", "disk", "--json").json_lines
    assert [line["snapshot"] for line in lines] == [
        item["snapshot"] for item in (first, second, third)
    ]
    assert [line["stored"] for line in lines] == [
        item["bytes_stored"] for item in (first, second, third)
    ]
    assert all(line["image"] == "disk" and line["size"] == SIZE for line in lines)
    assert lines == sorted(lines, key=lambda line: line["time"])
    program.ok("compare", target, disk, "--strict")
    older = program(
        "compare", f"{target}@{first['snapshot'][:8]}", disk, "--json", "--progress", "none"
    )
    assert older.exit_code == 1
    assert older.json["first_difference"] == 5 * MIB
    info = program.ok("info", target, "--json").json
    assert info["parent"] == second["snapshot"]


def test_an_image_whose_files_are_as_they_were_is_not_read_again(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if an unchanged image costs reading it, or ``--reread`` does not read it."""
    os.utime(disk, (0, 0))  # files that changed just now are not trusted
    target = f"{place}::disk"
    assert program.ok("capture", disk, target, "--json").json["bytes_read"] >= DATA
    # The inode's own time of change is of this very moment, and may count as young.
    found = [program.ok("capture", disk, target, "--json").json for _ in range(2)]
    assert found[1]["bytes_read"] in (0, found[0]["bytes_read"])
    assert program.ok("capture", disk, target, "--reread", "--json").json["bytes_read"] >= DATA


@pytest.mark.oracle("qemu-img", "qemu-io")
@pytest.mark.parametrize("other", ["--reread", "--bitmap=b", "--hash=md5"])
def test_times_are_trusted_only_if_nothing_else_says_what_to_read(
    program: Program, disk: Path, place: str, other: str
) -> None:
    """Fails if options contradict each other and one of them is ignored."""
    failed = program("capture", disk, f"{place}::disk", "--trust-times", other)
    assert failed.exit_code == 2
    assert "--trust-times makes no sense with" in failed.err
    to_file = program("capture", disk, "copy.qcow2", "--trust-times")
    assert "--trust-times is for snapshots" in to_file.err


def test_a_disk_without_file_systems_is_read_whole_whatever_is_trusted(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if what nobody knows counts as unchanged, or nothing is said of that."""
    target = f"{place}::disk"
    for _ in range(2):
        disk.touch()  # as an image file, it is one that has changed
        found = program.ok("capture", disk, target, "--trust-times", "--json")
        assert found.json["bytes_read"] >= DATA
    assert "what it holds is not known" in found.err
    program.ok("compare", target, disk, "--strict")


def test_a_bitmap_says_what_to_read(program: Program, disk: Path, place: str) -> None:
    """Fails if what a bitmap has noted is not captured, or all is read in spite of it."""
    disk.write_bytes(random.Random(2).randbytes(32 * MIB))
    image = program.folder / "disk.qcow2"
    oracles.convert(disk, image, "qcow2")
    oracles.qemu_img("bitmap", "--add", image, "since")
    target = f"{place}::disk"
    assert program.ok("capture", image, target, "--json").json["bytes_read"] == 32 * MIB
    oracles.qemu_io(image, "qcow2", "write -P 7 20M 64k", writable=True)
    found = program.ok("capture", image, target, "--bitmap", "since", "--json").json
    assert 0 < found["bytes_read"] <= 10 * MIB
    assert found["bytes_stored"] < 2 * MIB
    program.ok("compare", target, image, "--strict")
    wrong = program("capture", image, target, "--bitmap", "nobody")
    assert wrong.exit_code == 2
    assert "nobody" in wrong.err
    program.refuses(4, "capture", disk, target, "--bitmap", "since")
    program.refuses(2, "capture", image, "out.raw", "--bitmap", "since")


@pytest.mark.oracle("qemu-img")
def test_what_is_restored_or_converted_is_what_was_captured(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if a snapshot does not come out as it went in, by whatever way."""
    target = f"{place}::disk"
    oracles.convert(disk, program.folder / "disk.vmdk", "vmdk")
    program.ok("convert", "disk.vmdk", target)
    found = program.ok("restore", target, "back.raw", "--json").json
    back = program.folder / "back.raw"
    assert back.read_bytes() == disk.read_bytes()
    assert found["bytes_written"] + found["bytes_skipped"] == SIZE
    program.ok("convert", target, "back.qcow2")
    qcow2 = program.folder / "back.qcow2"
    oracles.check(qcow2, "qcow2")
    assert oracles.is_equal(disk, qcow2, first_format="raw", second_format="qcow2")
    streamed = program.ok("convert", target, "-", "-O", "raw").out
    assert streamed == disk.read_bytes()
    with back.open("r+b") as file:
        file.seek(4 * MIB)
        file.write(b"other")
    delta = program.ok("restore", target, "back.raw", "--delta", "--force", "--json").json
    assert back.read_bytes() == disk.read_bytes()
    assert 0 < delta["bytes_written"] <= 1 * MIB


def test_hashes_and_maps_of_a_snapshot_are_those_of_the_disk(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if verbs that only read see another disk in the repository."""
    target = f"{place}::disk"
    program.ok("capture", disk, target)
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    hashed = program.ok("hash", target, "--hash", "sha256", "--json").json
    assert hashed["hashes"] == {"sha256": digest}
    runs = program.ok("map", target, "--json").json_lines
    assert runs[0]["offset"] == 0
    assert runs[-1]["offset"] + runs[-1]["length"] == SIZE
    assert {run["kind"] for run in runs} <= {"data", "zero", "hole"}
    assert DATA <= sum(run["length"] for run in runs if run["kind"] == "data") < SIZE


def test_snapshots_are_chosen_by_time_and_by_name(program: Program, disk: Path, place: str) -> None:
    """Fails if a time chooses a snapshot that was not there yet, or not the newest that was."""
    names = []
    for day, byte in ((1, b"a"), (3, b"b")):
        disk.write_bytes(byte * 4096)
        program.environment["SOURCE_DATE_EPOCH"] = str(1_767_225_600 + (day - 1) * 86_400)
        names.append(program.ok("capture", disk, f"{place}::disk", "--json").json["snapshot"])
    program.environment["TZ"] = "UTC"

    def chosen(selector: str) -> str:
        snapshot = program.ok("info", f"{place}::disk@{selector}", "--json").json["snapshot"]
        assert isinstance(snapshot, str)
        return snapshot

    assert chosen("2026-01-02") == names[0]
    assert chosen("2026-01-02T23:59:59") == names[0]
    assert chosen("2026-01-03T00:00") == names[1]
    assert chosen("2027-01-01") == names[1]
    assert chosen(names[0][:6]) == names[0]
    assert program.ok("hash", f"{place}::disk@{names[0]}", "--json").json["size"] == 4096
    assert "2026-01-01" in program.refuses(2, "info", f"{place}::disk@2025-12-31")[0]


@pytest.mark.oracle("sfdisk", "mke2fs")
def test_partitions_of_snapshots_are_disks_too(program: Program, place: str) -> None:
    """Fails if a partition of a disk in a repository cannot be read, or what is unused is kept."""
    disk = program.folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(12 * MIB)
    oracles.run("sfdisk", "--quiet", disk, stdin=b"label: gpt\nstart=2048, size=16384\n")
    oracles.run("mke2fs", "-q", "-t", "ext4", "-E", f"offset={MIB}", disk, "8M")
    with disk.open("r+b") as file:
        file.seek(MIB + 7 * MIB)  # in free space
        file.write(random.Random(4).randbytes(64 << 10))
    target = f"{place}::disk"
    found = program.ok("capture", disk, target, "--used", "--prove", "--json").json
    assert found["proved"] is True
    assert found["left_out"] > 0
    info = program.ok("info", target, "--json").json
    assert [item["filesystem"] for item in info["partitions"]] == ["ext4"]
    assert info["used"] is True
    assert program.ok("info", f"{target}#p1", "--json").json["size"] == 8 * MIB
    program.ok("convert", f"{target}#p1", "part.raw")
    oracles.run("e2fsck", "-f", "-n", program.folder / "part.raw")
    kinds = {run["kind"] for run in program.ok("map", target, "--json").json_lines}
    assert "unused" in kinds
    program.ok("capture", f"{target}#p1", f"{place}::part")
    program.ok("compare", f"{place}::part", "part.raw", "--strict")


def test_a_pipe_and_a_snapshot_can_be_captured(program: Program, disk: Path, place: str) -> None:
    """Fails if only files can be added, or the same content is stored twice."""
    content = disk.read_bytes()
    program.ok("capture", "-", f"{place}::pipe", stdin=content)
    program.ok("compare", f"{place}::pipe", disk, "--strict")
    again = program.ok("capture", f"{place}::pipe", f"{place}::copy", "--json").json
    assert again["bytes_stored"] < 16 << 10
    program.ok("repo", "init", "other")
    program.ok("capture", f"{place}::pipe", "repo:other::copy")
    program.ok("compare", "repo:other::copy", f"{place}::copy", "--strict")


@pytest.mark.parametrize("verb", ["restore", "sparsify"])
def test_verbs_that_add_to_no_repository_say_so(
    program: Program, disk: Path, place: str, verb: str
) -> None:
    """Fails if a verb that copies disks, too, does not say which ones make snapshots."""
    said = program.refuses(2, verb, disk, f"{place}::disk")
    assert "capture and convert" in said[-1]


def test_a_dry_run_stores_nothing(program: Program, disk: Path, place: str) -> None:
    """Fails if asking what would be done does it."""
    before = sorted((program.folder / "r").rglob("*"))
    found = program.ok("capture", disk, f"{place}::disk", "--dry-run", "--json").json
    assert found["dry_run"] is True
    assert DATA <= found["data"] < SIZE
    assert sorted((program.folder / "r").rglob("*")) == before


@pytest.mark.root
@pytest.mark.oracle("losetup")
def test_what_could_not_be_read_is_noted_in_the_snapshot(program: Program, place: str) -> None:
    """Fails if a snapshot of a failing disk does not say which parts it lacks."""
    backing = program.folder / "failing"
    content = random.Random(6).randbytes(SIZE)
    backing.write_bytes(content)
    loop = oracles.run("losetup", "-f", "--show", backing).stdout.strip()
    try:
        with backing.open("r+b") as file:
            file.truncate(5 * MIB)  # what is behind it now fails to read
        result = program("capture", loop, f"{place}::disk", "--json", "--progress", "none")
        program.refuses(3, "convert", loop, f"{place}::whole", "--progress", "none")
    finally:
        oracles.run("losetup", "-d", loop)
    assert result.exit_code == 6, result.err
    assert result.json["bad"] == [{"offset": 5 * MIB, "length": 3 * MIB}]
    runs = program.ok("map", f"{place}::disk", "--json").json_lines
    noted = [(run["offset"], run["length"]) for run in runs if run["kind"] == "bad"]
    assert noted == [(5 * MIB, 3 * MIB)]
    assert f"{3 * MIB} bytes could not be read" in program.ok("info", f"{place}::disk").text
    assert program("restore", f"{place}::disk", "back.raw").exit_code == 6
    back = (program.folder / "back.raw").read_bytes()
    assert back == content[: 5 * MIB] + bytes(3 * MIB)
    assert len(program.ok("repo", "list", "r", "--json").json_lines) == 1


def test_a_partial_copy_lacks_in_the_snapshot_what_its_map_says(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if what a rescue could not read is taken for what is on the disk."""
    lines = ("0x0 +", "0x0 0x300000 +", "0x300000 0x100000 -", "0x400000 0x400000 +")
    (program.folder / "disk.map").write_text("\n".join(lines) + "\n")
    assert program("convert", disk, f"{place}::disk", "--map", "disk.map").exit_code == 6
    runs = program.ok("map", f"{place}::disk", "--json").json_lines
    noted = [(run["offset"], run["length"]) for run in runs if run["kind"] == "bad"]
    assert noted == [(3 * MIB, MIB)]


def test_what_a_snapshot_lacks_is_told_whenever_it_is_copied(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if areas that were never read pass for zeros one copy later."""
    (program.folder / "disk.map").write_text("0x0 +\n0x0 0x300000 +\n0x300000 0x500000 -\n")
    source = f"{place}::disk"
    assert program("convert", disk, source, "--map", "disk.map").exit_code == 6
    lacking = [{"offset": 3 * MIB, "length": 5 * MIB}]
    targets = [
        (f"{place}::again",),
        (f"{place}::again",),  # of which all is there already
        ("also.raw", "--also", f"{place}::also"),
        (f"{place}::also", "--also", "too.qcow2"),
    ]
    for words in targets:
        copied = program("capture", source, *words, "--json")
        assert (copied.exit_code, copied.json["bad"]) == (6, lacking), words
    for words in [(), ("--delta", "--force")]:
        restored = program("restore", source, "back.raw", *words)
        assert restored.exit_code == 6, words
        assert f"{5 * MIB} bytes" in "".join(restored.messages), words
    content = disk.read_bytes()
    assert (program.folder / "back.raw").read_bytes() == content[: 3 * MIB] + bytes(5 * MIB)


def test_tags_and_level_are_taken_over(program: Program, disk: Path, place: str) -> None:
    """Fails if options of a capture into a repository are forgotten on the way."""
    disk.write_bytes(b"".join(b"%d\n" % number for number in range(300_000)))
    fast = program.ok("capture", disk, f"{place}::a", "--tag", "x", "--json").json
    assert program.ok("repo", "list", "r", "--json").json_lines[0]["tags"] == ["x"]
    program.ok("repo", "init", "small")
    slow = program.ok("capture", disk, "repo:small::a", "-o", "level=19", "--json").json
    assert slow["bytes_stored"] < fast["bytes_stored"]


def test_an_interrupted_capture_leaves_no_snapshot_and_goes_on(
    program: Program, disk: Path, place: str
) -> None:
    """Fails if Ctrl-C leaves a snapshot that is not whole, or loses what was stored."""
    with disk.open("wb") as file:
        file.write(random.Random(8).randbytes(44 * MIB))
    running = program.start("capture", disk, f"{place}::disk", "-j", "1", "-o", "level=15")
    packs = program.folder / "r" / "packs"
    deadline = time.monotonic() + 30
    while not list(packs.glob("*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    if running.returncode == 0:
        pytest.skip("it was faster than the signal")
    assert running.returncode == 130
    assert b"the same command goes on" in err
    assert program.ok("repo", "list", "r", "--json").out == b""
    kept = sum(item.stat().st_size for item in packs.glob("*/*"))
    found = program.ok("capture", disk, f"{place}::disk", "--json").json
    assert found["bytes_stored"] < 46 * MIB - kept
    program.ok("compare", f"{place}::disk", disk, "--strict")


def test_the_result_of_a_capture_is_one_object(program: Program, disk: Path, place: str) -> None:
    """Fails if something else is written to standard output."""
    out = program.ok("convert", disk, f"{place}::disk", "--json").out
    assert json.loads(out)["format"] == "repository"
