"""A capture whose source fails: where the rescue goes, and how it goes on another time.

A target that can be written in any order and taken up again is rescued into; for all others
a raw file ``TARGET.rescue`` is made beside, and the target is written from it in its order. In
both cases ``TARGET.map`` says what has been read, from the first error on, so that the same
command goes on after any end.
"""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from imprint import formats
from imprint.core.contracts import Resumable
from imprint.core.errors import FormatError, ImagingError, ReadError, RefusedError, TargetError
from imprint.core.events import Finding, Severity
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Resuming
from imprint.core.limits import SPAN_BYTES
from imprint.core.runs import Runs
from imprint.core.system import exists, reason_of
from imprint.endpoints.location import parse
from imprint.endpoints.maps import MapKeeper, read_map, write_map
from imprint.endpoints.open import open_source
from imprint.endpoints.rescue_left import note_path, place_for, prepare_left
from imprint.endpoints.target import create_target, resume_target
from imprint.filters.mapped import Mapped
from imprint.filters.window import Window
from imprint.storage.device_target import HELD_BYTES, DeviceTarget
from imprint.storage.file import FileStorage
from imprint.transfer.recovery import Recovered
from imprint.transfer.rescue import mapfile
from imprint.transfer.rescue.engine import Engine, Settings
from imprint.transfer.rescue.reading import is_gone
from imprint.transfer.rescue.sink import Random, TargetSink, random_access
from imprint.transfer.rescue.states import Areas, State
from imprint.transfer.rescue.watching import Watching
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.core.contracts import Source, Target
    from imprint.core.formats import CreateSpec
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.journal import JournalFile
    from imprint.endpoints.rescue_left import Place
    from imprint.transfer.report import Report

_FAILED: Final = (State.UNTRIMMED, State.UNSCRAPED, State.BAD)
_LACKING: Final = (State.UNTRIED, *_FAILED)
_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 64 << 10
_NOTHING: Final = Runs.of(())
_ADVICE: Final = "what was read is kept: the same command goes on from there"


class Copy(Protocol):
    """Copies a disk into a target, of which the bytes below ``start`` are there already."""

    def __call__(self, source: Source, target: Target, /, *, start: int = 0) -> Report:
        """As :func:`imprint.transfer.copy.copy`."""


