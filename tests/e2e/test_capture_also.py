"""capture --also and --piecewise: what they write, say and refuse."""

from __future__ import annotations

import hashlib
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20


@pytest.mark.oracle("qemu-img", "ewfverify")
def test_all_targets_hold_the_disk(
    program: Program, disk: Path, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if a target of several is not what it would be alone."""
    also = [word for name in ("b.qcow2", "c.raw", "d.vmdk") for word in ("--also", name)]
    arguments = ("capture", disk.name, "a.E01", *also, "--hash", "sha256", "--verify", "--json")
    found = program.ok(*arguments).json
    documented("capture", found)
    assert [item["target"] for item in found["targets"]] == ["a.E01", "b.qcow2", "c.raw", "d.vmdk"]
    assert [item["format"] for item in found["targets"]] == ["e01", "qcow2", "raw", "vmdk"]
    assert all(item["ok"] and item["bytes_stored"] > 0 for item in found["targets"])
    assert found["verified"] is True
    content = disk.read_bytes()
    assert found["hashes"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (program.folder / "c.raw").read_bytes() == content
    assert oracles.content(program.folder / "b.qcow2", "qcow2") == content
    subprocess.run(
        ["ewfverify", "-q", "-d", "sha1", "a.E01"],
        cwd=program.folder,
        check=True,
        capture_output=True,
    )


@pytest.mark.root
@pytest.mark.oracle("losetup")
def test_a_device_can_be_one_of_the_targets(program: Program, disk: Path) -> None:
    """Fails if only files can be written beside another target."""
    backing = program.folder / "backing"
    backing.write_bytes(b"\xee" * disk.stat().st_size)
    command = ["losetup", "--find", "--show", str(backing)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        also = ("--also", device)
        program.refuses(5, "capture", disk.name, "a.raw", *also)
        assert not (program.folder / "a.raw").exists()
        program.ok("capture", disk.name, "a.raw", *also, "--force", "--verify")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert backing.read_bytes() == disk.read_bytes() == (program.folder / "a.raw").read_bytes()


def test_what_makes_no_sense_is_refused_before_anything_is_written(
    program: Program, disk: Path
) -> None:
    """Fails if somebody finds out in the end that a target could not be written."""
    start = ("capture", disk.name, "a.raw")
    (program.folder / "there.raw").write_bytes(b"x")
    program.refuses(5, *start, "--also", "there.raw")
    program.refuses(5, *start, "--also", "./a.raw")
    program.refuses(5, *start, "--also", disk.name)
    program.refuses(2, *start, "--also", "-")
    program.refuses(7, *start, "--also", "repo:place::image")
    program.refuses(2, *start, "--also", "b.raw", "--tag", "x")
    program.refuses(2, *start, "--also", "no-suffix")
    program.refuses(5, *start, "--also", "b.raw", "--map", "b.raw")
    program.refuses(2, *start, "--also", "b.raw", "--resume")
    program.refuses(2, *start, "--strict")
    program.refuses(2, *start, "--piecewise", "100")
    program.refuses(2, *start, "--hash", "none", "--piecewise", "1M")
    program.ok(*start, "--also", "b.raw", "--dry-run")
    assert not list(program.folder.glob("[ab].raw*"))
    assert (program.folder / "there.raw").read_bytes() == b"x"


@pytest.mark.oracle("split", "sha256sum")
def test_pieces_have_the_hashes_that_split_and_sha256sum_give(
    program: Program, disk: Path, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if hashes of pieces cannot be compared with those of any other tool."""
    subprocess.run(["split", "-b", "3M", disk.name, "part."], cwd=program.folder, check=True)
    parts = sorted(program.folder.glob("part.*"))
    command = ["sha256sum", *map(str, parts)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    expected = [line.split()[0] for line in said.splitlines()]
    wish = ("--hash", "sha256,md5", "--piecewise", "3M")
    for arguments in (("hash", disk.name), ("capture", disk.name, "out.qcow2")):
        found = program.ok(*arguments, *wish, "--json").json
        documented(arguments[0], found)
        pieces = found["pieces"]
        assert [piece["hashes"]["sha256"] for piece in pieces] == expected
        assert [piece["offset"] for piece in pieces] == [i * 3 * MIB for i in range(len(parts))]
        assert [piece["length"] for piece in pieces] == [part.stat().st_size for part in parts]
    text = program.ok("hash", disk.name, *wish).text
    assert f"    {expected[1]}, sectors 6144 - 12287" in text


@pytest.mark.parametrize("main", ["file", "repository"])
def test_a_repository_is_one_of_the_targets(
    program: Program, disk: Path, main: str, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if a snapshot that was made beside files is not the disk, or is not told of."""
    program.ok("repo", "init", "place")
    targets = ["a.E01", "repo:place::lab/disk", "b.raw"]
    if main == "repository":
        targets = [targets[1], targets[0], targets[2]]
    also = [word for target in targets[1:] for word in ("--also", target)]
    words = ["--hash", "sha256", "--verify", "--tag", "first", "--case-number", "2026/7", "--json"]
    found = program.ok("capture", disk, targets[0], *also, *words).json
    documented("capture", found)
    assert [item["target"] for item in found["targets"]] == targets
    assert all(item["ok"] and item["bytes_stored"] > 0 for item in found["targets"])
    content = disk.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for item in found["targets"]:
        assert item["read_back"]["sha256"] == digest
        assert ("snapshot" in item) == item["target"].startswith("repo:")
    assert ("snapshot" in found) == ("merkle" in found["hashes"]) == (main == "repository")
    program.ok("restore", "repo:place::lab/disk", "back.raw")
    assert (program.folder / "back.raw").read_bytes() == content
    assert (program.folder / "b.raw").read_bytes() == content
    info = program.ok("info", "repo:place::lab/disk", "--json").json
    assert info["hashes"]["sha256"] == digest
    assert "first" in program.ok("repo", "list", "place").text
    assert "2026/7" in program.ok("info", "a.E01").text  # which has got it in both orders
    log = json.loads((program.folder / f"{'a.E01'}.log.json").read_bytes())
    assert [item["target"] for item in log["targets"]] == targets


def test_only_repositories_are_targets_and_take_no_hashes_unless_asked(
    program: Program, disk: Path
) -> None:
    """Fails if two snapshots cannot be made of one reading, or one of them differs."""
    program.ok("repo", "init", "one")
    program.ok("repo", "init", "two")
    also = ("--also", "repo:two::x", "--also", "repo:one::y")
    said = program.ok("capture", disk, "repo:one::x", *also).text
    assert said.count("snapshot ") == 3
    found = program.ok("capture", disk, "repo:one::x", *also, "--verify", "--json").json
    assert set(found["hashes"]) == {"merkle"}
    assert found["verified"] is True
    assert len({item["snapshot"] for item in found["targets"]}) == 3
    for image in ("repo:one::x", "repo:one::y", "repo:two::x"):
        program.ok("compare", disk, image)
    program.refuses(5, "capture", disk, "repo:one::x", "--also", "repo:one::x")
    program.refuses(2, "capture", disk, "repo:one::x", "--also", "b.raw", "--reread")
    program.refuses(2, "capture", disk, "repo:one::x", "--also", "b.raw", "--resume")


def test_the_secret_of_an_encrypted_repository_is_for_the_other_target_too(
    program: Program, disk: Path
) -> None:
    """Fails if a repository beside a file cannot be opened, or is found out too late."""
    secret = program.folder / "secret"
    secret.write_text("correct horse\n")
    program.ok("repo", "init", "place", "--passphrase-file", secret, "--encrypt")
    also = ("--also", "repo:place::x")
    words = ("--passphrase-file", secret, "--verify")
    program.ok("capture", disk, "a.raw", *also, *words)
    secret.write_text("wrong\n")
    assert program("capture", disk, "b.raw", *also, *words).exit_code == 3
    assert not list(program.folder.glob("b.raw*"))
