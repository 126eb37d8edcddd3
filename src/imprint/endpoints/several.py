"""One capture into several targets: the source is read once, each target has threads of its own.

One more reader takes the hashes, for all of them, and tells the progress. A target that fails is
left behind; what the others get does not depend on it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from imprint.core.errors import Cancelled, ReadError, RefusedError, UsageError
from imprint.core.events import Event, Finding, Severity
from imprint.endpoints.copying import (
    CopyRequest,
    Outcome,
    Plan,
    left_out_of,
    plan,
    tell_left_behind,
    tell_padding,
)
from imprint.endpoints.hashing import hash_disk
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import open_source
from imprint.endpoints.several_jobs import (
    ImageWriting,
    Job,
    SnapshotWriting,
    Writing,
    home_writing,
    image_writing,
    is_repository,
)
from imprint.endpoints.sharing import Elsewhere, Stop, Taken
from imprint.endpoints.target import TargetRequest, check_not_source
from imprint.filters.broadcast import Broadcast
from imprint.filters.used import UsedOnly
from imprint.storage.pending import check_replaceable
from imprint.transfer.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imprint.core.contracts import Source
    from imprint.core.events import OnEvent
    from imprint.endpoints.capturing import Adding
    from imprint.endpoints.rescued_source import Rescuable
    from imprint.endpoints.several_rescue import SharedRescue
    from imprint.filters.broadcast import View


@dataclass(frozen=True)
class Also:
    """What there is besides the main target.

    Attributes:
        targets: addresses of files, in formats by their suffixes, of devices, and of images in
            repositories.
        facts: options that each of them gets whose format has them: the case, the drive.
        adding: what snapshots shall have.
        strict: stop all targets when one fails.
    """

    targets: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    adding: Adding | None = None
    strict: bool = False


def run_several(request: CopyRequest, also: Also) -> Outcome:
    """Copy a disk to the request's target and to others, and read it once.

    What is known to be wrong before anything is read is raised, and then no target is changed.

    Args:
        request: for the main target. Its options and format are not those of the others.
        also: the others.

    Returns:
        An outcome with ``targets``, in order, the main one first.

    Raises:
        Cancelled: if ``request.cancel`` was set.
        ImagingError: what opening the source or beginning a target raises; and what the source
            raises later, of which all targets fail.
    """
    wanted, shared = _check(request, _wanted(request, also))
    began = time.monotonic()
    stop = Stop(request.cancel)
    access, notes = request.access, list[str]()
    if any(is_repository(each) for each in wanted):
        from imprint.endpoints.capturing import Heard  # only for repositories

        heard = Heard(request)
        access, notes = replace(access, on_event=heard), heard.notes
    opened = source = open_source(request.source, access)
    jobs: list[Job] = []
    try:
        tell_left_behind(request, opened)
        disk = None
        if shared is not None:
            from imprint.endpoints.rescued_source import Rescuable  # where errors are expected

            shared.prepare(request)
            source = disk = Rescuable(replace(request, cancel=stop), opened, shared.place)
            disk.on_begin = partial(shared.note, wanted)
        theirs = replace(request, cancel=stop, on_event=_findings(request.on_event))
        passage = _Passage(opened, disk, shared)
        try:
            for each in wanted:
                writing = _writing(theirs, each, passage, also, notes)
                jobs.append(Job(writing))
                if isinstance(writing, ImageWriting):
                    tell_padding(replace(request, target=each), source, writing.target)
            broadcast = Broadcast(source)
            if disk is not None and shared is not None:
                disk.kept = broadcast.kept
                disk.begin(is_left=shared.is_left)
        except BaseException:
            for job in jobs:
                job.writing.abort()
            raise
        report = _copy_all(request, theirs, jobs, broadcast, stop, strict=also.strict)
        report.duration_s = time.monotonic() - began
        if disk is not None and shared is not None:
            _clear(request, jobs, disk, shared, report)
        return _outcome(request, jobs, opened, report)
    finally:
        for job in jobs:
            job.writing.close()
        source.close()


def _clear(
    request: CopyRequest, jobs: list[Job], disk: Rescuable, shared: SharedRescue, report: Report
) -> None:
    """Remove what a rescue needed, if nobody needs it any more."""
    is_kept = any(job.result.error is not None for job in jobs)
    disk.finish(report, is_kept=is_kept)
    if is_kept and disk.has_failed:
        said = "what was rescued is kept: the same command writes what is missing"
        request.on_event(Finding(Severity.INFO, str(shared.place.map_path), said))


def _outcome(request: CopyRequest, jobs: list[Job], opened: Source, report: Report) -> Outcome:
    first = jobs[0].result
    proved = first.proved
    if isinstance(opened, UsedOnly) and first.error is None and first.snapshot is None:
        from imprint.endpoints.proof import prove_written  # only where something is left out

        proved = prove_written(request, opened.used, report, first.format)
    return Outcome(
        report,
        first.bytes_stored,
        first.format,
        left_out_of(opened),
        proved,
        snapshot=first.snapshot,
        targets=tuple(job.result for job in jobs),
    )


def plan_several(request: CopyRequest, also: Also) -> Plan:
    """Check the source and all targets, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    wanted, _ = _check(request, _wanted(request, also))
    checked = replace(request, target=wanted[0], salvage=False, resume=None)
    if is_repository(request.target):
        from imprint.endpoints import capturing  # only for repositories

        return capturing.plan(checked)
    return plan(checked)


def _wanted(request: CopyRequest, also: Also) -> list[TargetRequest]:
    main = request.target
    bare = replace(main, format=None, options={}, uuid=None)
    others = [replace(bare, address=address) for address in also.targets]
    return [main, *(_with_facts(other, also.facts) for other in others)]


