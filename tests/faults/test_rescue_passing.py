"""Rescues into what cannot be taken up half-way: repositories, and standard output.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-08 (what is acquired is accurate),
AM-09 (unresolved errors are reported), AM-10 (benign fill).
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import imprint
from imprint.core.errors import ReadError, RefusedError, UsageError
from imprint.core.extent import Extent, Kind
from imprint.endpoints import capturing, copying
from imprint.endpoints.copying import CopyRequest, Outcome
from imprint.endpoints.maps import read_map
from imprint.endpoints.open import Access
from imprint.endpoints.repository import make_repository
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults, bad_map
from imprint.transfer.rescue.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
SIZE = 6 * MIB
CONTENT = random.Random(4).randbytes(SIZE - MIB) + bytes(MIB)
BAD = ((2 * MIB + 512, 512), (4 * MIB + 3584, 9 * 512), (SIZE - 512, 512))
TARGET = "repo:place::lab/disk"

PASSING = """
import os, pathlib, signal, sys
from imprint.endpoints import capturing, copying
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults
target, at, bad = sys.argv[1:]
class Deadly(BadMedium):
    def readinto(self, buffer, offset):
        if len(self.log) >= int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        super().readinto(buffer, offset)
medium = Deadly(MemoryStorage(pathlib.Path("medium").read_bytes()), Faults(bad=eval(bad)))
capturing.open_source = copying.open_source = lambda *_: medium
run = copying.run if target == "-" else capturing.run
run(copying.CopyRequest("medium", TargetRequest(target), salvage=True, workers=1,
    rescue=RescueRequest(save_interval_s=0.02, map_path=pathlib.Path("x.map"))))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the medium seems to be, with an empty repository."""
    monkeypatch.chdir(tmp_path)
    Path("medium").write_bytes(CONTENT)
    make_repository("place", Access(), is_encrypted=False, level=1, parity=0).close()
    return tmp_path


def _expected(bad: tuple[tuple[int, int], ...], fill: bytes = b"\0") -> bytes:
    content = bytearray(CONTENT)
    for start, length in bad:
        content[start : start + length] = (fill * length)[:length]
    return bytes(content)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, BadMedium]]:
    """Captures a medium with faults into the repository."""

    def work(
        faults: Faults,
        content: bytes = CONTENT,
        *,
        resume: bool | None = None,
        verify: bool = False,
        **wish: Any,  # noqa: ANN401 - of the rescue
    ) -> tuple[Outcome, BadMedium]:
        medium = BadMedium(MemoryStorage(content), faults)
        monkeypatch.setattr(capturing, "open_source", lambda *_: medium)
        request = CopyRequest(
            "medium",
            TargetRequest(TARGET),
            salvage=True,
            hashes=("sha256",),
            rescue=RescueRequest(**wish),
            resume=resume,
        )
        return capturing.run(request, capturing.Adding(verify=verify)), medium

    return work


def _check_stored(bad: tuple[tuple[int, int], ...]) -> None:
    """The newest snapshot has all but the bad sectors, and knows these."""
    with imprint.open(TARGET) as disk:
        assert disk.read_at(0, SIZE) == _expected(bad)
        kinds = [(e.offset, e.length) for e in disk.extents(0, SIZE) if e.kind is Kind.BAD]
    assert kinds == list(bad)


def _left() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"medium", "place"}


@pytest.mark.parametrize("order", ["position", "reverse", "metadata"])
def test_a_repository_gets_all_that_can_be_read(
    run: Callable[..., tuple[Outcome, BadMedium]], order: str
) -> None:
    """AM-08, AM-09, AM-10: fails if a sector is lost, or one too many is called bad."""
    wish = {"reverse": order == "reverse", "metadata_first": order == "metadata"}
    outcome, medium = run(Faults(bad=BAD), **wish)
    _check_stored(BAD)
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
    assert outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD)).hexdigest()
    assert outcome.report.bytes_read == SIZE - sum(length for _, length in BAD)
    assert outcome.snapshot is not None
    assert any("could not be read" in note for note in outcome.snapshot.manifest.notes)
    assert not _left()
    singles = [read.offset for read in medium.failing if read.length == 512]
    assert len(singles) == len(set(singles)), "a bad sector is tried once, without --retries"
    assert max(read.length for read in medium.log) <= MIB


@pytest.mark.parametrize("order", ["position", "metadata"])
def test_a_pattern_marks_what_is_missing(
    run: Callable[..., tuple[Outcome, BadMedium]], order: str
) -> None:
    """AM-09, AM-10: fails if the fill is lost, is in no hash, or hides what is missing."""
    wish = {"fill": b"BAD!", "metadata_first": order == "metadata"}
    outcome, _ = run(Faults(bad=BAD), verify=True, **wish)
    expected = _expected(BAD, b"BAD!")
    with imprint.open(TARGET) as disk:
        assert disk.read_at(0, SIZE) == expected
        assert not [e for e in disk.extents(0, SIZE) if e.kind is Kind.BAD]
    assert outcome.report.hashes["sha256"] == hashlib.sha256(expected).hexdigest()
    assert outcome.wrong == {}
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
    assert outcome.snapshot is not None
    assert any("which hold 0x42414421" in note for note in outcome.snapshot.manifest.notes)
    assert _left() == {"lab_disk.rescue.map"}
    areas, _ = read_map(Path("lab_disk.rescue.map"), SIZE)
    assert list(areas.runs(State.BAD)) == list(BAD)
    assert areas.total(State.GOOD) == SIZE - sum(length for _, length in BAD)


def test_a_pattern_takes_the_place_of_what_an_older_snapshot_lacks(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if a pattern, or its absence, is taken over from the snapshot before."""
    for fill in (b"", b"BAD!", b"BAD!", b"?", b"\0", b""):
        for path in _left():
            Path(path).unlink()
        outcome, _ = run(Faults(bad=BAD), fill=fill)
        expected = _expected(BAD, fill or b"\0")
        with imprint.open(TARGET) as disk:
            assert disk.read_at(0, SIZE) == expected
            kinds = [(e.offset, e.length) for e in disk.extents(0, SIZE) if e.kind is Kind.BAD]
        assert kinds == ([] if fill else list(BAD))
        assert outcome.report.hashes["sha256"] == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("target", [TARGET, "raw.img"])
