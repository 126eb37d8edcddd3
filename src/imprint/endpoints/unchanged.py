"""What of a disk its file systems say to be as it was in a snapshot of it, content unread.

The snapshot has the metadata of then, verified like all of it, so nothing has to be kept beside
it: both states are walked, file by file, and the extents of those files that are in the same
state are taken for unchanged. All else may have changed: tables and folders, new files, free
space, and whole volumes of which there is any doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, RepositoryError
from imprint.core.events import Finding, Severity, ignore
from imprint.core.runs import Runs
from imprint.core.units import format_size
from imprint.endpoints.location import parse
from imprint.endpoints.survey import describe
from imprint.endpoints.used import VolumeTree, users_of
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.states import Dating, is_written_past
from imprint.filesystems.table import allocator
from imprint.filters.used import UsedOnly
from imprint.objects.contract import MissingObjectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from imprint.core.contracts import Passphrase, Source
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.used import Volume
    from imprint.filesystems.states import FileState, States
    from imprint.repository.source import SnapshotSource

_YOUNG_NS: Final = 2 * 10**9
"""A file that was changed so shortly before the snapshot may have changed after it with no other
time: where times are whole seconds, or where a clock was wrong by a little."""

_RUNS_MAX: Final = 1 << 19
"""Of what is unchanged. Beyond, the shortest ones are read all the same, so that memory is bounded:
some 100 MiB while they are united."""

_BATCH: Final = 1 << 14
"""Files between two looks at what is collected."""

_UNSETTABLE: Final = "programs can set all times that its files have"
_REASONS: Final = {"vfat": _UNSETTABLE, "exfat": _UNSETTABLE, "swap": "it holds no files"}

_FAILURES: Final = (FormatError, ReadError, RepositoryError, MissingObjectError)


class _DoubtError(Exception):
    """All of a volume has to be read, and why; whether that is noteworthy."""

    def __init__(self, why: str, severity: Severity = Severity.WARNING) -> None:
        super().__init__(why)
        self.severity = severity


def changed_by_files(source: Source, older: SnapshotSource, request: CopyRequest) -> Runs | None:
    """What of a disk may differ from a snapshot of it; ``None``: anything. Tells what it finds.

    Args:
        source: the disk as it is now; as large as that of the snapshot.
        older: the disk of the snapshot.
        request: that ``source`` was opened for.
    """
    on_event, where = request.on_event, request.source
    in_use = users_of(parse(where))
    if in_use is not None:
        what = f"all of it is read: the disk may change while it is read: {in_use}"
        on_event(Finding(Severity.WARNING, where, what))
        return None
    disk = source.source if isinstance(source, UsedOnly) else source
    passphrase = request.access.gate().passphrase
    try:
        before = {item.where: item for item in _volumes(older, passphrase)}
        now = list(_volumes(disk, passphrase))
    except _FAILURES as failure:
        on_event(Finding(Severity.WARNING, where, f"all of it is read: {failure.args[0]}"))
        return None
    comparison = _Comparison(older.snapshot.manifest.taken, request)
    unchanged, others = [], []
    for volume in now:
        part = comparison.unchanged_part(before.get(volume.where), volume)
        unchanged.append(volume.to_disk(part))
        # What several volumes have is unchanged only if all of them say so.
        others.append(volume.to_disk(part.complement(volume.source.size)))
    found = Runs.union(unchanged) - Runs.union(others)
    what = f"{comparison.same} files of {comparison.files} are as in snapshot "
    what += f"{older.snapshot.short}: {format_size(found.total)} is not read"
    on_event(Finding(Severity.INFO, where, what))
    return found.complement(source.size)


def _volumes(disk: Source, passphrase: Passphrase) -> Iterator[Volume]:
    yield from VolumeTree(disk, describe(disk), passphrase, ignore).volumes()


class _Comparison:
    """Compares the volumes of two states of a disk.

    Attributes:
        files: how many there were in volumes that could be compared.
        same: how many of these have the same content.
    """

    def __init__(self, taken: datetime, request: CopyRequest) -> None:
        """``taken``: when the older state was read."""
        self.files = self.same = 0
        self._taken_ns = int(taken.timestamp()) * 10**9
        self._request = request

    def unchanged_part(self, before: Volume | None, volume: Volume) -> Runs:
        """What of a volume is as it was, in its own bytes; tells why if it may not be any of it."""
        files, same = self.files, self.same
        try:
            return self._unchanged(before, volume)
        except _DoubtError as doubt:
            why, severity = str(doubt), doubt.severity
        except _FAILURES as failure:
            why, severity = str(failure.args[0]), Severity.WARNING
        self.files, self.same = files, same
        kind = volume.kind or "unknown"
        what = f"the whole {kind} volume is read, changed or not: {why}"
        self._request.on_event(Finding(severity, volume.where, what))
        return Runs.of([])

    def _unchanged(self, before: Volume | None, volume: Volume) -> Runs:
        file_system = None if volume.kind is None else allocator(volume.kind)
        if volume.kind is None:
            raise _DoubtError("what it holds is not known", Severity.INFO)
        if not isinstance(file_system, Dating):
            why = _REASONS.get(volume.kind, "its files do not say here when they changed")
            raise _DoubtError(why, Severity.INFO)
        if before is None or (before.kind, before.spans) != (volume.kind, volume.spans):
            raise _DoubtError("the snapshot has no such volume at its place", Severity.INFO)
        ends = [0, *(span.end for span in volume.spans)]
        if any(span.start < end for span, end in zip(volume.spans, ends, strict=False)):
            raise _DoubtError("it is on the disk more than once")
        now, then = (file_system.states(item.source) for item in (volume, before))
        for doubt in now.doubts:
            raise _DoubtError(doubt)
        for doubt in then.doubts:
            raise _DoubtError(f"when the snapshot was taken: {doubt}")
        if now.identity != then.identity:
            raise _DoubtError("it is another one than in the snapshot", Severity.INFO)
        return self._compared(then, now, volume.source)

    def _compared(self, then: States, now: States, volume: Source) -> Runs:
        """The extents of files that are the same, but for what other files have of them, too."""
        young_ns = self._taken_ns - _YOUNG_NS
        if then.written_ns is not None:
            young_ns = min(young_ns, then.written_ns - _YOUNG_NS)
        unchanged, others = _Largest(), CollectedRuns()
        good: list[tuple[int, int]] = []
        bad: list[tuple[int, int]] = []
        for file, is_same in _paired(then.files, now.files):
            self.files += 1
            if is_same and file.changed_ns < young_ns and not is_written_past(volume, file):
                self.same += 1
                good += file.runs
            else:
                bad += file.runs
            if len(good) + len(bad) > _BATCH:
                if self._request.cancel is not None:
                    self._request.cancel.check()
                unchanged.add(Runs.of(good))
                others.add(Runs.of(bad))
                good, bad = [], []
        unchanged.add(Runs.of(good))
        others.add(Runs.of(bad))
        return (unchanged.runs() - others.runs()).clip(0, volume.size)


def _paired(
    then: Iterator[FileState], now: Iterator[FileState]
) -> Iterator[tuple[FileState, bool]]:
    """Each file as it is now, and whether it was the same then."""
    older = next(then, None)
    for file in now:
        while older is not None and older.number < file.number:
            older = next(then, None)
        is_same = (
            older is not None
            and older.number == file.number
            and older.state == file.state
            and older.runs == file.runs
        )
        yield file, is_same


class _Largest:
    """A union that keeps its number of runs bounded: if it must, it leaves the shortest out."""

    def __init__(self) -> None:
        self._parts: list[Runs] = []
        self._count = 0
        self._least = 0

    def add(self, runs: Runs) -> None:
        """Add a set."""
        self._parts.append(self._long(runs))
        self._count += len(self._parts[-1])
        while self._count > _RUNS_MAX:
            self._least = max(1, 2 * self._least)
            self._parts = [self._long(self.runs())]
            self._count = len(self._parts[0])

    def runs(self) -> Runs:
        """What was added, or less."""
        return Runs.union(self._parts)

    def _long(self, runs: Runs) -> Runs:
        if not self._least:
            return runs
        return Runs.of(run for run in runs if run[1] > self._least)
