"""What an earlier rescue has left beside its target: gone on with, or made way for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError, TargetError
from imprint.core.formats import Resuming
from imprint.core.system import reason_of
from imprint.endpoints.location import Where
from imprint.endpoints.maps import map_path
from imprint.storage.pending import check_replaceable, discard, partial_path

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.endpoints.copying import CopyRequest

_WORK_SUFFIX: Final = ".rescue"


def work_path(target: Path) -> Path:
    """The raw file that is rescued into, for targets that take their bytes in order."""
    return target.with_name(target.name + _WORK_SUFFIX)


def prepare_left(request: CopyRequest, path: Path) -> bool:
    """Whether another run has left a rescue to go on with; makes way for a new one if not."""
    location = request.target.location
    if location.where is not Where.FILE:
        return False
    target = location.path
    work = work_path(target)
    if request.resume is not False and path.exists():
        can_resume = isinstance(request.target.chosen_format(), Resuming)
        if work.exists() or (can_resume and partial_path(target).exists()):
            return True
        is_raw = request.target.chosen_format().name == "raw"
        if request.resume and is_raw and target.is_file():
            # Under its own name again when it is finished: what is in it stays in any case.
            try:
                target.rename(partial_path(target))
            except OSError as failure:
                raise TargetError(reason_of(failure), name=str(target)) from failure
            return True
    if request.resume is not False and work.exists():
        raise RefusedError(
            "a rescue was left without its map",
            name=str(work),
            advice="--no-resume starts over",
        )
    discard(work)
    if request.rescue.map_path is None:
        path.unlink(missing_ok=True)
    return False


def is_left(request: CopyRequest) -> bool:
    """Whether there is something to go on with; changes nothing."""
    path = request.rescue.map_path or map_path(request.target.location)
    target = request.target.location
    if path is None or request.resume is False or target.where is not Where.FILE:
        return False
    work = work_path(target.path)
    has_partial = partial_path(target.path).exists() or bool(request.resume)
    return path.exists() and (work.exists() or has_partial)


def check_map_free(request: CopyRequest) -> None:
    """Refuse at once to replace a map that may be needed."""
    path = request.rescue.map_path or map_path(request.target.location)
    if path is not None:
        check_replaceable(path, may_replace=request.target.force or request.resume is False)
