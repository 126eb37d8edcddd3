"""One copy from address to address: what ``capture``, ``convert`` and ``restore`` are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from imprint.core.errors import (
    ImagingError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.formats import Resuming, Streaming
from imprint.core.image import Image
from imprint.endpoints.fitted import FittedSource, untouched_of
from imprint.endpoints.journal import Job, JournalFile
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import Access, files_of, open_source
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.resuming import resume_at
from imprint.endpoints.target import (
    TargetRequest,
    check_not_source,
    create_target,
    resume_target,
    stored_size,
)
from imprint.filters.used import UsedOnly
from imprint.storage.pending import check_replaceable
from imprint.transfer.copy import CHECKPOINT_INTERVAL_S, copy
from imprint.transfer.hashing import HashSet
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source, Target
    from imprint.core.formats import CreateSpec
    from imprint.endpoints.fitting import Grown
    from imprint.endpoints.rescued_source import Rescuable
    from imprint.endpoints.rescuing import Rescue
    from imprint.endpoints.several_jobs import TargetResult
    from imprint.repository.snapshots import Snapshot
    from imprint.transfer.recovery import Recovery
    from imprint.transfer.report import Report


@dataclass(frozen=True)
class CopyRequest:
    """A copy as the user asks for it.

    Attributes:
        source: address of the disk.
        target: what to write.
        access: how the source may be opened.
        workers: threads that read ahead and compress.
        hashes: names of hashes to take of the content on the way.
        piece: take the same hashes of each piece of so many bytes too.
        detect_zeros: look for zeros in the data too.
        salvage: go on past what cannot be read, and keep a map of it.
        rescue: how that is done.
        source_map: of a source that is a partial copy: what it lacks is bad.
        prove: where only what is used is copied: walk the file systems in the finished target,
            and fail if they reach what was left out. ``None``: if that takes little time.
        reshape: given the disk, gives what is written in its place and owns it; it is called
            before anything is written, and may refuse.
        resume: ``True``: go on with what an interrupted copy left, and refuse if that was
            another one; ``None``: go on if it was the same; ``False``: start over.
        on_event: told about progress and findings.
        cancel: stops it.
        checkpoint_interval_s: least time between checkpoints.
    """

    source: str
    target: TargetRequest
    access: Access = field(default_factory=Access)
    workers: int = 2
    hashes: tuple[str, ...] = ()
    piece: int | None = None
    detect_zeros: bool = True
    salvage: bool = False
    rescue: RescueRequest = field(default_factory=RescueRequest)
    source_map: Path | None = None
    prove: bool | None = None
    reshape: Callable[[Source], Source] | None = None
    resume: bool | None = None
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        report: of the copy.
        bytes_stored: what the target takes up; of a stream, what went into it; of a device, the
            disk's size.
        format: of the target.
        left_out: bytes of the disk that no file system uses; ``None``: all of it was copied.
        proved: whether it was proved that nothing in use was left out.
        grown: the partition that was enlarged.
        snapshot: that was made, if the target is a repository.
        wrong: what was read back and is not what was read, by name of the hash.
        targets: what came of each, if there were several.
    """

    report: Report
    bytes_stored: int
    format: str
    left_out: int | None = None
    proved: bool = False
    grown: Grown | None = None
    snapshot: Snapshot | None = None
    wrong: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[TargetResult, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a copy would do, for ``--dry-run``.

    Attributes:
        size: of the disk, in bytes.
        data: bytes of it that the source's map calls data.
        format: of the target.
        grown: the partition that would be enlarged.
        left_out: bytes of the disk that no file system uses; ``None``: all of it is copied.
    """

    size: int
    data: int
    format: str
    grown: Grown | None = None
    left_out: int | None = None


def plan(request: CopyRequest) -> Plan:
    """Open the source, check the target's name and options, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    check_not_source(request.target, (request.source,))
    format_ = request.target.chosen_format()
    _check_free(request)
    source = open_source(request.source, request.access)
    try:
        check_not_source(request.target, tuple(files_of(source)))
        if request.reshape is not None:
            source = request.reshape(source)
        request.target.spec(source.size, request.access, sector=source.traits.logical_sector)
        data = sum(
            extent.length for extent in source.extents(0, source.size) if extent.kind in HAS_BYTES
        )
        return Plan(source.size, data, format_.name, left_out=left_out_of(source))
    finally:
        source.close()


def left_out_of(source: Source) -> int | None:
    """Bytes of a disk that no file system uses; ``None``: all of it is read."""
    return source.size - source.used.total if isinstance(source, UsedOnly) else None


def run(request: CopyRequest) -> Outcome:
    """Copy a disk from one address to another.

    Raises:
        ImagingError: of the kind that says what is wrong. The target then has its old
            content or is absent; an unfinished file is kept only if it can be resumed.
    """
    check_not_source(request.target, (request.source,))
    format_ = request.target.chosen_format()
    _check_free(request)
    if request.prove and request.target.location.where is Where.STREAM:
        raise UsageError("--prove needs a target that can be read back", name="standard output")
    source = open_source(request.source, request.access)
    try:
        sources = tuple(files_of(source))
        check_not_source(request.target, sources)
        tell_left_behind(request, source)
        if request.reshape is not None:
            source = request.reshape(source)
        if request.source_map is not None:
            from imprint.endpoints.maps import mapped  # only for partial copies

            source = mapped(source, request.source_map)
        job = _job(request, source)
        used = source.used if isinstance(source, UsedOnly) else None
        where = request.target.location.where
        rescue: Rescue | None = None
        passing: Rescuable | None = None
        if request.salvage and where is Where.STREAM:
            source, passing = _passing(request, source)
        elif request.salvage:
            from imprint.endpoints.rescuing import Rescue  # only where errors are expected

            rescue = Rescue(request, source)
            source = rescue.source
        if where is Where.STREAM:
            report, stored = _to_stream(request, source)
        elif request.target.location.is_overwritten:
            report = _to_device(request, source, rescue)
            stored = source.size
        else:
            sector = source.traits.logical_sector
            spec = request.target.spec(source.size, request.access, sector=sector, sources=sources)
            report = _to_file(request, source, job, spec, rescue)
            stored = stored_size(request.target.location.path, spec)
        if rescue is not None:
            rescue.finish(report)
        if passing is not None:
            passing.finish(report)
        if used is None:
            return Outcome(report, stored, format_.name)
        from imprint.endpoints.proof import prove_written  # only where something is left out

        proved = prove_written(request, used, report, format_.name)
        return Outcome(report, stored, format_.name, source.size - used.total, proved)
    finally:
        source.close()


def _passing(request: CopyRequest, source: Source) -> tuple[Source, Rescuable | None]:
    """What is read for a stream, in which nothing can be amended; it owns ``source``."""
    if request.rescue.map_path is None:
        from imprint.filters.salvage import Salvaging  # the map says where there is place for more

        return Salvaging(source), None
    from imprint.endpoints.rescued_source import Rescuable

    disk = Rescuable(request, source)
    try:
        disk.begin()
    except BaseException:
        disk.close()
        raise
    return disk, disk


def tell_left_behind(request: CopyRequest, source: Source) -> None:
    """What an image holds besides its disk does not come along: nobody should find out later."""
    if isinstance(source, UsedOnly):
        source = source.source
    if not isinstance(source, Image) or request.access.snapshot is not None:
        return
    info = source.info()
    for count, what in ((len(info.snapshots), "snapshot"), (len(info.bitmaps), "bitmap")):
        if count:
            plural = "s are" if count > 1 else " is"
            said = f"{count} internal {what}{plural} not copied: only the disk as it is now"
            request.on_event(Finding(Severity.WARNING, request.source, said))


def _check_free(request: CopyRequest) -> None:
    """Refuse at once what would be refused in the end."""
    target = request.target
    if request.salvage:
        from imprint.endpoints.rescue_left import check_map_free, is_left  # most have no such end

        if is_left(request):
            return
        check_map_free(request)
    if target.location.where is Where.FILE:
        check_replaceable(target.location.path, may_replace=target.force)


def copy_to(
    request: CopyRequest,
    source: Source,
    target: Target,
    *,
    start: int = 0,
    journal: JournalFile | None = None,
    phase: str = "copy",
    recovery: Recovery | None = None,
) -> Report:
    """Copy a disk as the request says, and commit the target.

    Raises:
        ImagingError: whatever :func:`~imprint.transfer.copy.copy` raises.
    """
    hashes = None
    if request.hashes and phase == "copy":
        hashes = HashSet(request.hashes, piece=request.piece)
    return copy(
        source,
        target,
        workers=request.workers,
        hashes=hashes,
        detect_zeros=request.detect_zeros,
        start=start,
        journal=journal,
        on_event=request.on_event,
        cancel=request.cancel,
        phase=phase,
        checkpoint_interval_s=request.checkpoint_interval_s,
        recovery=recovery,
    )


def _to_file(
    request: CopyRequest, source: Source, job: Job, spec: CreateSpec, rescue: Rescue | None
) -> Report:
    if rescue is not None:
        report = rescue.run_at_once(spec, partial(copy_to, request))
        if report is not None:
            return report
    path = request.target.location.path
    format_ = request.target.chosen_format()
    if not isinstance(format_, Resuming):
        target = create_target(request.target, spec)
        tell_padding(request, source, target)
        recovery = None if rescue is None else rescue.for_target(target, None, 0)
        return copy_to(request, source, target, recovery=recovery)
    journal = JournalFile(path, job)
    start = resume_at(request, source, spec, journal)
    if start:
        request.on_event(
            Finding(Severity.INFO, str(path), f"an interrupted copy goes on at byte {start}")
        )
        target = resume_target(request.target, spec)
    else:
        target = create_target(request.target, spec)
        journal.discard()
        tell_padding(request, source, target)
    try:
        recovery = None if rescue is None else rescue.for_target(target, journal, start)
        return copy_to(request, source, target, start=start, journal=journal, recovery=recovery)
    except ImagingError as error:
        if journal.exists and error.advice is None:
            error.advice = "what was copied is kept: the same command goes on from there"
        raise


def tell_padding(request: CopyRequest, source: Source, target: Target) -> None:
    """Formats that know whole sectors only get zeros at the end of other disks."""
    if target.size > source.size:
        what = f"the disk of {source.size} bytes is padded with zeros to {target.size}"
        request.on_event(Finding(Severity.WARNING, request.target.address, what))


def _job(request: CopyRequest, source: Source) -> Job:
    location = parse(request.source)
    mtime_ns = None
    # Which snapshot of a repository is the newest changes.
    name = source.name if location.where is Where.REPOSITORY else request.source
    outer = location.outermost
    if outer.where in (Where.FILE, Where.DEVICE):
        name = str(outer.path.absolute()) + location.text[len(outer.base) :]
        facts = outer.path.stat()
        # A device's time changes with every write to its node's directory, not its content.
        mtime_ns = facts.st_mtime_ns if outer.where is Where.FILE else None
    format_ = request.target.chosen_format()
    snapshot = {} if request.access.snapshot is None else {"snapshot": request.access.snapshot}
    used = {"used": source.used.digest()} if isinstance(source, UsedOnly) else {}
    fitted = {"fitted": source.digest} if isinstance(source, FittedSource) else {}
    options = {**request.target.options, **snapshot, **used, **fitted}
    return Job(name, source.size, mtime_ns, format_.name, options)


def _to_stream(request: CopyRequest, source: Source) -> tuple[Report, int]:
    """The report, and how many bytes went out."""
    from imprint.storage.stream import StreamStorage  # only for streams

    format_ = request.target.chosen_format()
    spec = request.target.spec(source.size, request.access, sector=source.traits.logical_sector)
    storage = StreamStorage.output()
    if isinstance(format_, Streaming):
        survey = format_.survey(spec)
        copy_to(request, source, survey, phase="survey")
        target = format_.stream(storage, spec, survey)
    elif format_.support.stream:
        target = format_.create(storage, spec)
    else:
        raise UnsupportedFeatureError(
            f"{format_.name} images cannot be written to a stream",
            advice="write a file, or choose raw or qcow2",
        )
    tell_padding(request, source, target)
    return copy_to(request, source, target), storage.stored_size


def _to_device(request: CopyRequest, source: Source, rescue: Rescue | None) -> Report:
    from imprint.endpoints.device import open_device_target  # only for devices

    target = open_device_target(request.target, source.size, untouched=untouched_of(source))
    recovery = None if rescue is None else rescue.for_target(target, None, 0)
    return copy_to(request, source, target, recovery=recovery)
