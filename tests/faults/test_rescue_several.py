"""Several targets of a medium that fails: the rescue for all of them, and kill -9 at many points.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-08 (what is acquired is accurate),
AM-09 (unresolved errors are reported), AM-10 (benign fill), AO-04 (lack of space is reported).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import imprint
from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled, ReadError, RefusedError, UsageError
from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.endpoints import copying, several
from imprint.endpoints.copying import CopyRequest, Outcome
from imprint.endpoints.open import Access
from imprint.endpoints.repository import make_repository
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults, bad_map

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
SIZE = 6 * MIB
CONTENT = random.Random(6).randbytes(SIZE - MIB) + bytes(MIB)
BAD = ((2 * MIB + 512, 512), (4 * MIB + 3584, 9 * 512), (SIZE - 512, 512))
REPO = "repo:place::lab/disk"

SETS = [
    ("a.E01", "b.raw"),
    ("b.raw", "a.E01", REPO),
    ("a.E01", "c.qcow2"),
    (REPO, "a.aff4"),
    (REPO, "repo:place::x"),
]
"""With a raw file, which is rescued into, and without."""

CAPTURE = """
import errno, os, pathlib, signal, sys
from imprint.endpoints import several
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults
targets, strict, at, links, full, options, bad = eval(sys.argv[1])
class Deadly(BadMedium):
    def readinto(self, buffer, offset):
        if len(self.log) >= at:
            os.kill(os.getpid(), signal.SIGKILL)
        super().readinto(buffer, offset)
real_link, real_pwrite = os.link, os.pwrite
def link(old, new, **more):
    global links
    if links == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real_link(old, new, **more)
    links -= 1
    if links == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.link = link
def pwrite(fd, data, offset):
    if full and os.readlink(f"/proc/self/fd/{fd}").endswith(full) and offset >= 3 << 20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real_pwrite(fd, data, offset)
os.pwrite = pwrite
medium = Deadly(MemoryStorage(pathlib.Path("medium").read_bytes()), Faults(bad=bad))
several.open_source = lambda *_: medium
outcome = several.run_several(
    CopyRequest("medium", TargetRequest(targets[0], None, options), salvage=True, workers=1,
        hashes=("md5",), rescue=RescueRequest(save_interval_s=0.02)),
    several.Also(targets[1:], strict=strict))
print([item.error is None for item in outcome.targets])
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


