"""Files of a repository's snapshots: which differ between two, and which are damaged."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
FILES = {
    f"{folder}{number}": random.Random(f"{folder}{number}").randbytes(200_000)
    for folder in ("kept", "old")
    for number in range(8)
}
WHEN = 1_700_000_000_000_000_000


@pytest.fixture
def volume(program: Program, tmp_path: Path) -> Path:
    """An ext4 of 16 MiB with the files, and a repository."""
    pytest.importorskip("pytsk3")
    folder = tmp_path / "tree"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(WHEN, WHEN))
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 16 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-d", folder, path)
    program.ok("repo", "init", "r")
    return path


def captured(program: Program, disk: Path) -> str:
    name = program.ok("capture", disk, "repo:r::disk", "--json").json["snapshot"]
    assert isinstance(name, str)
    return name


@pytest.mark.oracle("mke2fs", "debugfs")
def test_files_that_differ_are_listed(
    program: Program,
    volume: Path,
    tmp_path: Path,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if a change is missed, or a file beside it, in the same chunk, counts as changed."""
    first = captured(program, volume)
    (tmp_path / "new").write_bytes(b"new" * 1000)
    commands = (
        "rm /old3",
        f"write {tmp_path / 'new'} added",
        "set_inode_field /old5 mode 0100600",
    )
    for command in commands:
        run("debugfs", "-w", "-R", command, volume)
    with volume.open("r+b") as disk:  # behind the file system's back: no time tells of it
        disk.seek(volume.read_bytes().index(FILES["kept2"]) + 100_000)
        disk.write(b"changed")
    second = captured(program, volume)
    asked = ("repo", "diff", f"r::disk@{first}", f"r::disk@{second}", "--files")
    lines = program.ok(*asked, "--json").json_lines
    documented("repo-diff", lines[0])
    assert {(item["change"], item["path"], *item["why"]) for item in lines} == {
        ("added", "/added"),
        ("changed", "/kept2", "content"),
        ("removed", "/old3"),
        ("changed", "/old5", "mode"),
    }
    assert {item["where"] for item in lines} == {"disk"}
    assert {item["path"]: item["size"] for item in lines}["/added"] == 3000
    text = program.ok(*asked).text
    assert "changed  disk: /kept2  (content)" in text
    assert "differ in 4 files" in text
    same = ("repo", "diff", f"r::disk@{first}", f"r::disk@{first}", "--files", "--json")
    assert program.ok(*same).out == b""


def test_a_disk_without_files_is_told_as_such(program: Program, disk: Path) -> None:
    """Fails if nothing is said of a change that cannot be told by files."""
    program.ok("repo", "init", "r")
    first = captured(program, disk)
    with disk.open("r+b") as file:
        file.write(b"changed")
    second = captured(program, disk)
    (line,) = program.ok(
        "repo", "diff", f"r::disk@{first}", f"r::disk@{second}", "--files", "--json"
    ).json_lines
    assert (line["change"], line["where"], line["path"]) == ("changed", "disk", None)


def damage_in(program: Program) -> list[tuple[int, int]]:
    """Damage the largest pack: where the ranges of the disk that are lost begin and end."""
    packs = (program.folder / "r" / "packs").glob("*/*")
    pack = max(packs, key=lambda item: item.stat().st_size)
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        for tenth in (3, 5, 7):
            file.seek(pack.stat().st_size * tenth // 10)
            file.write(b"damage" * 1000)
    (damage,) = program("repo", "check", "r", "--read-data", "--json").json["damage"]
    return [(item["offset"], item["offset"] + item["length"]) for item in damage["ranges"]]


@pytest.mark.oracle("mke2fs")
def test_a_damaged_pack_costs_a_copy_only_what_it_held(program: Program, volume: Path) -> None:
    """Fails if what is whole cannot be had any more, or zeros pass for what is lost."""
    captured(program, volume)
    ranges = damage_in(program)
    result = program("capture", "repo:r::disk", "rescued.raw", "--json")
    assert result.exit_code == 6
    bad = [(item["offset"], item["offset"] + item["length"]) for item in result.json["bad"]]
    assert bad == ranges
    expected = bytearray(volume.read_bytes())
    for start, end in ranges:
        expected[start:end] = bytes(end - start)
    assert (program.folder / "rescued.raw").read_bytes() == expected
    program.refuses(7, "restore", "repo:r::disk", "back.raw", "--progress", "none")


@pytest.mark.oracle("mke2fs", "sgdisk")
def test_partitions_can_be_read_although_the_end_of_their_disk_is_lost(
    program: Program, volume: Path
) -> None:
    """Fails if the backup of a partition table, which is damaged, keeps files from being read."""
    disk = program.folder / "gpt.raw"
    noise = random.Random(3).randbytes(8 * MIB)  # fills packs, so that the backup is behind it
    disk.write_bytes(bytes(MIB) + volume.read_bytes() + noise + bytes(MIB))
    run("sgdisk", "-n", "1:2048:+16M", "-n", "2:0:+8M", disk)
    program.ok("capture", disk, "repo:r::disk")
    packs = (program.folder / "r" / "packs").glob("*/*")
    pack = max(packs, key=lambda item: item.stat().st_size)
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 6 * MIB)
    found = program.ok("info", "repo:r::disk", "--json").json
    assert [item["index"] for item in found["partitions"]] == [1, 2]
    assert any("backup GPT" in item["where"] for item in found["findings"])
    for name, content in FILES.items():
        assert program.ok("cat", f"repo:r::disk#p1:/{name}").out == content


@pytest.mark.oracle("mke2fs")
def test_a_check_names_the_files_that_a_damaged_pack_holds(program: Program, volume: Path) -> None:
    """Fails if a damaged file is not named, or one that is whole."""
    captured(program, volume)
    content = volume.read_bytes()
    expected_ranges = damage_in(program)
    result = program("repo", "check", "r", "--read-data", "--json")
    assert result.exit_code == 1
    (damage,) = result.json["damage"]
    ranges = [(item["offset"], item["offset"] + item["length"]) for item in damage["ranges"]]
    assert ranges == expected_ranges
    expected = set()
    for name, data in FILES.items():
        at = content.index(data)
        if any(start < at + len(data) and at < end for start, end in ranges):
            expected.add(f"disk: /{name}")
    named = {name for name in damage["files"] if name.removeprefix("disk: /") in FILES}
    assert expected
    assert len(expected) < len(FILES)
    assert named == expected
    text = program("repo", "check", "r", "--read-data").text
    assert all(f"  {name}\n" in text for name in expected)
