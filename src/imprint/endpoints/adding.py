"""What may be asked for where the target of a copy is a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.codecs.zstd import LEVEL_MAX
from imprint.core.errors import UsageError
from imprint.core.formats import Option, OptionKind, parse_options
from imprint.endpoints.location import FORMAT, Where, parse
from imprint.endpoints.rescue_left import check_map_free, is_left
from imprint.repository.snapshots import check_image_name

if TYPE_CHECKING:
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.location import Location

OPTIONS: Final = (
    Option(
        "level",
        f"of the compression, 1 to {LEVEL_MAX}; by default what the repository says",
        kind=OptionKind.NUMBER,
    ),
)
"""What ``-o`` takes if the target is a repository."""


def check_addition(request: CopyRequest) -> tuple[Location, int | None]:
    """Where the disk shall go, and the level that was asked for.

    Raises:
        UsageError: for what makes no sense with a repository.
        RefusedError: if the map of a rescue is in the way.
    """
    address = request.target.address
    location = parse(address)
    if location.where is not Where.REPOSITORY or location.is_part or location.snapshot is not None:
        raise UsageError("expected repo:PLACE::IMAGE as target, found more", name=address)
    check_image_name(location.image)
    if request.target.format is not None:
        raise UsageError("-O makes no sense: a repository keeps disks, not images", name=address)
    if request.target.uuid is not None:
        raise UsageError("--uuid makes no sense: a snapshot is named by what it is", name=address)
    is_begun = request.salvage and is_left(request)
    if request.resume and not is_begun:
        raise UsageError(
            "--resume makes no sense: what is there already is always found again", name=address
        )
    if request.salvage and not is_begun:
        check_map_free(request)
    level = parse_options(FORMAT, OPTIONS, request.target.options).get("level")
    if level is None:
        return location, None
    if not isinstance(level, int) or not 1 <= level <= LEVEL_MAX:
        raise UsageError(f"option level: expected 1 to {LEVEL_MAX}, found {level}")
    return location, level