class _Telling(BadMedium):
    """A medium that tells of each read."""

    on_read: Callable[[BadMedium], None] | None = None

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Tell, then read."""
        if self.on_read is not None:
            self.on_read(self)
        super().readinto(buffer, offset)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, BadMedium]]:
    """Captures a medium with faults into some targets."""

    def work(
        targets: tuple[str, ...],
        faults: Faults,
        content: bytes = CONTENT,
        **options: Any,  # noqa: ANN401 - of three classes
    ) -> tuple[Outcome, BadMedium]:
        medium = _Telling(MemoryStorage(content), faults)
        medium.on_read = options.pop("on_read", None)
        monkeypatch.setattr(several, "open_source", lambda *_: medium)
        monkeypatch.setattr(copying, "open_source", lambda *_: medium)
        also = several.Also(targets[1:], strict=options.pop("strict", False))
        wish = RescueRequest(**options.pop("rescue", {}))
        target = TargetRequest(
            targets[0], None, options.pop("target", {}), force=options.pop("force", False)
        )
        request = CopyRequest(
            "medium", target, salvage=True, hashes=("sha256",), rescue=wish, **options
        )
        single = len(targets) == 1
        outcome = copying.run(request) if single else several.run_several(request, also)
        return outcome, medium

    return work


def _check_all(targets: tuple[str, ...], bad: tuple[tuple[int, int], ...]) -> None:
    """All targets hold what can be read, and those that can say so know what cannot."""
    for target in targets:
        with imprint.open(target) as disk:
            assert disk.read_at(0, SIZE) == _expected(bad), target
            kinds = [(e.offset, e.length) for e in disk.extents(0, SIZE) if e.kind is Kind.BAD]
        if target.endswith((".E01", ".aff4")) or target.startswith("repo:"):
            assert kinds == list(bad), target


def _left() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"medium", "place"}


def _files(targets: tuple[str, ...]) -> set[str]:
    return {target for target in targets if not target.startswith("repo:")}


@pytest.mark.parametrize("order", ["position", "reverse", "metadata"])
@pytest.mark.parametrize("targets", SETS)
def test_all_targets_get_all_that_can_be_read(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...], order: str
) -> None:
    """AM-08, AM-09, AM-10: fails if a target lacks a good sector, or knows not what it lacks."""
    wish = {"reverse": order == "reverse", "metadata_first": order == "metadata"}
    outcome, medium = run(targets, Faults(bad=BAD), rescue=wish)
    assert all(item.error is None for item in outcome.targets)
    _check_all(targets, BAD)
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
    assert outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD)).hexdigest()
    assert outcome.report.bytes_read == SIZE - sum(length for _, length in BAD)
    files = _files(targets)
    first = next((target for target in targets if target in files), None)
    assert _left() == files | ({f"{first}.map"} if first else set())
    singles = [read.offset for read in medium.failing if read.length == 512]
    assert len(singles) == len(set(singles)), "a bad sector is tried once, without --retries"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("targets", SETS)
def test_a_failing_medium_suffers_no_more_than_for_one_raw_file(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...], workers: int
) -> None:
    """Fails if each target more costs the medium reads: bad ones, or good ones again."""
    _, alone = run(("alone.raw",), Faults(bad=BAD), workers=workers)
    _, medium = run(targets, Faults(bad=BAD), workers=workers)
    assert len(medium.failing) <= len(alone.failing)
    # Whoever looks for file systems reads the beginning and the end aside.
    good = [read for read in medium.log if read.is_good]
    aside = Runs.of([(0, MIB), (SIZE - MIB, MIB)])
    seen = Runs.of(())
    again = 0
    for read in good:
        this = Runs.of([(read.offset, read.length)])
        again += ((this & seen) - (aside if REPO in targets else Runs.of(()))).total
        seen |= this
    # One sector tells in the end whether the medium, whose last reads failed, is still there.
    assert again <= 512, "a good area is read twice"
    assert seen.total == SIZE - sum(length for _, length in BAD)


@pytest.mark.parametrize("targets", SETS)
def test_a_good_medium_is_read_once_and_leaves_nothing(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...]
) -> None:
    """Fails if every capture into several targets pays for rescues."""
    outcome, medium = run(targets, Faults(), rescue={"retries": 3})
    _check_all(targets, ())
    assert not outcome.report.bad
    assert _left() == _files(targets)
    if REPO not in targets:
        assert sum(read.length for read in medium.log) == SIZE


@pytest.mark.parametrize("targets", [("a.E01", "b.raw"), ("a.E01", "c.qcow2")])
def test_options_of_a_rescue_do_what_they_say(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...]
) -> None:
    """AM-10: fails if retries, fill, merge or map are taken and then do nothing."""
    weak = {(3 * MIB + 1024, 512): 5}
    outcome, _ = run(targets, Faults(weak=weak), rescue={"retries": 4})
    assert not outcome.report.bad
    _check_all(targets, ())
    assert _left() == set(targets)

    Path("other.img").write_bytes(_expected(BAD[1:], b"\xee"))
    Path("other.map").write_text(bad_map(SIZE, BAD[1:]))
    wish = {
        "fill": b"BAD!",
        "merge": (("other.img", Path("other.map")),),
        "map_path": Path("x.map"),
    }
    outcome, medium = run(targets, Faults(bad=BAD), force=True, rescue=wish)
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD[1:])
    assert sum(read.length for read in medium.log if read.is_good) < 9 * 512 + 512
    for target in targets:
        with imprint.open(target) as disk:
            assert disk.read_at(0, SIZE) == _expected(BAD[1:], b"BAD!"), target
    assert (
        outcome.report.hashes["sha256"] == hashlib.sha256(_expected(BAD[1:], b"BAD!")).hexdigest()
    )
    assert _left() == {*targets, "other.img", "other.map", "x.map"}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("targets", SETS)
def test_all_targets_have_the_pattern(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...], workers: int
) -> None:
    """AM-10: fails if one target has another fill than the rest, or a hash that is not of it."""
    expected = _expected(BAD, b"BAD!")
    outcome, _ = run(targets, Faults(bad=BAD), rescue={"fill": b"BAD!"}, workers=workers)
    assert all(item.error is None for item in outcome.targets)
    for target in targets:
        says_it = target.endswith(".aff4")  # and keeps no bytes
        with imprint.open(target) as disk:
            assert disk.read_at(0, SIZE) == (_expected(BAD) if says_it else expected), target
    assert outcome.report.hashes["sha256"] == hashlib.sha256(expected).hexdigest()
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
    for item in outcome.targets:
        if item.snapshot is not None:
            assert item.snapshot.manifest.hashes == outcome.report.hashes
            assert any("0x42414421" in note for note in item.snapshot.manifest.notes)
    files = _files(targets)
    first = next((target for target in targets if target in files), "lab_disk.rescue")
    assert _left() == files | {f"{first}.map"}


def test_a_read_that_does_not_come_back_is_given_up(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if one sector that hangs keeps all targets from getting the others."""
    faults = Faults(hanging=((3 * MIB, 512),))
    try:
        outcome, _ = run(("a.E01", "b.raw"), faults, rescue={"timeout_s": 0.2})
    finally:
        faults.released.set()
    assert [(extent.offset, extent.length) for extent in outcome.report.bad] == [(3 * MIB, 512)]
    _check_all(("a.E01", "b.raw"), ((3 * MIB, 512),))


