"""Reports that are interrupted, and the journal that lets them go on."""

from __future__ import annotations

import random
import re
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled, PassphraseError
from imprint.core.events import Event, Progress, ignore
from imprint.core.units import MIB
from imprint.endpoints.browsing import Browser
from imprint.endpoints.report import making, spool, timeline
from imprint.endpoints.report.making import make_report
from imprint.endpoints.report.request import ReportOutcome, ReportRequest
from imprint.storage.file import FileStorage
from imprint.testing.faults import WrappedStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("pytsk3")
pytestmark = pytest.mark.oracle("mkfs.ext4")

FILES: Final = 60


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Files that are large enough to be hashed in several steps."""
    noise = random.Random(9)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(FILES):
        (tree / f"file{number:02}").write_bytes(noise.randbytes(200_000))
    path = tmp_path / "image.raw"
    run("mkfs.ext4", "-q", "-F", "-d", tree, path, "24M")
    return path


def refuse(name: str) -> bytes:
    raise PassphraseError("is not looked into", name=name)


def report(
    image: Path,
    request: ReportRequest,
    *,
    on_event: Callable[[Event], None] = ignore,
    cancel: CancelToken | None = None,
) -> tuple[ReportOutcome, int]:
    """What comes of it, and how many bytes of the disk were read in large pieces."""

    class Counting(WrappedStorage):
        count = 0

        def readinto(self, buffer: memoryview, offset: int) -> None:
            if len(buffer) >= MIB:
                Counting.count += len(buffer)
            super().readinto(buffer, offset)

    with closing(Browser(Counting(FileStorage.open(image)), refuse)) as browser:
        outcome = make_report(browser, str(image), request, on_event=on_event, cancel=cancel)
    return outcome, Counting.count


def text_of(path: Path) -> str:
    """A document without what differs from run to run."""
    return re.sub(r"<start_time>.*?</start_time>", "", path.read_text())


def interrupt(image: Path, request: ReportRequest) -> None:
    """Begin a report, and stop it when a third of it is done."""
    cancel = CancelToken()

    def watch(event: Event) -> None:
        if isinstance(event, Progress) and event.done * 3 >= event.total:
            cancel.cancel()

    with pytest.raises(Cancelled):
        report(image, request, on_event=watch, cancel=cancel)


def request_to(path: Path, **more: object) -> ReportRequest:
    return ReportRequest(dfxml=path, hashes=("md5", "sha256"), workers=1, **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imprint.transfer.pace.INTERVAL_S", 0.0)


def test_an_interrupted_report_goes_on(image: Path, tmp_path: Path) -> None:
    """Fails if what was hashed is read again, or the report differs from one in one piece."""
    whole, out = tmp_path / "whole.xml", tmp_path / "out.xml"
    _, all_bytes = report(image, request_to(whole))
    interrupt(image, request_to(out))
    assert not out.exists()
    assert (tmp_path / "out.xml.partial.journal").exists()
    outcome, read = report(image, request_to(out))
    assert 0 < outcome.resumed < FILES
    assert outcome.hashed == FILES
    assert read < all_bytes
    assert text_of(out) == text_of(whole)
    assert not list(tmp_path.glob("*.partial*"))


def test_a_journal_of_something_else_is_not_believed(image: Path, tmp_path: Path) -> None:
    """Fails if hashes of another image, of other kinds, or of a changed file are taken over."""
    out = tmp_path / "out.xml"
    interrupt(image, request_to(out))
    journal = tmp_path / "out.xml.partial.journal"
    kept = journal.read_bytes()
    other = ReportRequest(dfxml=out, hashes=("sha1",), force=True)
    assert report(image, other)[0].resumed == 0
    journal.write_bytes(kept)
    assert report(image, request_to(out, force=True, resume=False))[0].resumed == 0
    journal.write_bytes(kept)
    assert report(image, request_to(out, force=True, deleted=True))[0].resumed == 0
    journal.write_bytes(kept)
    with image.open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"changed")
    assert report(image, request_to(out, force=True))[0].resumed == 0


def test_a_torn_journal_is_believed_as_far_as_it_is_sound(image: Path, tmp_path: Path) -> None:
    """Fails if a crash in the midst of a record gives a wrong hash, or stops the next report."""
    whole, out = tmp_path / "whole.xml", tmp_path / "out.xml"
    report(image, request_to(whole))
    interrupt(image, request_to(out))
    journal = tmp_path / "out.xml.partial.journal"
    kept = journal.read_bytes()
    dice = random.Random(4)
    for _ in range(6):
        torn = bytearray(kept[: dice.randrange(len(kept))])
        if torn and dice.random() < 0.5:
            torn[dice.randrange(len(torn))] ^= 0x40
        journal.write_bytes(torn)
        report(image, request_to(out, force=True))
        assert text_of(out) == text_of(whole)


def test_what_does_not_fit_into_memory_is_the_same(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a report in many parts, with files between, differs from one of one part."""
    whole, out = tmp_path / "whole.xml", tmp_path / "out.xml"
    report(image, request_to(whole, timeline=tmp_path / "whole.csv", timeline_is_csv=True))
    monkeypatch.setattr(making, "SWEEP_FILES", 10)
    monkeypatch.setattr("imprint.endpoints.report.gathering.BATCH_FILES", 4)
    monkeypatch.setattr(spool, "MEMORY_MAX", 1000)
    monkeypatch.setattr(timeline, "_SORTED_MAX", 7)
    report(image, request_to(out, timeline=tmp_path / "out.csv", timeline_is_csv=True))
    assert text_of(out) == text_of(whole)
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_report_in_parts_goes_on_in_its_part(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if hashes of one part of a report are given to files of another."""
    monkeypatch.setattr(making, "SWEEP_FILES", 10)
    monkeypatch.setattr("imprint.endpoints.report.gathering.BATCH_FILES", 10)
    whole, out = tmp_path / "whole.xml", tmp_path / "out.xml"
    report(image, request_to(whole))
    cancel = CancelToken()
    seen: set[int] = set()

    def watch(event: Event) -> None:
        if isinstance(event, Progress) and event.done == event.total:
            seen.add(id(event))
            if len(seen) == 6:
                cancel.cancel()

    with pytest.raises(Cancelled):
        report(image, request_to(out), on_event=watch, cancel=cancel)
    outcome, _ = report(image, request_to(out))
    assert outcome.resumed > 0
    assert text_of(out) == text_of(whole)
