"""Where the rescue for several targets goes, and what is left of one that was not finished.

Targets that are whole before the others are not taken for those of somebody else by the next
attempt: while there is a rescue, a note beside it says which files were being made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError, TargetError, UsageError
from imprint.core.system import exists, is_file, reason_of
from imprint.endpoints.location import Where, parse
from imprint.endpoints.maps import MAP_SUFFIX, map_path
from imprint.endpoints.rescue_left import (
    Place,
    discard_work,
    is_map_kept,
    note_path,
    place_of,
    work_path,
)
from imprint.endpoints.target import TargetRequest, check_not_source
from imprint.storage.pending import PendingFile, check_replaceable, discard, partial_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from imprint.endpoints.copying import CopyRequest

_NOTE_BYTES_MAX: Final = 1 << 20

_File = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True)
class SharedRescue:
    """A rescue for several targets.

    Attributes:
        place: where its files are.
        home: the target that is rescued into; ``None``: none of them.
        is_left: there is one to go on with.
        ours: what it has made so far, by absolute path: the file is one of these.
        is_finished: ``home`` has its name, and is to be gone on with.
    """

    place: Place
    home: TargetRequest | None
    is_left: bool
    ours: Mapping[str, tuple[_File, ...]]
    is_finished: bool = False

    def permitted(self, target: TargetRequest) -> TargetRequest:
        """A target that may take the place of what the attempt has made that is gone on with."""
        if not self.is_left or parse(target.address).where is not Where.FILE:
            return target
        is_ours = _is_noted(self.ours, target.location.path)
        is_taken_up = self.is_finished and self.is_home(target)
        return replace(target, force=target.force or is_ours or is_taken_up)

    def is_home(self, target: TargetRequest) -> bool:
        """Whether this is the target that is rescued into."""
        return self.home is not None and self.home.address == target.address

    def prepare(self, request: CopyRequest) -> None:
        """Make way for a new rescue, or take up the one that is left.

        Raises:
            RefusedError: if there is one whose map is gone.
            TargetError: if the system does not permit it.
        """
        place = self.place
        assert place.work_path is not None
        if self.is_left:
            if self.home is not None and self.is_finished:
                _take_up(self.home.location.path)
            return
        discard_work(place.work_path, may_discard=request.resume is False)
        discard(place.map_path)

    def note(self, wanted: Sequence[TargetRequest]) -> None:
        """Say which files are being made."""
        made: dict[str, list[_File]] = {}
        for target in wanted:
            if parse(target.address).where is not Where.FILE:
                continue
            path = target.location.path
            old = [file for file in self.ours.get(_key(path), ()) if file == _identity(path)]
            new = _identity(partial_path(path))
            made[_key(path)] = old if new is None else [*old, new]
        assert self.place.work_path is not None
        storage = PendingFile.create(note_path(self.place.work_path), may_replace=True)
        try:
            storage.write(memoryview(json.dumps(made).encode()), 0)
            storage.commit()
        finally:
            storage.abort()


def shared_rescue(request: CopyRequest, wanted: Sequence[TargetRequest]) -> SharedRescue:
    """Where a rescue would go, and whether there is one to go on with; changes nothing.

    Raises:
        UsageError: for ``--resume`` where there is nothing to go on with.
        RefusedError: if the files of a rescue are in the way, or would be.
    """
    named = _named(request, wanted)
    path = request.rescue.map_path or map_path(parse(named.address))
    assert path is not None
    work = _work_path(replace(request, target=named))
    place = Place(path, work, is_map_kept(replace(request, target=named)))
    home = next(filter(_is_home, wanted), None)
    noted = _noted(note_path(work))
    is_finished = home is not None and _is_finished(request, home.location.path, noted)
    is_begun = is_finished or (home is not None and is_file(partial_path(home.location.path)))
    is_left = request.resume is not False and exists(path) and (exists(work) or is_begun)
    if request.resume and not is_left:
        raise UsageError("--resume: expected a rescue that was not finished", name=str(path))
    if not is_left:
        check_replaceable(path, may_replace=request.target.force or request.resume is False)
    check_not_source(TargetRequest(str(work)), (request.source,))
    check_not_source(TargetRequest(str(path)), (request.source,))
    if is_left and exists(work):
        home = None
    return SharedRescue(place, home, is_left, noted, is_finished)


def _named(request: CopyRequest, wanted: Sequence[TargetRequest]) -> TargetRequest:
    """What the files of the rescue are called like: the first file, or what there is."""
    files = (target for target in wanted if parse(target.address).where is Where.FILE)
    return next(files, request.target)


def _work_path(request: CopyRequest) -> Path:
    """Of the raw file; for devices, as for repositories, it is where the map is."""
    location, path = parse(request.target.address), request.rescue.map_path
    if not location.is_overwritten:
        return work_path(place_of(request))
    path = path or map_path(location)
    assert path is not None
    return work_path(path.with_suffix("") if path.suffix == MAP_SUFFIX else path)


def _is_home(target: TargetRequest) -> bool:
    """Whether a target can be rescued into: one raw file."""
    if parse(target.address).where is not Where.FILE:
        return False
    return target.chosen_format().name == "raw" and "split" not in target.options


def _is_finished(request: CopyRequest, path: Path, noted: Mapping[str, tuple[_File, ...]]) -> bool:
    """Whether a target that was rescued into has its name already, and is to be gone on with."""
    if _is_noted(noted, path):
        return True
    return bool(request.resume) and is_file(path) and not exists(partial_path(path))


def _take_up(path: Path) -> None:
    """Give a finished target its temporary name again."""
    partial = partial_path(path)
    try:
        if partial.exists() and path.exists() and path.samefile(partial):
            path.unlink()  # it had both, and was killed before it lost one
        elif not partial.exists():
            path.rename(partial)
    except OSError as failure:
        raise TargetError(reason_of(failure), name=str(path)) from failure


def _key(path: Path) -> str:
    return str(path.absolute())


def _identity(path: Path) -> _File | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _is_noted(noted: Mapping[str, tuple[_File, ...]], path: Path) -> bool:
    return _identity(path) in noted.get(_key(path), ())


def _noted(path: Path) -> dict[str, tuple[_File, ...]]:
    """What another attempt has noted; nothing, if that is no note."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_NOTE_BYTES_MAX))
        return {
            str(name): tuple((int(device), int(inode)) for device, inode in files)
            for name, files in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise RefusedError(
            "expected the note of an unfinished rescue",
            name=str(path),
            advice="remove it, if it is not needed",
        ) from None