def _captured(
    targets: tuple[str, ...],
    *,
    strict: bool = False,
    at: int = 1 << 20,
    links: int = -1,
    full: str = "",
    options: dict[str, str] | None = None,
    bad: tuple[tuple[int, int], ...] = BAD,
) -> subprocess.CompletedProcess[str]:
    """A capture that is killed at a read, or before or behind a link, or has a full disk."""
    words = repr((targets, strict, at, links, full, options or {}, bad))
    return subprocess.run(
        [sys.executable, "-c", CAPTURE, words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("at", [1, 4, 9, 40, 300, 2100])
@pytest.mark.parametrize("targets", [("a.E01", "b.raw"), ("a.E01", "c.qcow2", REPO)])
def test_a_killed_rescue_goes_on_where_it_was(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...], at: int
) -> None:
    """Fails if kill -9 at a read loses what was read, or leaves a target wrong."""
    assert _captured(targets, at=at).returncode in (-signal.SIGKILL, 0)
    if not (_left() & set(targets)):
        outcome, medium = run(targets, Faults(bad=BAD))
        assert [(extent.offset, extent.length) for extent in outcome.report.bad] == list(BAD)
        digest = hashlib.sha256(_expected(BAD)).hexdigest()
        assert outcome.report.hashes["sha256"] == digest
        if "b.raw" in targets and at >= 300:
            assert outcome.report.resumed_at >= 2 * MIB
            assert sum(read.length for read in medium.log if read.is_good) < SIZE - MIB
    _check_all(targets, BAD)
    assert _left() == {*_files(targets), "a.E01.map"}


@pytest.mark.parametrize("links", [0, 1, 2, 3])
@pytest.mark.parametrize("targets", [("a.E01", "b.raw"), ("a.E01", "c.qcow2", "d.vmdk")])
def test_killed_while_targets_take_their_names_it_goes_on(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...], links: int
) -> None:
    """Fails if a target that is whole already keeps the same command from making the others."""
    done = _captured(targets, links=links)
    assert done.returncode in (-signal.SIGKILL, 0), done.stderr
    if done.returncode:
        _, medium = run(targets, Faults(bad=BAD))
        assert sum(read.length for read in medium.log if read.is_good) < 3 * MIB
    _check_all(targets, BAD)
    assert _left() == {*targets, "a.E01.map"}


@pytest.mark.parametrize("links", [1, 2, 3, 4])
def test_killed_while_an_image_of_several_files_takes_its_names_it_goes_on(
    run: Callable[..., tuple[Outcome, BadMedium]], links: int
) -> None:
    """Fails if segments of two attempts are mixed, or one of them is in the way."""
    targets, options = ("a.E01", "b.raw"), {"segment_size": str(2 * MIB)}
    assert _captured(targets, links=links, options=options).returncode == -signal.SIGKILL
    run(targets, Faults(bad=BAD), target=options)
    _check_all(targets, BAD)
    assert _left() == {*targets, "a.E02", "a.E03", "a.E01.map"}


