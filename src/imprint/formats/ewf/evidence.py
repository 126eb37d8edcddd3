"""What a set of segments holds, gathered from its sections."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import MIB

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.ewf.chunks import Group

CHUNK_BYTES_MAX: Final = 32 * MIB
"""EnCase goes up to 32,768 sectors of 512 bytes, 16 MiB. A chunk is decoded in memory, twice."""

ERRORS_MAX: Final = 1 << 20
"""Runs of bad sectors: more than any drive survives."""


@dataclass(frozen=True)
class Geometry:
    """The disk that was acquired.

    Attributes:
        size: in bytes.
        chunks: what its data is cut into.
        chunk_size: in bytes.
        sector_size: in bytes.
        media_type: what it was: ``fixed``, ``removable`` …
        is_physical: a whole disk, not a volume.
        write_blocker: that was used, if the image says so.
        compression: level as the image names it.
        granularity: sectors that were given up together after an error.
        set_id: GUID of the set.
    """

    size: int
    chunks: int
    chunk_size: int
    sector_size: int
    media_type: str = ""
    is_physical: bool = False
    write_blocker: str = ""
    compression: str = ""
    granularity: int = 0
    set_id: str = ""


@dataclass
class Evidence:
    """All that is known of an image.

    Attributes:
        name: path or address of its first segment.
        storages: all segments that could be opened, the first one first.
        geometry: of the disk.
        case: what the examiner noted, by field.
        hashes: of the disk, hexadecimal, by name.
        errors: sectors that could not be read, as start and count.
        tracks: of an optical disc: first sector, and whether it is audio.
        groups: chunks, ascending, without an overlap.
        missing: numbers of segments that are not there.
        faults: what is wrong with its structure.
        tree: the segment that has the tree of files, and from where to where in it.
        shows_missing: what is missing is ``BAD``: whoever opened it knows; else an error.
    """

    name: str
    storages: list[Storage]
    geometry: Geometry
    case: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    errors: list[tuple[int, int]] = field(default_factory=list)
    tracks: list[tuple[int, bool]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    shows_missing: bool = False
    tree: tuple[Storage, int, int] | None = None

    def close(self) -> None:
        """Close all segments."""
        for storage in self.storages:
            storage.close()


def geometry_of(
    name: str, *, sectors: int, sector_size: int, sectors_per_chunk: int, chunks: int
) -> Geometry:
    """Sizes that a volume section gives, if they make sense.

    Raises:
        CorruptImageError: if not.
    """
    chunk_size = sectors_per_chunk * sector_size
    if not sector_size or not sectors_per_chunk or chunk_size > CHUNK_BYTES_MAX:
        raise CorruptImageError(
            f"volume: expected chunks of 1 to {CHUNK_BYTES_MAX} bytes, found "
            f"{sectors_per_chunk} sectors of {sector_size}",
            name=name,
        )
    size = sectors * sector_size
    if size > DISK_SIZE_MAX:
        raise CorruptImageError(
            f"volume: expected a disk of at most {DISK_SIZE_MAX} bytes, found {size}", name=name
        )
    return Geometry(size, chunks, chunk_size, sector_size)


def guid(data: bytes) -> str:
    """A GUID as text; empty if it is not set."""
    return str(uuid.UUID(bytes_le=data)) if any(data) else ""