@pytest.mark.parametrize("bad", [(), BAD[:1]])
def test_a_pattern_marks_what_the_source_knows_it_lacks(
    monkeypatch: pytest.MonkeyPatch, target: str, bad: tuple[tuple[int, int], ...]
) -> None:
    """Fails if an image with errors is zeros where a pattern was asked for."""
    known = (3 * MIB, 2 * MIB)

    class Known(BadMedium):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            end = offset + length
            for extent in super().extents(offset, length):
                for start, stop, kind in (
                    (0, known[0], None),
                    (known[0], sum(known), Kind.BAD),
                    (sum(known), SIZE, None),
                ):
                    first, last = max(start, offset, extent.offset), min(stop, end, extent.end)
                    if first < last:
                        part = extent.clip(first, last)
                        yield Extent(first, last - first, kind) if kind else part

    medium = Known(MemoryStorage(CONTENT), Faults(bad=(*bad, known)))
    for module in (capturing, copying):
        monkeypatch.setattr(module, "open_source", lambda *_: medium)
    run = capturing.run if target == TARGET else copying.run
    wish = RescueRequest(fill=b"BAD!")
    outcome = run(
        CopyRequest("medium", TargetRequest(target), salvage=True, hashes=("sha256",), rescue=wish)
    )
    expected = _expected((*bad, known), b"BAD!")
    with imprint.open(target) as disk:
        assert disk.read_at(0, SIZE) == expected
        assert not [e for e in disk.extents(0, SIZE) if e.kind is Kind.BAD]
    assert outcome.report.hashes["sha256"] == hashlib.sha256(expected).hexdigest()
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == [*bad, known]


def test_the_map_of_a_filled_snapshot_is_not_lost(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if the next capture removes the only list of what a snapshot lacks."""
    run(Faults(bad=BAD), fill=b"x")
    kept = Path("lab_disk.rescue.map").read_bytes()
    for fill in (b"", b"x"):
        with pytest.raises(RefusedError):
            run(Faults(bad=BAD), fill=fill)
        assert Path("lab_disk.rescue.map").read_bytes() == kept
    Path("lab_disk.rescue.map").rename("elsewhere")
    run(Faults(), fill=b"x")
    assert _left() == {"elsewhere"}


def test_weak_sectors_are_read_by_retries(run: Callable[..., tuple[Outcome, BadMedium]]) -> None:
    """Fails if the options of a rescue do nothing for a repository."""
    weak = {(3 * MIB + 1024, 512): 5}
    outcome, _ = run(Faults(weak=weak), retries=4)
    assert not outcome.report.bad
    _check_stored(())
    assert not _left()


def test_a_good_medium_is_read_once_and_leaves_nothing(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if every capture into a repository pays for rescues."""
    _, medium = run(Faults())
    looked_at = 256 << 10  # by whoever looks for file systems
    assert SIZE <= sum(read.length for read in medium.log) < SIZE + looked_at
    _check_stored(())
    assert not _left()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO])