def test_what_one_target_has_begun_several_go_on_with_and_the_reverse(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if somebody who wants a second target later has to read the medium again."""
    for first, second in (
        (("b.raw",), ("b.raw", "a.E01")),
        (("a.E01",), ("a.E01", "b.raw")),
        (("b.raw", "a.E01"), ("b.raw",)),
        (("a.E01", "c.qcow2"), ("a.E01",)),
    ):
        with pytest.raises(ReadError):
            run(first, Faults(bad=BAD, gone_after=40), rescue={"reverse": True})
        outcome, _ = run(second, Faults(bad=BAD))
        assert outcome.report.resumed_at > 0
        _check_all(second, BAD)
        assert _left() == {*second, f"{second[0]}.map"}
        for name in _left():
            Path(name).unlink()


@pytest.mark.parametrize("targets", [("a.E01", "b.raw"), ("a.E01", REPO)])
def test_an_interrupted_rescue_goes_on(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...]
) -> None:
    """Fails if Ctrl-C does not stop a rescue for several targets, or throws it away."""
    token = CancelToken()

    def on_read(medium: BadMedium) -> None:
        if len(medium.log) == 60:
            token.cancel()

    with pytest.raises(Cancelled):
        run(targets, Faults(bad=BAD), rescue={"reverse": True}, cancel=token, on_read=on_read)
    work = "b.raw.partial" if "b.raw" in targets else "a.E01.rescue"
    assert _left() == {work, "a.E01.map", "a.E01.rescue.targets"}
    outcome, _ = run(targets, Faults(bad=BAD))
    assert outcome.report.resumed_at > 0
    _check_all(targets, BAD)


def test_a_file_that_came_meanwhile_is_not_replaced(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if going on with a rescue overwrites what somebody else has put there."""
    targets = ("a.E01", "b.raw", "c.qcow2")
    assert _captured(targets, at=300).returncode == -signal.SIGKILL
    for name in targets:
        Path(name).write_bytes(b"theirs")
        with pytest.raises(RefusedError):
            run(targets, Faults(bad=BAD))
        assert Path(name).read_bytes() == b"theirs"
        Path(name).unlink()
    run(targets, Faults(bad=BAD))
    _check_all(targets, BAD)


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO])
@pytest.mark.parametrize("targets", [("a.E01", "b.raw"), (REPO, "a.E01")])
def test_a_medium_that_vanishes_is_gone_on_with(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...], code: int
) -> None:
    """Fails if a pulled cable makes bad sectors, or the next attempt starts over."""
    with pytest.raises(ReadError) as caught:
        run(targets, Faults(bad=BAD, gone_after=40, code=code), rescue={"reverse": True})
    assert "goes on" in str(caught.value.advice)
    work = "b.raw.partial" if "b.raw" in targets else "a.E01.rescue"
    assert _left() == {work, "a.E01.map", "a.E01.rescue.targets"}
    with pytest.raises(RefusedError):
        run(targets, Faults(), content=bytes(reversed(CONTENT)))
    assert _left() == {work, "a.E01.map", "a.E01.rescue.targets"}
    outcome, _ = run(targets, Faults(bad=BAD), resume=True)
    assert 0 < outcome.report.resumed_at < SIZE
    _check_all(targets, BAD)
    assert _left() == {*_files(targets), "a.E01.map"}


@pytest.mark.parametrize("targets", [("a.E01", "b.raw"), ("a.E01", "c.qcow2", REPO)])
def test_no_resume_starts_over(
    run: Callable[..., tuple[Outcome, BadMedium]], targets: tuple[str, ...]
) -> None:
    """Fails if what an earlier attempt has left cannot be got rid of, or is mixed in."""
    assert _captured(targets, at=300).returncode == -signal.SIGKILL
    outcome, _ = run(targets, Faults(), resume=False)
    assert outcome.report.resumed_at == 0
    _check_all(targets, ())
    assert _left() == _files(targets)


