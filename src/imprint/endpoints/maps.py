"""Map files of rescues, as files: read, kept while a rescue goes on, and laid over a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import fill_zero
from imprint.core.contracts import Salvage, Traits
from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.core.system import reason_of
from imprint.endpoints.location import Location, Where, parse
from imprint.endpoints.open import Access, open_source
from imprint.filters.mapped import Mapped
from imprint.filters.readonly import ReadOnlyStorage
from imprint.storage.pending import PendingFile
from imprint.transfer.rescue import mapfile
from imprint.transfer.rescue.states import Areas, State

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.transfer.rescue.sink import TargetSink

MAP_SUFFIX: Final = ".map"
WORK_SUFFIX: Final = ".rescue"
"""Of the raw file that is rescued into, for targets that take their bytes in order."""

_LACKING = tuple(state for state in State if state is not State.GOOD)


def map_path(target: Location) -> Path | None:
    """Where a map is kept: beside a file; for devices and repositories, in this folder."""
    if target.where is Where.STREAM:
        return None
    if target.where is Where.REPOSITORY:
        return Path(f"{image_place(target)}{WORK_SUFFIX}{MAP_SUFFIX}")
    place = target.path if target.where is Where.FILE else Path(target.own_name)
    return place.with_name(place.name + MAP_SUFFIX)


def image_place(target: Location) -> Path:
    """What files of an image in a repository are called like, in this folder."""
    return Path(target.image.replace("/", "_"))


def read_map(path: Path, size: int | None = None) -> tuple[Areas, mapfile.Progress]:
    """Read a map file; see :func:`~imprint.transfer.rescue.mapfile.parse`.

    Raises:
        ReadError: if there is none.
        CorruptImageError: if it is no map, or one of a larger medium.
    """
    try:
        if path.stat().st_size > mapfile.BYTES_MAX:
            raise CorruptImageError(
                f"expected a map of at most {mapfile.BYTES_MAX} bytes", name=str(path)
            )
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as failure:
        raise ReadError(reason_of(failure), name=str(path)) from failure
    return mapfile.parse(text, name=str(path), size=size)


def write_map(path: Path, areas: Areas, progress: mapfile.Progress) -> None:
    """Replace a map file by a new one, which is durable then."""
    storage = PendingFile.create(path, may_replace=True)
    try:
        storage.write(memoryview(mapfile.render(areas, progress).encode()), 0)
        storage.commit()
    finally:
        storage.abort()


def is_map(path: Path) -> bool:
    """Whether a file begins as map files do."""
    try:
        with path.open("rb") as file:
            return file.read(32).startswith(mapfile.MARKS)
    except OSError:
        return False


def mapped(source: Source, path: Path) -> Mapped:
    """A copy with its map, which owns the copy.

    The copy may end before the medium: ddrescue writes what it has read, and nothing behind it.

    Raises:
        ImagingError: of the kind that says what is wrong with the map.
    """
    size = source.size
    areas, _ = read_map(path)
    if areas.size > size and areas.runs(State.GOOD).end <= size:
        size = areas.size
    else:
        areas, _ = read_map(path, size)
    untried = areas.runs(State.UNTRIED)
    return Mapped(source, areas.runs(*_LACKING), untried=untried, size=size)


def open_with_map(address: str, access: Access, path: Path | None) -> Source:
    """A disk with the map of what of it was read; a map alone stands for its medium.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    if path is not None:
        source = open_source(address, access)
        try:
            return mapped(source, path)
        except BaseException:
            source.close()
            raise
    location = parse(address)
    is_plain = location.where is Where.FILE and not location.is_part and access.format is None
    if is_plain and is_map(location.path):
        size = read_map(location.path)[0].size
        return mapped(_Unseen(address, size), location.path)
    return open_source(address, access)


def lacking(source: Source) -> Runs:
    """What of a disk could not be read, or was not tried, when its image was made."""
    if isinstance(source, Salvage):
        return Runs.of((extent.offset, extent.length) for extent in source.bad_extents())
    extents = source.extents(0, source.size)
    return Runs.of((item.offset, item.length) for item in extents if item.kind is Kind.BAD)


class _Unseen(ReadOnlyStorage):
    """A medium of which only the map is here: all zeros."""

    traits = Traits()

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size

    @property
    def name(self) -> str:
        """Of the map."""
        return self._name

    @property
    def size(self) -> int:
        """Of the medium."""
        return self._size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Nobody knows what is there."""
        fill_zero(buffer)

    def close(self) -> None:
        """Nothing is open."""


class MapKeeper:
    """Saves a map when all that it speaks of is durable; see ``Keeper`` of the engine."""

    def __init__(self, path: Path, sink: TargetSink, fleeting: Runs) -> None:
        """``fleeting`` is what would be lost if the program was killed: not read, for the map."""
        self._path = path
        self._sink = sink
        self._fleeting = fleeting

    def save(self, areas: Areas, progress: mapfile.Progress) -> None:
        """Make what is stored durable, and then the map."""
        self._sink.checkpoint()
        if len(self._fleeting):
            kept = Areas(areas.size)
            for start, length, state in areas:
                kept.set(start, start + length, state)
            for start, length in self._fleeting & areas.runs(State.GOOD):
                kept.set(start, start + length, State.UNTRIED)
            areas = kept
        write_map(self._path, areas, progress)
