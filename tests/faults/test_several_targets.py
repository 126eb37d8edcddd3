"""Captures into several targets, one of which fails; and targets that keep something else.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AO-04 (lack of space is reported),
AO-07 and AO-08 (the integrity of what was stored is checked), AO-22 (hashes of blocks).
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import imprint
from imprint.core.errors import ReadError
from imprint.endpoints import several
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.open import Access
from imprint.endpoints.repository import make_repository
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIZE = 6 * MIB
CONTENT = random.Random(5).randbytes(SIZE)

PROGRAM = """
import errno, os, sys
real = os.pwrite
def pwrite(fd, data, offset):
    name = os.readlink(f"/proc/self/fd/{fd}")
    if "full" in name and offset >= 2 << 20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "corrupt" in name and len(data) > 30000:
        data = bytearray(data)
        data[20000] ^= 1
    return real(fd, data, offset)
os.pwrite = pwrite
real_write = os.write
def write(fd, data):
    if "full" in os.readlink(f"/proc/self/fd/{fd}") and len(data) > 1 << 18:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real_write(fd, data)
os.write = write
from imprint.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A disk without a zero."""
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


def _run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """The program on a system that loses and changes what is written."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "capture", "disk.raw", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("target", ["corrupt.raw", "corrupt.qcow2", "corrupt.E01"])
def test_what_was_stored_wrongly_is_found_and_both_digests_are_told(
    source: Path, target: str
) -> None:
    """Fails if a capture is called good whose target is not what was read."""
    code, found, err = _run(source.parent, target, "--hash", "sha256", "--verify")
    assert code == 1
    assert found["verified"] is False
    expected = hashlib.sha256(CONTENT).hexdigest()
    assert found["hashes"]["sha256"] == expected
    assert found["read_back"]["sha256"] != expected
    assert f"expected sha256 {expected}, found {found['read_back']['sha256']}" in err


def test_of_several_targets_the_one_that_is_wrong_is_named(source: Path) -> None:
    """Fails if only the main target is read back."""
    code, found, _ = _run(
        source.parent, "a.raw", "--also", "corrupt.raw", "--hash", "sha256", "--verify"
    )
    assert code == 1
    assert [item["ok"] for item in found["targets"]] == [True, False]
    expected = hashlib.sha256(CONTENT).hexdigest()
    assert found["targets"][0]["read_back"] == {"sha256": expected}
    assert found["targets"][1]["read_back"] == {"sha256": _content(source.parent / "corrupt.raw")}
    assert found["verified"] is False


def _repository(place: Path) -> None:
    make_repository(str(place), Access(), is_encrypted=False, level=1, parity=0).close()


