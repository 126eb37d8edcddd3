"""capture --also of a device that fails: all targets, the log, and the same command again.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-06, AM-08, AM-09, AM-10, AO-11.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from imprint.core.runs import Runs
from imprint.endpoints.maps import read_map
from imprint.testing.bad_device import TOOLS, bad_device
from imprint.testing.volumes import attached
from imprint.transfer.rescue.states import State

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
SIZE = 4 * MIB
CONTENT = random.Random(35).randbytes(SIZE)
BAD = [(512, 512), (MIB + 512, 7 * 512), (SIZE - 512, 512)]
EWF_SECTORS = r"at sector\(s\): (\d+) - (\d+) number: (\d+)"
"""How ewfinfo says what could not be read."""
IMAGES = ("a.E01", "b.raw", "c.aff4", "d.Ex01")


def _without() -> bytes:
    content = bytearray(CONTENT)
    for start, length in BAD:
        content[start : start + length] = bytes(length)
    return bytes(content)


def _words(*targets: str) -> list[str]:
    also = [word for target in targets[1:] for word in ("--also", target)]
    return [targets[0], *also, "--verify", "--hash", "md5,sha256", "--json"]


@pytest.mark.root
@pytest.mark.oracle(*TOOLS, "ewfinfo", "ewfverify", "ddrescuelog")
def test_all_targets_of_a_failing_device_know_its_bad_sectors(
    program: Program, tmp_path: Path
) -> None:
    """Fails if a target loses a good sector, or another program finds other bad ones in it."""
    program.ok("repo", "init", "place")
    targets = (*IMAGES, "repo:place::disk")
    with bad_device(tmp_path, CONTENT, BAD) as device:
        done = program("capture", device, *_words(*targets), "--case-number", "7")
        again = program("capture", device, *_words(*targets))
    assert done.exit_code == 6, done.err
    assert again.exit_code == 5
    found = done.json
    assert found["verified"] is True
    assert [(area["offset"], area["length"]) for area in found["bad"]] == BAD
    assert found["hashes"]["sha256"] == hashlib.sha256(_without()).hexdigest()
    assert all(item["ok"] for item in found["targets"])
    for name in targets:
        program("convert", name, f"{name[:4]}.back", "-O", "raw", "--force")
        assert (tmp_path / f"{name[:4]}.back").read_bytes() == _without(), name
    log = json.loads((tmp_path / "a.E01.log.json").read_bytes())
    sectors = [(start // 512, (start + length) // 512 - 1) for start, length in BAD]
    assert [(area["first_sector"], area["last_sector"]) for area in log["bad"]] == sectors
    assert (tmp_path / "a.E01.dfxml").read_text().count('type="unreadable"') == len(BAD)
    subprocess.run(["ewfverify", "-q", tmp_path / "a.E01"], check=True, capture_output=True)
    command = ["ewfinfo", str(tmp_path / "a.E01")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ranges = [(int(first), int(count)) for first, _, count in re.findall(EWF_SECTORS, said)]
    assert ranges == [(start // 512, length // 512) for start, length in BAD], said
    command = ["ddrescuelog", "--list-blocks=-", str(tmp_path / "a.E01.map")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [int(word) for word in said.split()] == [
        sector for first, last in sectors for sector in range(first, last + 1)
    ]
    assert not [path for path in tmp_path.iterdir() if "rescue" in path.name]


@pytest.mark.root
@pytest.mark.oracle(*TOOLS)
def test_the_same_command_goes_on_after_kill_9(program: Program, tmp_path: Path) -> None:
    """Fails if a killed rescue of the program leaves anything wrong, or in the way."""
    targets = ("a.E01", "b.raw", "c.qcow2")
    words = [*_words(*targets), "--retries", "2", "--reverse"]
    with bad_device(tmp_path, CONTENT, BAD) as device:
        running = program.start("capture", device, *words)
        deadline = time.monotonic() + 60
        while not (tmp_path / "a.E01.map").exists() and time.monotonic() < deadline:
            assert running.poll() is None
            time.sleep(0.001)
        running.kill()
        running.communicate()
        assert program("capture", device, *words, "--dry-run").exit_code == 0
        done = program("capture", device, *words)
    assert done.exit_code == 6, done.err
    assert [(area["offset"], area["length"]) for area in done.json["bad"]] == BAD
    assert (tmp_path / "b.raw").read_bytes() == _without()
    assert {path.name for path in tmp_path.glob("[abc].*")} == {
        *targets,
        *(f"a.E01.{suffix}" for suffix in ("map", "log.txt", "log.json", "dfxml")),
    }


@pytest.mark.root
@pytest.mark.oracle(*TOOLS, "blockdev")
def test_a_clone_and_an_image_of_a_failing_device_are_made_at_once(
    program: Program, tmp_path: Path
) -> None:
    """Fails if a device among the targets lacks more than the bad sectors, or keeps old bytes."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xee" * SIZE)
    with attached(backing) as clone, bad_device(tmp_path, CONTENT, BAD) as device:
        subprocess.run(["blockdev", "--setrw", clone], check=True)
        for targets in ((clone, "a.qcow2"), (clone, "repo:place::disk")):
            program("repo", "init", "place")
            done = program("capture", device, *_words(*targets), "--force", "--no-log")
            assert done.exit_code == 6, done.err
            assert all(item["ok"] for item in done.json["targets"])
    assert backing.read_bytes() == _without()
    for name in ("a.qcow2.map", f"{clone.rpartition('/')[2]}.map"):
        areas, _ = read_map(tmp_path / name)
        assert areas.runs(State.BAD) == Runs.of(BAD)
    assert not [path for path in tmp_path.iterdir() if "rescue" in path.name]
