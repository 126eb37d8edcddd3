"""``imprint demo``, as its users run it: with the machine's tools, with some, and with none."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imprint.cli import demo_disk
from imprint.cli.commands import demo
from imprint.cli.console import Console
from imprint.cli.parsers import verb_parser
from imprint.core.units import MIB
from imprint.testing import oracles

MAKERS = ("sfdisk", "mkfs.vfat", "mcopy", "mkfs.ext4")
TIMEOUT_S = 60  # what the demonstration promises to stay below


def run_demo(*arguments: str, path: str | None = None, temporary: Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process of its own."""
    environment = {**os.environ, "TMPDIR": str(temporary), "COLUMNS": "80"}
    if path is not None:
        environment["PATH"] = path
    done = subprocess.run(
        [sys.executable, "-I", "-m", "imprint", "demo", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**environment, "PYTHONUTF8": "1"},
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def only(folder: Path, *tools: str) -> str:
    """A PATH on which there is nothing but these tools."""
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return str(folder)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.oracle(*MAKERS, "qemu-img")
def test_a_disk_of_real_file_systems_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Fails if a proof does not hold, or if qemu-img sees another disk in the image."""
    kept = tmp_path / "kept"
    code, output, errors = run_demo("--json", "--keep", str(kept), temporary=tmp_path)

    assert (code, errors) == (0, "")
    answer: dict[str, Any] = json.loads(output)
    assert answer["ok"]
    assert all(answer["proofs"].values())
    assert answer["made_by"] == list(MAKERS)
    assert not answer["sample"]
    assert answer["size"] == (kept / "disk.raw").stat().st_size >= 256 * MIB
    found = [(item["filesystem"], item["name"]) for item in answer["content"]["partitions"]]
    assert found == [("vfat", "documents"), ("ext4", "sources")]
    assert sorted(item.name for item in kept.iterdir()) == [
        "disk.qcow2",
        "disk.raw",
        "restored.raw",
    ]
    assert sha256(kept / "disk.raw") == sha256(kept / "restored.raw") == answer["hashes"]["sha256"]
    facts = oracles.info(kept / "disk.qcow2", "qcow2")
    assert facts["format-specific"]["data"]["compression-type"] == "zstd"
    oracles.check(kept / "disk.qcow2", "qcow2")
    assert oracles.is_equal(
        kept / "disk.raw", kept / "disk.qcow2", first_format="raw", second_format="qcow2"
    )
    assert answer["bytes_stored"] < answer["bytes_read"]


def test_without_tools_the_sample_takes_their_place(tmp_path: Path) -> None:
    """Fails if a system without mkfs gets no demonstration, or is not told what it sees."""
    code, output, errors = run_demo(path="/nonexistent", temporary=tmp_path)

    assert (code, errors) == (0, "")
    assert "sample" in output
    assert "neither mkfs.ext4 nor mkfs.vfat with mcopy is installed" in output
    assert "All 6 proofs hold" in output
    assert "FAILED" not in output
    assert "\x1b" not in output
    assert list(tmp_path.iterdir()) == [], "the temporary folder stayed"


def test_a_tool_that_fails_is_named_and_replaced_by_the_sample(tmp_path: Path) -> None:
    """Fails if a broken mkfs ends the demonstration, or is passed over in silence."""
    tools = tmp_path / "tools"
    tools.mkdir()
    broken = tools / "mkfs.ext4"
    broken.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    code, output, _ = run_demo(path=str(tools), temporary=tmp_path)

    assert code == 0
    assert "mkfs.ext4 failed: no such luck" in output


def test_files_that_exist_are_refused_and_stay(tmp_path: Path) -> None:
    """Fails if the demonstration overwrites somebody's image."""
    (tmp_path / "disk.qcow2").write_bytes(b"precious")
    code, output, errors = run_demo(
        "--keep", str(tmp_path), path="/nonexistent", temporary=tmp_path
    )

    assert code == 5
    assert output == ""
    assert errors.count("\n") == 1
    assert "exists already" in errors
    assert [item.name for item in tmp_path.iterdir()] == ["disk.qcow2"]
    assert (tmp_path / "disk.qcow2").read_bytes() == b"precious"


def test_a_proof_that_does_not_hold_is_said_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the exit code is 0 whatever was found."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(demo_disk, "SAMPLE_SHA256", "0" * 64)
    args = verb_parser("demo").parse_args(["--keep", str(tmp_path)])
    out = io.StringIO()

    code = demo.run(args, Console(out, io.StringIO()))

    assert code == 1
    assert "FAILED" in out.getvalue()
    assert "NOT PROVEN: sample" in out.getvalue()


@pytest.mark.oracle("sfdisk", "sgdisk", "mkfs.ext4", "mkfs.vfat", "mcopy", "e2fsck", "fsck.vfat")
@pytest.mark.parametrize(
    ("tools", "kinds"),
    [
        (("mkfs.ext4",), ["ext4", "ext4"]),
        (("mkfs.vfat", "mcopy"), ["vfat", "vfat"]),
        (("sgdisk", "mkfs.ext4", "mkfs.vfat", "mcopy"), ["vfat", "ext4"]),
        (("sfdisk", "mkfs.ext4", "mkfs.vfat"), ["ext4", "ext4"]),
    ],
    ids="-".join,
)
def test_with_some_of_the_tools_a_sound_disk_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: tuple[str, ...], kinds: list[str]
) -> None:
    """Fails if the table is one that sgdisk rejects, or a file system that fsck does."""
    judges = {name: shutil.which(name) or name for name in ("sgdisk", "e2fsck", "fsck.vfat")}
    monkeypatch.setenv("PATH", only(tmp_path / "tools", *tools))
    # A partition's worth of files is not what this is about.
    monkeypatch.setattr(demo_disk, "FILE_BYTES_MAX", 2 * MIB)
    image = tmp_path / "disk.raw"

    disk = demo_disk.build(image, lambda source, target: pytest.fail(f"{source} for {target}"))

    assert [part.kind for part in disk.parts] == kinds
    assert set(disk.made_by) == set(tools) - ({"mkfs.vfat"} if "mcopy" not in tools else set())
    assert disk.files > 0
    verdict = oracles.run(judges["sgdisk"], "--verify", image).stdout
    assert "No problems found" in verdict
    for index, part in enumerate(disk.parts, 1):
        listed = oracles.run(judges["sgdisk"], f"--info={index}", image).stdout
        assert part.type_guid in listed.lower()
        assert f"'{part.name}'" in listed
        if part.kind == "ext4":
            oracles.run(judges["e2fsck"], "-f", "-n", f"{image}?offset={part.start}")
            continue
        piece = tmp_path / f"part{index}"
        with image.open("rb") as whole, piece.open("wb") as copy:
            os.sendfile(copy.fileno(), whole.fileno(), part.start, part.length)
        oracles.run(judges["fsck.vfat"], "-n", piece)


@pytest.mark.oracle("qemu-img")
def test_the_sample_is_what_its_hash_says(tmp_path: Path) -> None:
    """Fails if the sample was made anew and its hash was not, judged without our own reader."""
    sample = Path(demo_disk.__file__).with_name("data") / "demo-sample.qcow2"
    assert sample.stat().st_size < 100 << 10

    oracles.convert(sample, tmp_path / "raw", "raw", source_format="qcow2")

    assert sha256(tmp_path / "raw") == demo_disk.SAMPLE_SHA256
    assert (tmp_path / "raw").stat().st_size == demo_disk.SAMPLE_BYTES
