"""What writing every kind of package takes: checks, sources, a file that shows when it is whole."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.events import Progress
from imprint.core.formats import parse_options
from imprint.endpoints.copying import CopyRequest, Outcome, Plan
from imprint.endpoints.location import Where
from imprint.endpoints.open import files_of, open_source
from imprint.endpoints.target import check_not_source, stored_size
from imprint.storage.pending import PendingFile, check_replaceable
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from imprint.core.contracts import Source, Storage
    from imprint.core.events import Event, OnEvent
    from imprint.core.formats import OptionValue
    from imprint.endpoints.appliance.kinds import PackageKind
    from imprint.transfer.report import Report

_LEVEL_MAX: Final = 9


def level_of(values: Mapping[str, OptionValue]) -> int:
    """Of the compression.

    Raises:
        UsageError: if there is no such level.
    """
    level = int(values["level"])
    if not 0 <= level <= _LEVEL_MAX:
        raise UsageError(f"option level: expected 0 to {_LEVEL_MAX}, found {level}")
    return level


def options_of(request: CopyRequest, kind: PackageKind) -> dict[str, OptionValue]:
    """The options of a package, and whether its target can be written at all.

    Raises:
        UsageError: if not.
        RefusedError: if it exists and may not be replaced.
    """
    location = request.target.location
    if location.where is Where.DEVICE:
        raise UsageError(f"{kind.name}: expected a file or - as target", name=location.text)
    given = dict(request.target.options)
    if request.target.uuid is not None and any(one.name == "uuid" for one in kind.options):
        given.setdefault("uuid", request.target.uuid)
    values = parse_options(kind.name, kind.options, given)
    if location.where is Where.FILE:
        check_replaceable(location.path, may_replace=request.target.force)
    return values


def open_all(
    request: CopyRequest, addresses: tuple[str, ...], opened: ExitStack
) -> tuple[Source, ...]:
    """The sources, none of which is the target; ``opened`` closes them.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    sources = []
    check_not_source(request.target, addresses)
    for address in addresses:
        source = open_source(address, request.access)
        opened.callback(source.close)
        check_not_source(request.target, tuple(files_of(source)))
        sources.append(source)
    return tuple(sources)


def plan_of(sources: Sequence[Source], kind: PackageKind) -> Plan:
    """How much there is to copy."""
    data = sum(
        extent.length
        for source in sources
        for extent in source.extents(0, source.size)
        if extent.kind in HAS_BYTES
    )
    return Plan(sum(source.size for source in sources), data, kind.name)


def to_file(request: CopyRequest, write: Callable[[Storage], Report], kind: PackageKind) -> Outcome:
    """Write a file that shows when it is whole, and not before."""
    location = request.target.location
    storage = PendingFile.create(location.path, may_replace=request.target.force)
    try:
        report = write(storage)
        storage.commit()
    except BaseException:
        storage.abort()
        raise
    return Outcome(report, stored_size(location.path), kind.name)


def onward(on_event: OnEvent, done: int, moved: int, total: int) -> OnEvent:
    """Progress of one disk as progress of all."""

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            event = replace(event, done=done + event.done, moved=moved + event.moved, total=total)
        on_event(event)

    return tell
