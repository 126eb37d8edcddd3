"""One capture into several targets: the source is read once, each target has threads of its own.

One more reader takes the hashes, for all of them, and tells the progress. A target that fails is
left behind; what the others get does not depend on it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imprint.core.contracts import Documenting
from imprint.core.errors import Cancelled, ImagingError, ReadError, RefusedError, UsageError
from imprint.core.events import Finding, Severity
from imprint.endpoints.copying import (
    CopyRequest,
    Outcome,
    Plan,
    plan,
    tell_left_behind,
    tell_padding,
)
from imprint.endpoints.fitted import untouched_of
from imprint.endpoints.hashing import hash_disk
from imprint.endpoints.journal import journal_path
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import files_of, open_source
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.sharing import Elsewhere, Stop, Taken
from imprint.endpoints.target import TargetRequest, check_not_source, create_target, stored_size
from imprint.filters.broadcast import Broadcast
from imprint.filters.salvage import Salvaging
from imprint.filters.used import UsedOnly
from imprint.storage.pending import check_replaceable, discard
from imprint.transfer.copy import copy
from imprint.transfer.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imprint.core.contracts import Source, Target
    from imprint.core.formats import CreateSpec
    from imprint.filters.broadcast import View


@dataclass
class TargetResult:
    """What came of one target.

    Attributes:
        request: what it was to be.
        format: its name.
        bytes_stored: what it takes up; for a device, the disk's size; 0 if it failed.
        error: what went wrong; ``None``: it is whole.
    """

    request: TargetRequest
    format: str
    bytes_stored: int = 0
    error: ImagingError | None = None


def run_several(request: CopyRequest, others: Iterable[str], *, strict: bool = False) -> Outcome:
    """Copy a disk to the request's target and to ``others``, and read it once.

    What is known to be wrong before anything is read is raised, and then no target is changed.

    Args:
        request: for the main target. Its options and format are not those of the others.
        others: addresses of files, in formats by their suffixes, and of devices.
        strict: stop all targets when one fails.

    Returns:
        An outcome with ``targets``, in order, the main one first.

    Raises:
        Cancelled: if ``request.cancel`` was set.
        ImagingError: what opening the source or beginning a target raises; and what the source
            raises later, of which all targets fail.
    """
    wanted = _wanted(request, others)
    _check(request, wanted)
    began = time.monotonic()
    opened = open_source(request.source, request.access)
    try:
        tell_left_behind(request, opened)
        source = Salvaging(opened) if request.salvage else opened
        jobs = _begin(request, wanted, opened, source)
        report = _copy_all(request, jobs, source, strict=strict)
        report.duration_s = time.monotonic() - began
        first = jobs[0].result
        results = tuple(job.result for job in jobs)
        outcome = Outcome(report, first.bytes_stored, first.format, targets=results)
        if not isinstance(opened, UsedOnly):
            return outcome
        from imprint.endpoints.proof import prove_written  # only where something is left out

        proved = first.error is None and prove_written(request, opened.used, report, first.format)
        return replace(outcome, left_out=opened.size - opened.used.total, proved=proved)
    finally:
        opened.close()


def plan_several(request: CopyRequest, others: Iterable[str]) -> Plan:
    """Check the source and all targets, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    _check(request, _wanted(request, others))
    return plan(request)


def _wanted(request: CopyRequest, others: Iterable[str]) -> list[TargetRequest]:
    main = request.target
    bare = replace(main, format=None, options={}, uuid=None)
    return [main, *(replace(bare, address=address) for address in others)]


def _check(request: CopyRequest, wanted: list[TargetRequest]) -> None:
    """Refuse at once what would be refused in the end."""
    if request.rescue != RescueRequest():
        raise UsageError(
            "options of a rescue make no sense with several targets",
            advice="rescue into a file, and convert that with --map",
        )
    if request.resume:
        raise UsageError("--resume makes no sense with several targets")
    seen = set()
    for target in wanted:
        where = parse(target.address).where
        if where not in (Where.FILE, Where.DEVICE):
            raise UsageError(
                "expected a file or a device as one of several targets",
                name=target.address,
                advice="convert adds the image to a repository, or writes it to a stream",
            )
        target.chosen_format()
        check_not_source(target, (request.source,))
        path = target.location.path.absolute()
        if path in seen:
            raise RefusedError("is another target as well", name=target.address)
        seen.add(path)
        if where is Where.FILE:
            check_replaceable(path, may_replace=target.force)


class _Job:
    """One target on its way."""

    def __init__(self, request: TargetRequest, target: Target, spec: CreateSpec | None) -> None:
        self.result = TargetResult(request, request.chosen_format().name)
        self.target = target
        self._spec = spec
        self._defect: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(
        self, move: Callable[[Target], Report], view: View, failed: Callable[[], None]
    ) -> None:
        """Copy in a thread."""

        def work() -> None:
            try:
                move(self.target)
                self.result.bytes_stored = self._stored()
            except ImagingError as error:
                self.result.error = error
                failed()
            except BaseException as error:  # noqa: BLE001 - it is raised again by join()
                self._defect = error
                failed()
            finally:
                view.close()

        self._thread = threading.Thread(target=work, name="target", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for it."""
        if self._thread is not None:
            self._thread.join()
        if self._defect is not None:
            raise self._defect

    def _stored(self) -> int:
        request = self.result.request
        if self._spec is None:
            return self.target.size
        return stored_size(request.location.path, self._spec)


def _begin(
    request: CopyRequest, wanted: list[TargetRequest], opened: Source, source: Source
) -> list[_Job]:
    """Make all targets, or none of them."""
    sources = tuple(files_of(opened))
    jobs: list[_Job] = []
    try:
        for each in wanted:
            check_not_source(each, sources)
            if each.location.where is Where.DEVICE:
                from imprint.endpoints.device import open_device_target  # only for devices

                untouched = untouched_of(opened)
                target: Target = open_device_target(each, source.size, untouched=untouched)
                jobs.append(_Job(each, target, None))
                continue
            spec = each.spec(source.size, request.access, sources=sources)
            target = create_target(each, spec)
            # What an earlier copy has noted is about a file that is gone now.
            discard(journal_path(each.location.path))
            tell_padding(replace(request, target=each), source, target)
            jobs.append(_Job(each, target, spec))
    except BaseException:
        for job in jobs:
            job.target.abort()
        raise
    return jobs


def _copy_all(request: CopyRequest, jobs: list[_Job], source: Source, *, strict: bool) -> Report:
    """Let all targets read, and hash in this thread."""
    stop = Stop(request.cancel)
    names = dict.fromkeys(request.hashes)
    for job in jobs:
        if isinstance(job.target, Documenting):
            names.update(dict.fromkeys(job.target.wanted_hashes))
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

    def move(view: View) -> Callable[[Target], Report]:
        return lambda target: copy(
            view,
            target,
            workers=request.workers,
            hashes=Elsewhere(taken, gate) if strict or isinstance(target, Documenting) else None,
            detect_zeros=request.detect_zeros,
            cancel=stop,
        )

    try:
        for job, view in zip(jobs, views, strict=True):
            job.start(move(view), view, failed)
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


def _join(request: CopyRequest, jobs: list[_Job]) -> None:
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
