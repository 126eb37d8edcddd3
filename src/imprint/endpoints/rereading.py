"""What of a disk has to be read again, if there is an older snapshot of it in a repository."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from imprint.core.errors import ReadError, UsageError
from imprint.core.events import Finding, Severity
from imprint.core.image import Image
from imprint.endpoints.changes import chain_of, changed_since, is_sound, written_to
from imprint.endpoints.location import parse
from imprint.endpoints.open import open_inside
from imprint.filters.used import UsedOnly

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.endpoints.copying import CopyRequest
    from imprint.repository.source import SnapshotSource


def state_of(source: Source, request: CopyRequest) -> tuple[str, ...]:
    """The state of the files that a disk is read from, if it follows from them what it is."""
    access = request.access
    if access.snapshot is not None or access.size_policy is not None:
        return ()
    return chain_of(source)


def format_of(source: Source) -> str:
    """The format of the image that a disk is read from; empty if it is none."""
    inner = source.source if isinstance(source, UsedOnly) else source
    return inner.info().format if isinstance(inner, Image) else ""


def noted(request: CopyRequest, bitmap: str) -> Runs:
    """What a bitmap of the source says to have been written.

    Raises:
        UsageError: if the source is not a whole image, as it is now, or has no such bitmap.
        UnsupportedFeatureError: if its format has none.
    """
    location, access = parse(request.source), request.access
    if location.is_part or access.snapshot is not None:
        raise UsageError("a bitmap is of a whole image, as it is now", name=request.source)
    with closing(open_inside(location, access)) as storage:
        return written_to(storage, access, bitmap)


def to_read(
    source: Source,
    older: SnapshotSource,
    request: CopyRequest,
    state: tuple[str, ...],
    written: Runs | None,
    *,
    trust_times: bool = False,
) -> Runs | None:
    """What may not be as in an older snapshot; ``None``: anything.

    Args:
        source: the disk as it is now.
        older: the disk of the snapshot.
        request: that ``source`` was opened for; it is told what is noteworthy.
        state: of the files that ``source`` is read from.
        written: what was written since the snapshot, if somebody has noted it.
        trust_times: go by what file systems on the disk say of their files.

    Raises:
        RepositoryError: if the snapshot is damaged.
    """
    then = older.snapshot.manifest
    if request.hashes or then.size != source.size:
        return None
    changed = written
    if changed is None and then.format == format_of(source):
        changed = changed_since(source, state, then.chain)
    if changed is None and trust_times:
        from imprint.endpoints.unchanged import changed_by_files  # only where it is asked for

        changed = changed_by_files(source, older, request)
    try:
        if changed is None or is_sound(source, older, changed):
            return changed
        what = "has changed where it seemed not to"
    except ReadError as failure:
        what = f"cannot be read where it seems not to have changed: {failure.args[0]}"
    request.on_event(Finding(Severity.WARNING, request.source, f"{what}: all of it is read"))
    return None