@pytest.mark.parametrize("order", [("full.raw", "b.qcow2", "c.raw"), ("c.raw", "full.raw")])
def test_a_target_that_fails_does_not_stop_the_others(source: Path, order: tuple[str, ...]) -> None:
    """Fails if a full disk costs the copies that had room."""
    also = [word for name in order[1:] for word in ("--also", name)]
    code, found, err = _run(source.parent, order[0], *also, "--hash", "sha256", "--piecewise", "1M")
    assert code == 5
    assert "no space left" in err
    assert found["hashes"] == {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    assert len(found["pieces"]) == 6
    assert [item["target"] for item in found["targets"]] == list(order)
    for item in found["targets"]:
        assert item["ok"] == ("full" not in item["target"])
        assert (item["error"] is None) == item["ok"]
        assert (item["bytes_stored"] >= SIZE) == item["ok"]
    assert _content(source.parent / "c.raw") == hashlib.sha256(CONTENT).hexdigest()
    assert not list(source.parent.glob("full*"))


def test_a_repository_that_fails_does_not_stop_the_others_nor_they_it(source: Path) -> None:
    """AO-03, AO-04: fails if a full disk under one repository costs another one, or a file."""
    for name in ("full", "good"):
        _repository(source.parent / name)
    also = ("--also", "repo:good::x", "--also", "full.raw", "--also", "c.raw")
    code, found, err = _run(source.parent, "repo:full::x", *also, "--verify")
    assert code == 5
    assert "no space left" in err
    assert [item["ok"] for item in found["targets"]] == [False, True, False, True]
    assert "snapshot" not in found
    assert found["targets"][1]["image"] == "x"
    assert _content(source.parent / "c.raw") == hashlib.sha256(CONTENT).hexdigest()
    assert found["targets"][1]["read_back"] == found["targets"][3]["read_back"] == found["hashes"]
    assert not list((source.parent / "full" / "snapshots").glob("*"))


def test_if_it_is_strict_a_repository_gets_no_snapshot_either(source: Path) -> None:
    """Fails if a snapshot appears although another target has failed, or the reverse."""
    for name in ("full", "good"):
        _repository(source.parent / name)
    for targets in (("repo:good::x", "full.raw"), ("a.raw", "repo:full::x")):
        code, found, _ = _run(source.parent, targets[0], "--also", targets[1], "--strict")
        assert code == 5
        assert [item["ok"] for item in found["targets"]] == [False, False]
    assert not list(source.parent.glob("*/snapshots/*"))
    assert not list(source.parent.glob("*.raw.partial"))
    assert not (source.parent / "a.raw").exists()


def test_if_it_is_strict_one_failing_target_stops_all(source: Path) -> None:
    """Fails if somebody who wants all or nothing gets some."""
    code, found, _ = _run(source.parent, "a.raw", "--also", "full.raw", "--strict")
    assert code == 5
    assert [item["ok"] for item in found["targets"]] == [False, False]
    assert list(source.parent.iterdir()) == [source]
    assert found["targets"][0]["error"] == "stopped, since another target has failed"


def test_what_cannot_be_read_is_the_same_in_all_targets_and_listed(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a target has other zeros than another, or a bad sector is read for each of them."""
    bad = ((MIB + 512, 512), (SIZE - 512, 512))
    medium = BadMedium(MemoryStorage(CONTENT), Faults(bad=bad))
    monkeypatch.setattr(several, "open_source", lambda *_: medium)
    targets = [source.parent / name for name in ("a.raw", "b.raw")]
    place = source.parent / "place"
    _repository(place)
    request = CopyRequest(
        str(source), TargetRequest(str(targets[0])), hashes=("sha256", "md5"), salvage=True
    )
    outcome = several.run_several(request, several.Also((str(targets[1]), f"repo:{place}::x")))
    expected = bytearray(CONTENT)
    for start, length in bad:
        expected[start : start + length] = bytes(length)
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(bad)
    assert outcome.report.hashes["sha256"] == hashlib.sha256(expected).hexdigest()
    assert all(path.read_bytes() == expected for path in targets)
    with imprint.open(f"repo:{place}::x") as disk:
        assert disk.read_at(0, SIZE) == expected
    assert outcome.targets[2].snapshot is not None
    assert outcome.targets[2].snapshot.manifest.notes == (
        "1024 bytes could not be read, in 2 areas",
    )
    singles = [read.offset for read in medium.failing if read.length == 512]
    assert sorted(singles) == [start for start, _ in bad]


def test_a_source_that_fails_leaves_no_target(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if half a disk gets a name, or if threads wait for each other for ever."""
    medium = BadMedium(MemoryStorage(CONTENT), Faults(gone_after=2))
    monkeypatch.setattr(several, "open_source", lambda *_: medium)
    folder = source.parent
    request = CopyRequest(str(source), TargetRequest(str(folder / "a.E01")), hashes=("sha256",))
    _repository(folder / "place")
    others = (str(folder / "b.raw"), str(folder / "c.qcow2"), f"repo:{folder / 'place'}::x")
    with pytest.raises(ReadError):
        several.run_several(request, several.Also(others))
    assert {path.name for path in folder.iterdir()} == {"disk.raw", "place"}
    assert not list(folder.glob("place/snapshots/*"))
