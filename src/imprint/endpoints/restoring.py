"""Restoring, and fitting the disk to a target of another size.

The table is fitted on the way: the target never has another one. Then the restored disk is
whole, only that a file system may be smaller than its partition; making it as large is the last
step. Whatever interrupts it, the same command can be given again.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from imprint.core.errors import (
    Cancelled,
    CorruptImageError,
    ImagingError,
    RefusedError,
    TargetError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Progress, Severity
from imprint.core.system import is_file
from imprint.endpoints.copying import CopyRequest, Outcome, Plan, plan, run
from imprint.endpoints.delta import restore_delta
from imprint.endpoints.fitting import Fit, Fitting, Grown, Room, plan_fitting
from imprint.endpoints.growing import Place
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import Access, open_source
from imprint.endpoints.target import stored_size
from imprint.volumes import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


def restore(request: CopyRequest, fit: Fit, *, delta: bool = False) -> Outcome:
    """Restore a disk as the user wants to have it fitted.

    Args:
        request: what, and where to.
        fit: how it shall fit.
        delta: write only what differs.

    Raises:
        ImagingError: of the kind that says what is wrong. If it is a partition that could
            not be grown, the disk was restored all the same, which the message says.
    """
    shaping = _Shaping(request, fit)
    outcome = (restore_delta if delta else run)(shaping.request)
    grown = None if shaping.fitting is None else shaping.fitting.grown
    if grown is None:
        return outcome
    _grow(request, grown)
    location = request.target.location
    is_file = location.where is Where.FILE
    stored = stored_size(location.path) if is_file else outcome.bytes_stored
    return replace(outcome, grown=grown, bytes_stored=stored)


def plan_restore(request: CopyRequest, fit: Fit) -> Plan:
    """What :func:`restore` would do; nothing is touched.

    Raises:
        ImagingError: for what would make it fail before it begins.
    """
    shaping = _Shaping(request, fit)
    planned = plan(shaping.request)
    return replace(planned, grown=None if shaping.fitting is None else shaping.fitting.grown)


class _Shaping:
    """Decides how the disk is fitted, when its source has been opened.

    Attributes:
        request: the one that was given, which asks here.
        fitting: what was decided.
    """

    def __init__(self, request: CopyRequest, fit: Fit) -> None:
        where = parse(request.source).where, request.target.location.where
        is_stream = Where.STREAM in where
        if is_stream and fit.is_asked:
            raise UsageError(
                "a disk can be fitted only from a file or device, and to one", name="-"
            )
        if fit.grow and request.target.chosen_format().name != "raw":
            raise UnsupportedFeatureError(
                "--grow needs a raw target: the tools of file systems read nothing else",
                name=request.target.address,
                advice="convert it afterwards",
            )
        self._fit = fit
        self._asked = request
        self.fitting: Fitting | None = None
        self.request = request if is_stream else replace(request, reshape=self._reshape)

    def _reshape(self, source: Source) -> Source:
        try:
            room = self._room(source)
            self.fitting = plan_fitting(source, room, self._fit, self._asked.on_event)
        except ImagingError as error:
            if error.name is None:
                is_its_fault = isinstance(error, TargetError | RefusedError | UsageError)
                error.name = self._asked.target.address if is_its_fault else source.name
            raise
        return self.fitting.apply(source)

    def _room(self, source: Source) -> Room:
        target = self._asked.target
        path = target.location.path
        if target.location.where is Where.NBD:
            from imprint.storage.nbd import NbdStorage  # only for exports

            if self._fit.size is not None or self._fit.grow:
                raise UsageError("--size and --grow are for files and devices", name=str(path))
            with contextlib.closing(NbdStorage.open(target.location.base)) as export:
                sector_size = self._fit.sector_size or export.traits.logical_sector
                return Room(export.size, sector_size, is_device=True)
        if target.location.where is Where.DEVICE:
            from imprint.storage.device import describe  # only for devices

            if self._fit.size is not None:
                raise UsageError("--size is for files: a device has its own", name=str(path))
            facts = describe(path)
            sector_size = self._fit.sector_size or facts.logical_sector
            return Room(facts.size, sector_size, is_device=True)
        size = self._fit.size
        may_keep = self._fit.grow or self._fit.shrink
        if size is None and may_keep and is_file(path) and target.chosen_format().name == "raw":
            size = path.stat().st_size
        return Room(source.size if size is None else size, self._fit.sector_size)


def _grow(request: CopyRequest, grown: Grown) -> None:
    """Let the file system fill its partition, and look at the table once more."""
    location = request.target.location
    state = f"the disk is restored, and partition {grown.index} has its new size"
    again = "the same command, with --force for a file, does it all again"
    try:
        if grown.grower is not None:
            if request.cancel is not None:
                request.cancel.check()
            request.on_event(Progress("grow", 0, grown.new, 0))
            with _claimed(request):
                grown.grower.grow(Place(location.path, grown.start, grown.new))
            request.on_event(Progress("grow", grown.new, grown.new, 0))
        _check_table(request.target.address, grown)
    except Cancelled as error:
        message = f"{state}, but its {grown.kind} was not grown: interrupted"
        raise Cancelled(message, name=location.text, advice=again) from error
    except (ImagingError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error.args[0]
        message = f"{state}, but growing its {grown.kind} failed: {why}"
        raise TargetError(message, name=location.text, advice=again) from error


@contextlib.contextmanager
def _claimed(request: CopyRequest) -> Iterator[None]:
    """Keep a device from being mounted by those who mount whatever appears."""
    location = request.target.location
    if location.where is not Where.DEVICE:
        yield
        return
    from imprint.storage.device import DeviceStorage  # only for devices

    device = DeviceStorage.open(location.path, writable=True)
    try:
        yield
        device.flush()
    finally:
        device.abort()


def _check_table(address: str, grown: Grown) -> None:
    with contextlib.closing(open_source(address, Access(format="raw"))) as disk:
        table = read_table(disk)
    item = None if table is None else table.find(grown.index)
    if table is None or item is None or (item.start, item.length) != (grown.start, grown.new):
        raise CorruptImageError("expected the fitted table, found another one")
    for finding in table.findings:
        if finding.severity is not Severity.INFO:
            raise CorruptImageError(f"{finding.where}: {finding.what}")
