"""Making a report: each volume is walked once, and its files are read once."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.core.cancel import CancelToken
from imprint.core.errors import FormatError, ReadError, UnsupportedFeatureError, UsageError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.system import exists
from imprint.core.units import format_size
from imprint.endpoints.journal import journal_path
from imprint.endpoints.location import Where, parse
from imprint.endpoints.report import document
from imprint.endpoints.report.gathering import batches
from imprint.endpoints.report.journal import Journal
from imprint.endpoints.report.page import Page
from imprint.endpoints.report.planning import Files
from imprint.endpoints.report.records import Tails
from imprint.endpoints.report.request import ReportOutcome, VolumeOutcome
from imprint.endpoints.report.results import DONE, Results
from imprint.endpoints.report.sinks import Sink
from imprint.endpoints.report.spool import Spool
from imprint.endpoints.report.timeline import BodyFile, Events
from imprint.endpoints.survey import describe
from imprint.endpoints.target import check_not_read
from imprint.filesystems.tree import NameDating, Type
from imprint.filesystems.trees import READERS

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.endpoints.browsing import BrowsedVolume, Browser
    from imprint.endpoints.report.gathering import Batch
    from imprint.endpoints.report.request import ReportRequest
    from imprint.endpoints.report.timeline import Timeline
    from imprint.filesystems.tree import FileTree

SWEEP_FILES: Final = 1 << 19
"""That are hashed in one pass over a volume; of those with more, each part of so many has one."""

SWEEP_PLACES: Final = 1 << 20
"""Of files in several pieces, in one pass; a hostile file system has no end of them."""

PROBLEMS_MAX: Final = 16
"""That are told of one volume."""


def make_report(
    browser: Browser,
    image: str,
    request: ReportRequest,
    *,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> ReportOutcome:
    """Report on a disk; files show when they are whole.

    Args:
        browser: of the disk.
        image: its address, as the report names it.
        request: what is to be made.
        on_event: told about progress and problems.
        cancel: stops it; what was hashed is kept for the next attempt.

    Raises:
        RefusedError: if a file exists that may not be replaced.
        UnsupportedFeatureError: if nothing lists files of the only volume.
        Cancelled: if ``cancel`` was set.
        ImagingError: of the kind that says what is wrong.
    """
    making = _Making(browser, image, request, on_event, cancel or CancelToken())
    try:
        making.run()
    except BaseException:
        making.abort()
        raise
    return making.outcome


class _Making:
    """One report."""

    def __init__(
        self,
        browser: Browser,
        image: str,
        request: ReportRequest,
        on_event: OnEvent,
        cancel: CancelToken,
    ) -> None:
        self._browser = browser
        self._image = image
        self._request = request
        self._on_event = on_event
        self._cancel = cancel
        self._sinks: list[Sink] = []
        self._journal: Journal | None = None
        self._files = 0
        self.outcome = ReportOutcome()
        try:
            self._open()
        except BaseException:
            self.abort()
            raise

    def _open(self) -> None:
        """The files, and the journal beside the first of them."""
        request = self._request
        paths = [path for path in (request.dfxml, request.timeline, request.html) if path]
        if len({path.absolute() for path in paths}) < len(paths):
            raise UsageError("expected a file for each of -o, --timeline and --html")
        folder = paths[0].absolute().parent if paths else None
        self._spool = Spool(folder)
        self._dfxml = self._sink(request.dfxml)
        if request.stream is not None and self._dfxml is None:
            self._dfxml = Sink(request.stream)
            self._sinks.append(self._dfxml)
        timeline = self._sink(request.timeline)
        self._timeline: Timeline | None = None
        if timeline is not None:
            is_csv = request.timeline_is_csv
            self._timeline = Events(timeline.write, folder) if is_csv else BodyFile(timeline.write)
        page = self._sink(request.html)
        self._page = None if page is None else Page(page.write)
        self._names = request.hashes if self._dfxml is not None else ()
        if self._names and request.dfxml is not None:
            facts = {
                **_identity(self._image),
                "size": self._browser.source.size,
                "hashes": list(self._names),
                "replays": self._browser.replays,
            }
            width = Results(self._names).width
            path = journal_path(request.dfxml)
            self._journal = Journal(path, facts, width, resume=request.resume)

    def _sink(self, path: Path | None) -> Sink | None:
        if path is None:
            return None
        check_not_read(path, self._browser.source)
        sink = Sink.to_file(path, force=self._request.force)
        self._sinks.append(sink)
        return sink

    def run(self) -> None:
        """Make it."""
        disk = self._browser.source
        volumes = self._browser.volumes()
        if self._dfxml is not None:
            start = document.opening(self._image, disk, describe(disk), self._request.command_line)
            self._dfxml.write(start)
        for number, volume in enumerate(volumes, 1):
            self._cancel.check()
            outcome = VolumeOutcome(volume.name, volume.kind, volume.source.size)
            self.outcome.volumes.append(outcome)
            if self._dfxml is not None:
                deleted = self._request.deleted
                self._dfxml.write(document.volume_start(volume, disk, deleted=deleted))
            self._volume(volume, number, outcome, is_only=len(volumes) == 1)
            self._tell(volume, outcome)
            if self._dfxml is not None:
                self._dfxml.write(document.volume_end(outcome.problems))
        self._end()

    def _end(self) -> None:
        if self._dfxml is not None:
            self._dfxml.write(document.closing_text())
        if self._timeline is not None:
            self._timeline.end()
        if self._page is not None:
            outcome = self.outcome
            size = format_size(self._browser.source.size)
            kinds = ", ".join(
                f"{item.name or 'disk'}: {item.filesystem or 'not known'}, {item.files} files"
                for item in outcome.volumes
            )
            notes = [text for item in outcome.volumes for text in item.problems]
            self._page.end(self._image, f"{size}; {kinds}", notes)
        for sink in self._sinks:
            sink.commit()
        if self._journal is not None:
            self._journal.discard()

    def abort(self) -> None:
        """Leave nothing but the journal."""
        for sink in self._sinks:
            sink.abort()
        if self._journal is not None:
            self._journal.end()
            self._journal.close()

    def _tree(self, volume: BrowsedVolume) -> FileTree:
        """The files of a volume, and for timelines the times of their names."""
        tree = self._browser.tree(volume)
        if self._timeline is not None and isinstance(tree, NameDating):
            tree.date_names()
        return tree

    def _volume(
        self, volume: BrowsedVolume, number: int, outcome: VolumeOutcome, *, is_only: bool
    ) -> None:
        """All of a volume but the beginning and the end of its element."""
        if volume.problem is None and volume.kind not in READERS:
            if is_only:
                what = f"files of {volume.kind}" if volume.kind else "what is on it"
                raise UnsupportedFeatureError(f"{what} cannot be listed", name=volume.source.name)
            return
        try:
            tree = self._tree(volume)
        except UnsupportedFeatureError as failure:
            if is_only:
                raise
            outcome.problems.append(_said(failure))
            return
        except (FormatError, ReadError) as failure:
            outcome.problems.append(_said(failure))
            return
        assert volume.kind is not None
        for taker in (self._timeline, self._page):
            if taker is not None:
                taker.begin(volume.name, volume.kind)
        told = self._browser.told(volume)
        files = Files(told, number, self._files + 1, self._browser.source)
        results = Results(self._names)
        found = batches(
            tree,
            told.source,
            deleted=self._request.deleted,
            contents=self._dfxml is not None,
        )
        with self._browser.lock(volume), closing(found):
            try:
                for batch in found:
                    self._cancel.check()
                    self._batch(batch, files, results, outcome)
                    if len(results.states) >= SWEEP_FILES or files.places >= SWEEP_PLACES:
                        self._finish(files, results)
                        results = Results(self._names)
            except (FormatError, ReadError) as failure:
                outcome.problems.append(_said(failure))
        self._finish(files, results)
        notes = list(dict.fromkeys(tree.notes))  # also those of when it was opened
        outcome.problems += notes[:PROBLEMS_MAX]
        more = len(notes) - PROBLEMS_MAX
        if more > 0:
            outcome.problems.append(f"{more} more of the kind")

    def _batch(self, batch: Batch, files: Files, results: Results, outcome: VolumeOutcome) -> None:
        entries, special = batch
        parents = files.parents(entries, self._files)
        if self._dfxml is not None:
            head = files.records.head
            heads = [
                head(entry, parent[1] if parent else None, special.get(index))
                for index, (entry, parent) in enumerate(zip(entries, parents, strict=True))
            ]
            block = self._spool.add(heads)
            if self._journal is not None:
                files.digest.update(memoryview(block))
            for index, entry in enumerate(entries):
                files.plan(entry, special.get(index), results)
        if self._timeline is not None:
            self._timeline.add(entries)
        if self._page is not None:
            self._page.add(entries, [parent[0] if parent else -1 for parent in parents])
        self._files += len(entries)
        folders = sum(1 for entry in entries if entry.type is Type.DIRECTORY)
        outcome.folders += folders
        outcome.files += len(entries) - folders
        outcome.deleted += sum(1 for entry in entries if entry.is_deleted)

    def _finish(self, files: Files, results: Results) -> None:
        """Hash what was gathered, and write it."""
        if self._dfxml is None:
            return
        results.close()
        sweep = files.sweep(results, self._request.workers)
        if self._journal is not None:
            self.outcome.resumed += self._journal.begin(files.name_of_batch(), results)
        sweep.run(self._on_event, self._cancel)
        if self._journal is not None:
            self._journal.end()
        files.copy_twins(results)
        self.outcome.bytes_read += sweep.bytes_read
        self.outcome.hashed += results.states.count(DONE)
        self.outcome.unreadable += len(results.errors)
        tails = Tails(results)
        first = 0
        for heads in self._spool.taken():
            self._dfxml.write(tails.finished(heads, first))
            first += len(heads)
        if self._page is not None:
            for number, why in results.errors.items():
                self._page.fail(self._files - first + number, why)

    def _tell(self, volume: BrowsedVolume, outcome: VolumeOutcome) -> None:
        for problem in outcome.problems:
            self._on_event(Finding(Severity.WARNING, volume.where, problem))


def _said(failure: FormatError | ReadError) -> str:
    return str(failure.args[0])


def _identity(image: str) -> dict[str, object]:
    """Of what the report is; if a file was changed, it is another one."""
    location = parse(image)
    outermost = location.outermost
    if outermost.where is not Where.FILE:
        return {"image": image}
    path = outermost.path.absolute()
    changed = path.stat().st_mtime_ns if exists(path) else None
    return {"image": image, "path": str(path), "changed": changed}
