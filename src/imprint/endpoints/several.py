"""One capture into several targets: the source is read once, each target has threads of its own.

One more reader takes the hashes, for all of them, and tells the progress. A target that fails is
left behind; what the others get does not depend on it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
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
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.several_jobs import (
    ImageWriting,
    Job,
    SnapshotWriting,
    Writing,
    image_writing,
    is_repository,
)
from imprint.endpoints.sharing import Elsewhere, Stop, Taken
from imprint.endpoints.target import TargetRequest, check_not_source
from imprint.filters.broadcast import Broadcast
from imprint.filters.salvage import Salvaging
from imprint.filters.used import UsedOnly
from imprint.storage.pending import check_replaceable
from imprint.transfer.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imprint.core.contracts import Source
    from imprint.core.events import OnEvent
    from imprint.endpoints.capturing import Adding
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
    wanted = _wanted(request, also)
    _check(request, wanted)
    began = time.monotonic()
    stop = Stop(request.cancel)
    access, notes = request.access, list[str]()
    if any(is_repository(each) for each in wanted):
        from imprint.endpoints.capturing import Heard  # only for repositories

        heard = Heard(request)
        access, notes = replace(access, on_event=heard), heard.notes
    opened = open_source(request.source, access)
    jobs: list[Job] = []
    try:
        tell_left_behind(request, opened)
        source = Salvaging(opened) if request.salvage else opened
        theirs = replace(request, cancel=stop, on_event=_findings(request.on_event))
        try:
            for each in wanted:
                writing = _writing(theirs, each, opened, also, notes)
                jobs.append(Job(writing))
                if isinstance(writing, ImageWriting):
                    tell_padding(replace(request, target=each), source, writing.target)
        except BaseException:
            for job in jobs:
                job.writing.abort()
            raise
        report = _copy_all(request, theirs, jobs, source, stop, strict=also.strict)
        report.duration_s = time.monotonic() - began
        return _outcome(request, jobs, opened, report)
    finally:
        for job in jobs:
            job.writing.close()
        opened.close()


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
    _check(request, _wanted(request, also))
    if is_repository(request.target):
        from imprint.endpoints import capturing  # only for repositories

        return capturing.plan(request)
    return plan(request)


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


def _check(request: CopyRequest, wanted: list[TargetRequest]) -> None:
    """Refuse at once what would be refused in the end."""
    if request.rescue != RescueRequest():
        raise UsageError(
            "options of a rescue make no sense with several targets",
            advice="rescue into a file, and convert that with --map",
        )
    if request.resume:
        raise UsageError("--resume makes no sense with several targets")
    seen: set[object] = set()
    for target in wanted:
        location = parse(target.address)
        if location.where is Where.REPOSITORY:
            from imprint.endpoints.adding import check_addition  # only for repositories

            check_addition(replace(request, target=target, salvage=False))
            name: object = (location.base, location.image)
        elif location.where is Where.FILE or location.is_overwritten:
            target.chosen_format()
            check_not_source(target, (request.source,))
            path = target.location.path.absolute()
            name = path
            if location.where is Where.FILE and path not in seen:
                check_replaceable(path, may_replace=target.force)
        else:
            raise UsageError(
                "expected a file, a device or a repository as one of several targets",
                name=target.address,
            )
        if name in seen:
            raise RefusedError("is another target as well", name=target.address)
        seen.add(name)


def _findings(on_event: OnEvent) -> OnEvent:
    """What targets tell: not how far they are, which the thread that hashes says of them all."""

    def tell(event: Event) -> None:
        if isinstance(event, Finding):
            on_event(event)

    return tell


def _writing(
    request: CopyRequest, wanted: TargetRequest, opened: Source, also: Also, notes: list[str]
) -> Writing:
    """Begin a target."""
    if is_repository(wanted):
        from imprint.endpoints import capturing  # only for repositories

        theirs = replace(request, target=wanted, salvage=False)
        adding = also.adding or capturing.Adding()
        return SnapshotWriting(wanted, capturing.Addition(theirs, adding, notes), opened)
    return image_writing(request, wanted, opened)


def _copy_all(
    request: CopyRequest,
    theirs: CopyRequest,
    jobs: list[Job],
    source: Source,
    stop: Stop,
    *,
    strict: bool,
) -> Report:
    """Let all targets read, and hash in this thread."""
    names = dict.fromkeys(request.hashes)
    for job in jobs:
        names.update(dict.fromkeys(job.writing.wanted_hashes))
    broadcast = Broadcast(source)
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
        _join(request, jobs)
        if not isinstance(error, Cancelled) or stop.is_from_outside:
            raise
        errors = [job.result.error for job in jobs]
        if isinstance(errors[0], ReadError) and all(isinstance(one, ReadError) for one in errors):
            # The source has failed them all, and they were quicker than this thread.
            raise errors[0] from None
        return Report(source.size)
    finally:
        own.close()
    _join(request, jobs)
    return report


def _join(request: CopyRequest, jobs: list[Job]) -> None:
    """Wait for all targets, and tell which have failed."""
    for job in jobs:
        job.join()
    for job in jobs:
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
