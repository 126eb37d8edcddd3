"""What an earlier rescue has left beside its target: gone on with, or made way for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError, TargetError
from imprint.core.formats import Resuming
from imprint.core.system import exists, is_file, reason_of
from imprint.endpoints.location import Where, parse
from imprint.endpoints.maps import MAP_SUFFIX, WORK_SUFFIX, image_place, map_path
from imprint.storage.pending import check_replaceable, discard, partial_path

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.endpoints.copying import CopyRequest


@dataclass(frozen=True)
class Place:
    """Where the files of a rescue are.

    Attributes:
        map_path: of the map.
        work_path: of the raw file that is rescued into, where the target is not.
        is_map_kept: whether the map stays if something is missing in the end.
    """

    map_path: Path
    work_path: Path | None
    is_map_kept: bool


def place_for(request: CopyRequest) -> Place:
    """Of the rescue for one target."""
    location, wish = parse(request.target.address), request.rescue.map_path
    path = wish or map_path(location)
    assert path is not None
    work = None if location.is_overwritten else work_path(place_of(request))
    return Place(path, work, is_map_kept(request))


def is_map_kept(request: CopyRequest) -> bool:
    """Whether the map of a rescue stays if something is missing in the end.

    A snapshot itself says what it lacks, unless there is a pattern in its place.
    """
    if parse(request.target.address).where is not Where.REPOSITORY:
        return True
    return request.rescue.map_path is not None or bool(request.rescue.fill)


def work_path(target: Path) -> Path:
    """The raw file that is rescued into, for targets that take their bytes in order."""
    return target.with_name(target.name + WORK_SUFFIX)


def note_path(work: Path) -> Path:
    """What says beside that file which targets are made of it, if there are several."""
    return work.with_name(work.name + ".targets")


def place_of(request: CopyRequest) -> Path:
    """What the files of a rescue are called like: the target, or what has a place in its stead."""
    location, path = parse(request.target.address), request.rescue.map_path
    if location.where is Where.FILE:
        return location.path
    if path is None and location.where is Where.REPOSITORY:
        return image_place(location)
    assert path is not None, "a stream has no place, and needs --map"
    return path.with_suffix("") if path.suffix == MAP_SUFFIX else path


def prepare_left(request: CopyRequest, path: Path) -> bool:
    """Whether another run has left a rescue to go on with; makes way for a new one if not."""
    location = parse(request.target.address)
    if location.is_overwritten:
        return False
    where = location.where
    target = place_of(request)
    work = work_path(target)
    may_resume = request.resume is not False
    if may_resume and exists(path) and (exists(work) or _is_begun(request, where, target)):
        return True
    discard_work(work, may_discard=not may_resume)
    if request.rescue.map_path is None:
        path.unlink(missing_ok=True)
    return False


def discard_work(work: Path, *, may_discard: bool) -> None:
    """Make way for a new rescue, beside its map.

    Raises:
        RefusedError: if there is one, which has no map any more, and it is to be kept.
    """
    if not may_discard and exists(work):
        raise RefusedError(
            "a rescue was left without its map",
            name=str(work),
            advice="--no-resume starts over",
        )
    discard(work)
    discard(note_path(work))


def _is_begun(request: CopyRequest, where: Where, target: Path) -> bool:
    """Whether the target itself was rescued into; then it is under its temporary name."""
    if where is not Where.FILE:
        return False
    format_ = request.target.chosen_format()
    if isinstance(format_, Resuming) and exists(partial_path(target)):
        return True
    if not (request.resume and format_.name == "raw" and is_file(target)):
        return False
    # Under its own name again when it is finished: what is in it stays in any case.
    try:
        target.rename(partial_path(target))
    except OSError as failure:
        raise TargetError(reason_of(failure), name=str(target)) from failure
    return True


def is_left(request: CopyRequest) -> bool:
    """Whether there is something to go on with; changes nothing."""
    target = parse(request.target.address)
    path = request.rescue.map_path or map_path(target)
    if path is None or request.resume is False or target.is_overwritten:
        return False
    has_work = exists(work_path(place_of(request)))
    if target.where is not Where.FILE:
        return exists(path) and has_work
    has_partial = exists(partial_path(target.path)) or bool(request.resume)
    return exists(path) and (has_work or has_partial)


def check_map_free(request: CopyRequest) -> None:
    """Refuse at once to replace a map that may be needed."""
    path = request.rescue.map_path or map_path(parse(request.target.address))
    if path is not None:
        check_replaceable(path, may_replace=request.target.force or request.resume is False)