def test_a_medium_that_vanishes_is_gone_on_with(
    run: Callable[..., tuple[Outcome, BadMedium]], code: int
) -> None:
    """Fails if what was read before the cable was pulled has to be read again, or is lost."""
    with pytest.raises(ReadError) as caught:
        run(Faults(bad=BAD, gone_after=40, code=code), reverse=True)
    assert "goes on" in str(caught.value.advice)
    assert _left() == {"lab_disk.rescue", "lab_disk.rescue.map"}
    with pytest.raises(RefusedError):
        run(Faults(), content=bytes(reversed(CONTENT)))
    outcome, _ = run(Faults(bad=BAD), resume=True)
    assert 0 < outcome.report.resumed_at < SIZE
    _check_stored(BAD)
    assert not _left()


def test_a_read_that_does_not_come_back_is_given_up(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if one sector that hangs keeps a repository from getting the others."""
    faults = Faults(hanging=((3 * MIB, 512),))
    try:
        outcome, _ = run(faults, timeout_s=0.2)
    finally:
        faults.released.set()
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == [(3 * MIB, 512)]
    _check_stored(((3 * MIB, 512),))


def test_what_makes_no_sense_is_refused(run: Callable[..., tuple[Outcome, BadMedium]]) -> None:
    """Fails if an option is taken and then does nothing."""
    with pytest.raises(UsageError):
        run(Faults(), resume=True)
    Path("theirs.map").write_text("theirs")
    with pytest.raises(RefusedError):
        run(Faults(bad=BAD), map_path=Path("theirs.map"))
    Path("lab_disk.rescue").write_text("theirs")
    with pytest.raises(RefusedError):
        run(Faults(bad=BAD))


def test_other_copies_help_and_the_map_is_kept_if_it_has_a_name(
    run: Callable[..., tuple[Outcome, BadMedium]], folder: Path
) -> None:
    """Fails if --merge or --map do nothing for a repository."""
    other = bytearray(CONTENT)
    other[MIB : MIB + 512] = bytes(512)
    Path("other.img").write_bytes(other)
    Path("other.map").write_text(bad_map(SIZE, [(MIB, 512)]))
    outcome, medium = run(
        Faults(bad=((MIB, 512), (2 * MIB, 512))),
        merge=(("other.img", Path("other.map")),),
        map_path=Path("kept.map"),
    )
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == [(MIB, 512)]
    assert sum(read.length for read in medium.log) < MIB
    _check_stored(((MIB, 512),))
    assert _left() == {"other.img", "other.map", "kept.map"}
    assert "0x00100000  0x00000200  -" in (folder / "kept.map").read_text()


def _killed(target: str, at: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PASSING, target, str(at), str(BAD)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("target", [TARGET, "-"])
def test_killed_at_many_points_it_goes_on(target: str) -> None:
    """AM-08: fails if a crash costs what was read after the first error, or makes it wrong."""
    outcomes = []
    for at in (2, 21, 40):
        done = _killed(target, at)
        outcomes.append(done.returncode)
    assert outcomes == [-signal.SIGKILL] * 3
    done = _killed(target, 1 << 20)
    assert done.returncode == 0, done.stderr
    if target == "-":
        assert done.stdout == _expected(BAD)
    else:
        _check_stored(BAD)
    assert _left() == {"x.map"}
    assert sum(line.endswith(" -") for line in Path("x.map").read_text().splitlines()) == 3


def test_standard_output_without_a_place_gets_the_readable_sectors_in_order(
    folder: Path,
) -> None:
    """AM-09: fails if a pipe loses more than the bad sectors, or a rescue has nowhere to be."""
    del folder
    program = PASSING.replace(
        'RescueRequest(save_interval_s=0.02, map_path=pathlib.Path("x.map"))', "RescueRequest()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-", str(1 << 20), str(BAD)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == _expected(BAD)
    assert not _left()
