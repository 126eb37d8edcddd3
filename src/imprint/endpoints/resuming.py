"""Whether an interrupted copy may be gone on with, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError, RefusedError
from imprint.core.events import Finding, Severity
from imprint.endpoints.open import Access, open_image
from imprint.transfer.compare import compare

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.core.formats import CreateSpec
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.journal import JournalFile

RESUME_OVERLAP: Final = 4 << 20
"""Bytes before the checkpoint that have to be the same in the source still."""


def resume_at(request: CopyRequest, source: Source, spec: CreateSpec, journal: JournalFile) -> int:
    """Where an interrupted copy is to be taken up; 0: it starts at the beginning."""
    if request.resume is False or not journal.exists:
        return 0
    position = journal.position()
    why = "is left of another copy"
    if position is not None:
        if _is_same_so_far(request, source, spec, position):
            return position
        why = "does not hold what the source holds now"
    path = request.target.location.path
    if request.resume:
        raise RefusedError(
            f"the unfinished file {why}", name=str(path), advice="--no-resume starts over"
        )
    request.on_event(
        Finding(Severity.WARNING, str(path), f"the unfinished file {why}: the copy starts over")
    )
    return 0


def _is_same_so_far(request: CopyRequest, source: Source, spec: CreateSpec, position: int) -> bool:
    """Whether the last bytes before the checkpoint are what the source has there today."""
    from imprint.filters.window import Window  # only when a copy is resumed
    from imprint.storage.pending import partial_path

    partial = str(partial_path(request.target.location.path))
    access = Access(
        format=request.target.chosen_format().name, passphrase=request.access.passphrase
    )
    start = max(0, position - RESUME_OVERLAP)
    try:
        unfinished = open_image(partial, access)
    except ImagingError:
        return False
    try:
        if unfinished.size < spec.size:
            return False
        length = position - start
        return compare(Window(unfinished, start, length), Window(source, start, length)).equal
    except ImagingError:
        return False
    finally:
        unfinished.close()
