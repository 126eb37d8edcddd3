"""Captures of media that fail, as a whole: targets, hashes, maps, and kill -9 at many points.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-08 (what is acquired is accurate),
AM-09 (unresolved errors are reported), AM-10 (benign fill), AO-04 (lack of space is reported).
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import imprint
from imprint.core.errors import ReadError, RefusedError
from imprint.endpoints import copying
from imprint.endpoints.copying import CopyRequest, Outcome
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import partial_path
from imprint.testing.bad_medium import BadMedium, Faults, bad_map

MIB = 1 << 20
SIZE = 6 * MIB
CONTENT = random.Random(4).randbytes(SIZE - MIB) + bytes(MIB)
CODES = (errno.ENODEV, errno.EIO)
"""What the system says of a medium that is gone."""
BAD = ((2 * MIB + 512, 512), (4 * MIB + 3584, 9 * 512), (SIZE - 512, 512))

KILLED = """
import os, pathlib, signal, sys
from imprint.core.events import Progress
from imprint.endpoints import copying
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults
source, target, at, bad = sys.argv[1:]
content = pathlib.Path(source).read_bytes()
class Deadly(BadMedium):
    def readinto(self, buffer, offset):
        if len(self.log) >= int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        super().readinto(buffer, offset)
medium = Deadly(MemoryStorage(content), Faults(bad=eval(bad)))
copying.open_source = lambda *_: medium
copying.run(copying.CopyRequest(source, TargetRequest(target), salvage=True, workers=1,
    rescue=RescueRequest(save_interval_s=0), checkpoint_interval_s=0))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where the medium seems to be."""
    path = tmp_path / "medium"
    path.write_bytes(CONTENT)
    return path


def _expected(bad: tuple[tuple[int, int], ...], fill: bytes = b"\0") -> bytes:
    content = bytearray(CONTENT)
    for start, length in bad:
        content[start : start + length] = (fill * length)[:length]
    return bytes(content)


def _run(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    target: Path,
    faults: Faults,
    **options: Any,  # noqa: ANN401 - of two classes
) -> tuple[Outcome, BadMedium]:
    medium = BadMedium(MemoryStorage(CONTENT), faults)
    monkeypatch.setattr(copying, "open_source", lambda *_: medium)
    wish = RescueRequest(**options.pop("rescue", {}))
    outcome = copying.run(
        CopyRequest(
            str(source),
            TargetRequest(str(target), force=options.pop("force", False)),
            salvage=True,
            hashes=("sha256",),
            rescue=wish,
            **options,
        )
    )
    return outcome, medium


def _content(path: Path) -> bytes:
    with imprint.open(path) as disk:
        return disk.read_at(0, SIZE)


@pytest.mark.parametrize("suffix", ["raw", "qcow2", "vdi", "vmdk", "E01"])
@pytest.mark.parametrize("order", ["position", "metadata"])
def test_any_target_gets_all_that_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path, suffix: str, order: str
) -> None:
    """AM-08, AM-09, AM-10: fails if image, hash or list are not of the disk as it was left."""
    target = tmp_path / f"disk.{suffix}"
    wish = {"metadata_first": order == "metadata"}
    outcome, _ = _run(monkeypatch, source, target, Faults(bad=BAD), rescue=wish)
    assert _content(target) == _expected(BAD)
    assert outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD)).hexdigest()
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
    assert outcome.report.bytes_read == SIZE - sum(length for _, length in BAD)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["medium", target.name, f"{target.name}.map"]
    )


@pytest.mark.parametrize("suffix", ["raw", "qcow2", "E01"])
def test_a_medium_without_faults_leaves_no_map_and_is_read_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path, suffix: str
) -> None:
    """Fails if a good medium is treated as a bad one."""
    target = tmp_path / f"disk.{suffix}"
    outcome, medium = _run(monkeypatch, source, target, Faults())
    assert _content(target) == CONTENT
    assert not outcome.report.bad
    assert sum(read.length for read in medium.log) == SIZE
    assert {path.name for path in tmp_path.iterdir()} == {"medium", target.name}


@pytest.mark.parametrize("suffix", ["raw", "E01"])
def test_a_pattern_marks_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path, suffix: str
) -> None:
    """AM-10: fails if the fill is not what was asked for, or the hash is not of it."""
    target = tmp_path / f"disk.{suffix}"
    outcome, _ = _run(monkeypatch, source, target, Faults(bad=BAD), rescue={"fill": b"BAD!"})
    assert _content(target) == _expected(BAD, b"BAD!")
    assert outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD, b"BAD!")).hexdigest()


@pytest.mark.parametrize("suffix", ["raw", "qcow2", "E01"])
@pytest.mark.parametrize("at", [2, 4, 9, 40, 300, 2100])
def test_a_killed_rescue_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path, suffix: str, at: int
) -> None:
    """Fails if kill -9 at any point loses what was read, or leaves anything wrong."""
    target = tmp_path / f"disk.{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, source, target, str(at), repr(BAD)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    outcome, medium = _run(monkeypatch, source, target, Faults(bad=BAD))
    assert _content(target) == _expected(BAD)
    assert outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD)).hexdigest()
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
    if suffix == "raw" and at >= 300:
        assert outcome.report.resumed_at >= 4 * MIB
        assert sum(read.length for read in medium.log if read.is_good) < 3 * MIB
    assert {path.name for path in tmp_path.iterdir()} == {
        "medium",
        target.name,
        f"{target.name}.map",
    }


@pytest.mark.parametrize("suffix", ["raw", "E01"])
@pytest.mark.parametrize(
    "gone",
    # Of a medium that says EIO from the very first read on, all is bad.
    [(0, errno.ENODEV), *((after, code) for after in (3, 6, 30) for code in CODES)],
)
def test_a_medium_that_vanishes_can_be_plugged_in_again(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: Path,
    suffix: str,
    gone: tuple[int, int],
) -> None:
    """Fails if a pulled cable makes bad sectors, or the next attempt starts over."""
    target = tmp_path / f"disk.{suffix}"
    with pytest.raises(ReadError) as caught:
        _run(
            monkeypatch,
            source,
            target,
            Faults(bad=BAD, gone_after=gone[0], code=gone[1]),
            workers=1,
        )
    assert caught.value.advice is not None
    outcome, _ = _run(monkeypatch, source, target, Faults(bad=BAD))
    assert _content(target) == _expected(BAD)
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)


def test_a_finished_image_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path
) -> None:
    """Fails if more retries need the whole medium to be read again."""
    target = tmp_path / "disk.raw"
    weak = Faults(bad=BAD[1:], weak={BAD[0]: 4})
    outcome, _ = _run(monkeypatch, source, target, weak)
    assert len(outcome.report.bad) == 3
    with pytest.raises(RefusedError):
        _run(monkeypatch, source, target, Faults(bad=BAD[1:]))
    outcome, medium = _run(
        monkeypatch, source, target, Faults(bad=BAD[1:]), resume=True, rescue={"retries": 1}
    )
    assert _content(target) == _expected(BAD[1:])
    assert len(medium.failing) == 10
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD[1:])


def test_another_disk_is_not_mixed_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path
) -> None:
    """Fails if the rescue of one disk goes on with another one."""
    target = tmp_path / "disk.raw"
    other = bytes(reversed(CONTENT))
    partial_path(target).write_bytes(other)
    map_path = tmp_path / "disk.raw.map"
    map_path.write_text(bad_map(SIZE, BAD))
    with pytest.raises(RefusedError):
        _run(monkeypatch, source, target, Faults(bad=BAD))
    assert partial_path(target).read_bytes() == other
    outcome, _ = _run(monkeypatch, source, target, Faults(bad=BAD), resume=False)
    assert _content(target) == _expected(BAD)
    assert outcome.report.bad


def test_a_medium_that_hangs_where_it_was_good_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path
) -> None:
    """Fails if looking whether it is the same disk waits for a read longer than it may take."""
    target = tmp_path / "disk.raw"
    _run(monkeypatch, source, target, Faults(bad=BAD))
    faults = Faults(bad=BAD[1:], hanging=((BAD[0][0] - 512, 512),))
    wish = {"retries": 1, "timeout_s": 0.2}
    give_up = threading.Timer(20, faults.released.set)
    give_up.start()
    try:
        outcome, _ = _run(monkeypatch, source, target, faults, resume=True, rescue=wish)
        assert not faults.released.is_set()
    finally:
        give_up.cancel()
        faults.released.set()
    assert target.read_bytes() == _expected(BAD[1:])
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD[1:])


@pytest.mark.parametrize("suffix", ["raw", "E01"])
def test_partial_copies_are_merged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path, suffix: str
) -> None:
    """Fails if what one copy has and the other lacks does not come together."""
    other = tmp_path / "other.img"
    other_bad = ((0, 1 * MIB), BAD[2])
    other.write_bytes(_expected(other_bad, b"\xee"))
    other_map = tmp_path / "other.map"
    other_map.write_text(bad_map(SIZE, other_bad))
    target = tmp_path / f"disk.{suffix}"
    outcome, medium = _run(
        monkeypatch, source, target, Faults(bad=BAD), rescue={"merge": ((str(other), other_map),)}
    )
    assert _content(target) == _expected((BAD[2],))
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == [BAD[2]]
    assert sum(read.length for read in medium.log if read.is_good) <= MIB


@pytest.mark.root
@pytest.mark.oracle("losetup", "blockdev")
def test_a_device_is_rescued_into(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path
) -> None:
    """AO-11, AM-10: fails if a clone of a bad disk lacks more than the bad sectors."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xff" * SIZE)
    monkeypatch.chdir(tmp_path)
    device = subprocess.run(
        ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        # A loop device remembers from its last user that it may not be written.
        subprocess.run(["blockdev", "--setrw", device], check=True)
        outcome, _ = _run(monkeypatch, source, Path(device), Faults(bad=BAD), force=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert backing.read_bytes() == _expected(BAD)
    assert outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD)).hexdigest()
    assert (tmp_path / f"{Path(device).name}.map").exists()