class Rescue:
    """The rescue of one capture, needed or not.

    Attributes:
        source: the medium, watched: what is to be copied.
        map_path: of its map.
    """

    def __init__(self, request: CopyRequest, source: Source, place: Place | None = None) -> None:
        """Takes over ``source``; ``place``: of the rescue, if not that for the one target."""
        self._request = request
        self._wish = request.rescue
        self._size = source.size
        self.source = Watching(source, timeout_s=self._wish.timeout_s, cancel=request.cancel)
        self._areas: Areas | None = None
        self._place = place or place_for(request)
        self.map_path: Final = self._place.map_path
        self._work_path = self._place.work_path

    @property
    def is_at_once(self) -> bool:
        """Whether there is something to do before anything has failed.

        A pattern goes over what the medium itself, an image with errors, says is bad, too.
        """
        if self._wish.is_at_once or not self._wish.fill:
            return self._wish.is_at_once
        return any(extent.kind is Kind.BAD for extent in self.source.extents(0, self._size))

    def for_target(self, target: Target, journal: JournalFile | None, start: int) -> Attached:
        """What helps a copy into ``target``, of which ``start`` bytes were there before."""
        return Attached(self, target, journal, start)

    def run_at_once(self, spec: CreateSpec, copy: Copy) -> Report | None:
        """Go on with what another run has left, or rescue before copying if that is wanted.

        Args:
            spec: of the target.
            copy: moves what was rescued, or only hashes it.

        Returns:
            ``None``: nothing of this, the disk is to be copied as usual.

        Raises:
            RefusedError: if what was left is of another disk.
        """
        is_left = prepare_left(self._request, self.map_path)
        if not is_left and not self.is_at_once:
            return None
        areas = read_map(self.map_path, self._size)[0] if is_left else Areas(self._size)
        resumed_at = areas.total(State.GOOD)
        if is_left:
            said = f"a rescue goes on: {resumed_at} of {self._size} bytes were read before"
            self._tell(Severity.INFO, said)
        if is_left and self._work_path is not None and not exists(self._work_path):
            target = resume_target(self._request.target, spec)
            disk = random_access(target)
            assert disk is not None
            report, bytes_read = self._in_place(target, disk, areas, copy, is_clear=False)
        else:
            target = create_target(self._request.target, spec)
            disk = self._direct(target)
            if disk is not None and not is_left:
                is_clear = target.traits.reads_zero
                report, bytes_read = self._in_place(target, disk, areas, copy, is_clear=is_clear)
            else:
                report, bytes_read = self._beside(target, areas, copy)
        report.bytes_read = bytes_read
        report.resumed_at = resumed_at
        report.bad = bad_in(areas)
        return report

    def finish(self, report: Report) -> None:
        """The target is whole: keep the map if something is missing, and nothing else."""
        if self._work_path is not None:
            self._work_path.unlink(missing_ok=True)
            note_path(self._work_path).unlink(missing_ok=True)
        areas = self._areas
        if not (report.bad and self._place.is_map_kept):
            if areas is not None and self._wish.map_path is None:
                self.map_path.unlink(missing_ok=True)
            elif areas is not None:
                write_map(self.map_path, areas, mapfile.Progress(self._size, mapfile.FINISHED))
            return
        if areas is None:
            areas = Areas(self._size)
            areas.set(0, self._size, State.GOOD)
            for extent in report.bad:
                areas.set(extent.offset, extent.end, State.BAD)
        write_map(self.map_path, areas, mapfile.Progress(self._size, mapfile.FINISHED))
        self._request.on_event(
            Finding(Severity.WARNING, str(self.map_path), "lists the areas that were not read")
        )

    def rescue(
        self,
        disk: Random,
        areas: Areas,
        *,
        is_clear: bool,
        fleeting: Runs = _NOTHING,
        journal: JournalFile | None = None,
    ) -> int:
        """Get into ``disk`` what can be had of the medium; bytes that were read for it.

        Raises:
            ReadError: if the medium is gone; ``areas`` are kept in the map then.
        """
        self._areas = areas
        sink = TargetSink(disk, is_clear=is_clear)
        medium = self.source.source
        domain = _domain(medium, sink, areas)
        wish = self._wish
        engine = Engine(
            medium,
            sink,
            areas,
            domain,
            keeper=MapKeeper(self.map_path, sink, fleeting),
            settings=Settings(
                retries=wish.retries,
                reverse=wish.reverse,
                timeout_s=wish.timeout_s,
                save_interval_s=wish.save_interval_s,
            ),
            on_event=self._request.on_event,
            cancel=self._request.cancel,
        )
        try:
            engine.save()
            if journal is not None:
                journal.discard()
            for address, path in wish.merge:
                with engine.kept():
                    self._merge(engine, sink, domain, address, path)
            order: Sequence[Runs] = ()
            if wish.metadata_first:
                from imprint.endpoints.rescue_order import by_value  # only where it is wanted

                with engine.kept():
                    order = by_value(medium, engine, sink, self._request.access)
            engine.run(order)
        except ImagingError as error:
            error.advice = error.advice or _ADVICE
            raise
        sink.fill(areas.runs(State.UNTRIED), b"")
        sink.fill(areas.runs(*_FAILED), wish.fill)
        return engine.bytes_read

    def view(self, disk: Source, areas: Areas) -> Source:
        """What was rescued, as a disk of the medium's size that knows what it lacks."""
        return Mapped(
            disk,
            areas.runs(*_LACKING),
            untried=areas.runs(State.UNTRIED),
            is_filled=bool(self._wish.fill),
        )

    def work_file(self) -> FileStorage:
        """The raw file beside the target, made if it is not there; closed with the medium."""
        path = self._work_path
        assert path is not None, "a device is rescued into"
        try:
            path.touch()
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(path)) from failure
        storage = FileStorage.open(path, writable=True)
        if storage.size != self._size:
            storage.resize(self._size)
        self.source.closing.append(storage)
        return storage

    def _direct(self, target: Target) -> Random | None:
        """The target, if it can be rescued into, and taken up again."""
        if isinstance(target, DeviceTarget):
            return target
        is_kept = isinstance(target, Resumable) and isinstance(
            self._request.target.chosen_format(), Resuming
        )
        return random_access(target) if is_kept else None

    def _in_place(
        self,
        target: Target,
        disk: Random,
        areas: Areas,
        copy: Copy,
        *,
        is_clear: bool,
    ) -> tuple[Report, int]:
        try:
            self.check_same(disk, areas)
            bytes_read = self.rescue(disk, areas, is_clear=is_clear)
        except BaseException:
            assert isinstance(target, Resumable)
            target.suspend()
            raise
        return copy(self.cut(disk), target, start=self._size), bytes_read

    def _beside(self, target: Target, areas: Areas, copy: Copy) -> tuple[Report, int]:
        try:
            work = self.work_file()
            self.check_same(work, areas)
            bytes_read = self.rescue(work, areas, is_clear=False)
        except BaseException:
            target.abort()
            raise
        return copy(self.view(work, areas), target), bytes_read

    def cut(self, disk: Random) -> Source:
        """A target as a disk of the medium's size; it may be larger."""
        return disk if disk.size == self._size else Window(disk, 0, self._size)

    def check_same(self, disk: Random, areas: Areas) -> None:
        """Refuse to mix two disks.

        Raises:
            RefusedError: if the medium does not hold what was read of it before.
        """
        runs = list(areas.runs(State.GOOD))
        step = max(1, len(runs) // _SAMPLES)
        for start, length in [*runs[::step][:_SAMPLES], *runs[-1:]]:
            size = min(length, _SAMPLE_BYTES)
            there, here = (memoryview(mmap.mmap(-1, size)) for _ in range(2))
            try:
                self.source.readinto(here, start + length - size)
            except ReadError:
                continue  # it gets worse: the copy is all there is of it
            disk.readinto(there, start + length - size)
            if there != here:
                raise RefusedError(
                    "the unfinished rescue is of another disk",
                    name=str(self.map_path),
                    advice="--no-resume starts over",
                )

    def _merge(
        self, engine: Engine, sink: TargetSink, domain: Runs, address: str, path: Path
    ) -> None:
        """Take over what another partial copy has."""
        name = formats.by_suffix(parse(address).base) or "raw"
        access = replace(self._request.access, format=name, used=None, snapshot=None)
        buffer = memoryview(mmap.mmap(-1, SPAN_BYTES))
        with contextlib.closing(open_source(address, access)) as other:
            theirs = read_map(path)[0].runs(State.GOOD).clip(0, min(other.size, self._size))
            for start, length in theirs & domain & engine.areas.runs(*_LACKING):
                for position in range(start, start + length, SPAN_BYTES):
                    piece = buffer[: min(SPAN_BYTES, start + length - position)]
                    with contextlib.suppress(ReadError, FormatError):
                        other.readinto(piece, position)
                        sink.write(piece, position)
                        engine.areas.set(position, position + len(piece), State.GOOD)

    def _tell(self, severity: Severity, what: str) -> None:
        self._request.on_event(Finding(severity, self._request.target.address, what))


class Attached:
    """A rescue for a copy into one target; a :class:`~imprint.transfer.recovery.Recovery`."""

    def __init__(
        self, rescue: Rescue, target: Target, journal: JournalFile | None, start: int
    ) -> None:
        self._rescue = rescue
        self._target = target
        self._journal = journal
        self._start = start
        self._disk = rescue._direct(target)  # noqa: SLF001 - both are one

    @property
    def is_in_place(self) -> bool:
        """Whether the target is rescued into."""
        return self._disk is not None

    def recover(self, position: int, error: ReadError) -> Recovered:
        """Rescue all that is left of the medium."""
        rescue, size = self._rescue, self._rescue.source.size
        areas = Areas(size)
        copied = position if self._disk is None else max(position, self._start)
        areas.set(0, copied, State.GOOD)
        if not is_gone(error):
            note_failed(areas, rescue.source)
        if self._disk is not None:
            fleeting = _NOTHING
            if isinstance(self._target, DeviceTarget):
                held = HELD_BYTES
                fleeting = Runs.of([(0, held), (max(0, size - held), held)]).clip(0, size)
            bytes_read = rescue.rescue(
                self._disk,
                areas,
                is_clear=self._target.traits.reads_zero,
                fleeting=fleeting,
                journal=self._journal,
            )
            return Recovered(rescue.cut(self._disk), size, bad_in(areas), bytes_read)
        work = rescue.work_file()
        bytes_read = rescue.rescue(
            work, areas, is_clear=True, fleeting=Runs.of([(0, copied)]), journal=self._journal
        )
        return Recovered(rescue.view(work, areas), 0, bad_in(areas), bytes_read)


def _domain(medium: Source, sink: TargetSink, areas: Areas) -> Runs:
    """Which bytes have to be read; what is known to be zero is done with."""
    wanted = []
    for extent in medium.extents(0, medium.size):
        if extent.kind in HAS_BYTES:
            wanted.append((extent.offset, extent.length))
        elif extent.kind is Kind.BAD:
            areas.set(extent.offset, extent.end, State.BAD)
        elif extent.kind is not Kind.UNUSED:
            for start, end, state in areas.within(extent.offset, extent.end):
                if state is not State.GOOD:
                    sink.zero(start, end - start)
                    areas.set(start, end, State.GOOD)
    return Runs.of(wanted)


def note_failed(areas: Areas, source: Watching) -> None:
    """What was read ahead and failed need not fail again."""
    sector = source.traits.logical_sector
    for offset, length in source.failed:
        state = State.BAD if length <= sector else State.UNTRIMMED
        for start, end, old in areas.within(offset, offset + length):
            if old is State.UNTRIED:
                areas.set(start, end, state)


def bad_in(areas: Areas) -> list[Extent]:
    """What could not be read."""
    return [Extent(start, length, Kind.BAD) for start, length in areas.runs(*_FAILED)]