def test_finished_targets_can_be_tried_again(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if more retries need the whole medium to be read again."""
    targets = ("a.E01", "b.raw")
    run(targets, Faults(bad=BAD[1:], weak={BAD[0]: 4}))
    _check_all(targets, BAD)
    with pytest.raises(RefusedError):
        run(targets, Faults(bad=BAD[1:]))
    with pytest.raises(RefusedError):
        run(targets, Faults(bad=BAD[1:]), resume=True)
    _, medium = run(targets, Faults(bad=BAD[1:]), resume=True, force=True, rescue={"retries": 1})
    assert len(medium.failing) == 10
    _check_all(targets, BAD[1:])


@pytest.mark.parametrize("full", ["c.vmdk.partial", "b.raw.partial"])
def test_a_target_without_room_does_not_stop_the_others(
    run: Callable[..., tuple[Outcome, BadMedium]], full: str
) -> None:
    """AO-04: fails if a full disk costs other targets, or reading the medium again."""
    targets = ("a.E01", "b.raw", "c.vmdk") if "c." in full else ("a.E01", "c.vmdk", "b.raw")
    done = _captured(targets, full=full)
    if "c." in full:
        assert done.stdout.strip() == "[True, True, False]", done.stderr
        assert _left() == {"a.E01", "b.raw", "a.E01.map", "a.E01.rescue.targets"}
    else:  # what is rescued is there
        assert done.returncode != 0 or "True" not in done.stdout
        assert _left() == {"b.raw.partial", "a.E01.map", "a.E01.rescue.targets"}
    _, medium = run(targets, Faults(bad=BAD))
    assert sum(read.length for read in medium.log if read.is_good) < SIZE - MIB
    _check_all(targets, BAD)
    assert _left() == {*targets, "a.E01.map"}


def test_a_raw_file_without_room_is_not_rescued_into(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """AO-04: fails if the others are lost with a target that had failed before the medium did."""
    targets, bad = ("a.E01", "b.raw", "c.qcow2"), ((30 * MIB + 512, 512),)
    content = bytes(3 * MIB) + CONTENT[:MIB] + bytes(36 * MIB)  # nobody is 24 MiB ahead of b.raw
    Path("medium").write_bytes(content)
    done = _captured(targets, full="b.raw.partial", bad=bad)
    assert done.stdout.strip() == "[True, False, True]", done.stderr
    left = {"a.E01.map", "a.E01.rescue", "a.E01.rescue.targets"}
    assert _left() == {"a.E01", "c.qcow2", *left}
    outcome, medium = run(targets, Faults(bad=bad), content=content)
    assert all(item.error is None for item in outcome.targets)
    assert Path("b.raw").read_bytes() == content
    assert sum(read.length for read in medium.log if read.is_good) < 32 * MIB
    assert _left() == {*targets, "a.E01.map"}


def test_if_it_is_strict_one_failing_target_stops_all(
    run: Callable[..., tuple[Outcome, BadMedium]],
) -> None:
    """Fails if somebody who wants all or nothing gets some, or reads the medium twice for it."""
    targets = ("a.E01", "b.raw", "c.vmdk")
    done = _captured(targets, strict=True, full="c.vmdk.partial")
    assert done.stdout.strip() == "[False, False, False]", done.stderr
    assert _left() <= {"b.raw.partial", "a.E01.map", "a.E01.rescue.targets"}
    run(targets, Faults(bad=BAD), strict=True)
    _check_all(targets, BAD)
    assert _left() == {*targets, "a.E01.map"}


def test_what_makes_no_sense_is_refused(run: Callable[..., tuple[Outcome, BadMedium]]) -> None:
    """Fails if an option is taken and then does nothing, or if a file of a rescue is replaced."""
    targets = ("a.E01", "b.raw")
    with pytest.raises(UsageError):
        run(targets, Faults(), resume=True)
    with pytest.raises(RefusedError):
        run(targets, Faults(), rescue={"map_path": Path("b.raw")})
    for name in ("a.E01.map", "a.E01.rescue"):
        Path(name).write_text("theirs")
        with pytest.raises(RefusedError):
            run(targets, Faults(bad=BAD))
        assert Path(name).read_text() == "theirs"
        Path(name).unlink()
    Path("a.E01.rescue.targets").write_text(json.dumps([1]))
    with pytest.raises(RefusedError):
        run(targets, Faults(bad=BAD))
    assert _left() == {"a.E01.rescue.targets"}