def _with_facts(target: TargetRequest, facts: Mapping[str, str]) -> TargetRequest:
    """A target that keeps what its format can of a case."""
    if parse(target.address).where is not Where.FILE:
        return target
    known = {option.name for option in target.chosen_format().options}
    return replace(target, options={name: facts[name] for name in facts if name in known})


def _check(
    request: CopyRequest, wanted: list[TargetRequest]
) -> tuple[list[TargetRequest], SharedRescue | None]:
    """Refuse at once what would be refused in the end; the targets, and where a rescue goes."""
    if request.resume and not request.salvage:
        raise UsageError("--resume makes no sense with several targets")
    shared: SharedRescue | None = None
    seen: set[object] = set()
    for target in wanted:
        location = parse(target.address)
        if location.where is Where.REPOSITORY:
            from imprint.endpoints.adding import check_addition  # only for repositories

            check_addition(replace(request, target=target, salvage=False, resume=None))
            name: object = (location.base, location.image)
        elif location.where is Where.FILE or location.is_overwritten:
            target.chosen_format()
            check_not_source(target, (request.source,))
            name = target.location.path.absolute()
        else:
            raise UsageError(
                "expected a file, a device or a repository as one of several targets",
                name=target.address,
            )
        if name in seen:
            raise RefusedError("is another target as well", name=target.address)
        seen.add(name)
    if request.salvage:
        from imprint.endpoints.several_rescue import shared_rescue  # where errors are expected

        shared = shared_rescue(request, wanted)
        if shared.place.map_path.absolute() in seen:
            raise RefusedError("is a target as well", name=str(shared.place.map_path))
        wanted = [shared.permitted(target) for target in wanted]
    for target in wanted:
        if parse(target.address).where is Where.FILE:
            check_replaceable(target.location.path, may_replace=target.force)
    return wanted, shared


def _findings(on_event: OnEvent) -> OnEvent:
    """What targets tell: not how far they are, which the thread that hashes says of them all."""

    def tell(event: Event) -> None:
        if isinstance(event, Finding):
            on_event(event)

    return tell


@dataclass(frozen=True)
class _Passage:
    """The source on its way to the targets; ``disk`` and ``shared``: if it may be rescued."""

    opened: Source
    disk: Rescuable | None
    shared: SharedRescue | None


def _writing(
    request: CopyRequest, wanted: TargetRequest, passage: _Passage, also: Also, notes: list[str]
) -> Writing:
    """Begin a target."""
    opened, disk, shared = passage.opened, passage.disk, passage.shared
    if is_repository(wanted):
        from imprint.endpoints import capturing  # only for repositories

        theirs = replace(request, target=wanted, salvage=False, resume=None)
        addition = capturing.Addition(theirs, also.adding or capturing.Adding(), notes)
        return SnapshotWriting(wanted, addition, opened, opened if disk is None else disk.aside)
    if disk is not None and shared is not None and shared.is_home(wanted):
        writing = home_writing(request, wanted, disk, is_left=shared.is_left)
        disk.home = writing.home
        return writing
    return image_writing(request, wanted, opened)


def _copy_all(
    request: CopyRequest,
    theirs: CopyRequest,
    jobs: list[Job],
    broadcast: Broadcast,
    stop: Stop,
    *,
    strict: bool,
) -> Report:
    """Let all targets read, and hash in this thread."""
    names = dict.fromkeys(request.hashes)
    for job in jobs:
        names.update(dict.fromkeys(job.writing.wanted_hashes))
    views = [broadcast.view() for _ in jobs]
    own = broadcast.view()
    taken = Taken()
    alive = threading.Semaphore(len(jobs) - 1)

    gate = threading.Barrier(len(jobs)) if strict else None

    def end() -> None:
        stop.cancel()
        if gate is not None:
            gate.abort()

    def failed() -> None:
        if strict or not alive.acquire(blocking=False):
            end()

    def write(job: Job, view: View) -> Callable[[], None]:
        needs_them = strict or job.writing.needs_hashes
        hashes = Elsewhere(taken, gate) if needs_them else None
        return lambda: job.writing.write(theirs, view, hashes)

    try:
        for job, view in zip(jobs, views, strict=True):
            job.start(write(job, view), view, failed)
        report = _hash(request, own, tuple(names), stop)
        taken.give(report.hashes)
    except BaseException as error:
        taken.fail(error)
        end()
        own.close()
        _join(request, jobs, is_whole=False)
        if not isinstance(error, Cancelled) or stop.is_from_outside:
            raise
        errors = [job.result.error for job in jobs]
        if isinstance(errors[0], ReadError) and all(isinstance(one, ReadError) for one in errors):
            # The source has failed them all, and they were quicker than this thread.
            raise errors[0] from None
        return Report(own.size)
    finally:
        own.close()
    _join(request, jobs, is_whole=True)
    return report


def _join(request: CopyRequest, jobs: list[Job], *, is_whole: bool) -> None:
    """Wait for all targets, finish what waited for the others, and tell which have failed."""
    for job in jobs:
        job.join()
    for job in jobs:
        if is_whole and job.result.error is None:
            job.writing.finish()
        if job.result.error is not None:
            said = f"was not written: {job.result.error}"
            address = job.result.request.address
            request.on_event(Finding(Severity.ERROR, address, said))


def _hash(request: CopyRequest, view: View, names: tuple[str, ...], stop: Stop) -> Report:
    return hash_disk(
        view,
        names,
        piece=request.piece,
        workers=request.workers,
        on_event=request.on_event,
        cancel=stop,
        phase="copy",
    )
