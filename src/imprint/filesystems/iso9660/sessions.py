"""Sessions of a disc: each has descriptors, and folders, of all files that it shows.

A disc that is written once has them one behind the other, with a gap between; what it shows is in
the last one. On a disc that can be written again, or in a file, the descriptors at the beginning
are overwritten with those of the last. Then xorriso has the first session at sector 32. Places in
a session are those on the disc.

Source: ECMA-119 (ISO 9660), 8.4 (descriptors); ``man xorriso``, "Session model", and ``man
genisoimage``, ``-C`` and ``-M`` (where sessions begin); Linux
``Documentation/filesystems/isofs.rst`` (``session``, ``sbsector``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import FormatError, ReadError
from imprint.core.extent import Kind
from imprint.core.units import KIB
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.iso9660.records import DIRECTORY, SECTOR, Volume, record_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

DESCRIPTORS_AT: Final = 16
"""From the start of a session, in sectors."""

_MARK: Final = b"\1CD001\1"
_GAP: Final = 12 << 10
"""Sectors between a session and what is looked for behind it: a CD has 11,400 behind the first."""

_SECTORS_MAX: Final = 128 << 10
"""Looked at in all: 256 MiB, which are 0.1 s."""

_SECTORS_OF_A_TRY: Final = 64
"""What looking at a descriptor counts for: as much time."""

_SESSIONS_MAX: Final = 256
_FIRST_OF_XORRISO: Final = 32
_PIECE: Final = 256 * KIB
_EMPTY: Final = frozenset({Kind.HOLE, Kind.ZERO, Kind.UNUSED, Kind.BAD})


class Session(NamedTuple):
    """A session.

    Attributes:
        start: its first sector.
        end: the sector behind it, as it says.
        root: sector of its root folder.
    """

    start: int
    end: int
    root: int


def sessions_of(volume: Source) -> list[Session]:
    """All sessions of a disc that can be told, the one that it shows last; none: it is no disc.

    Reads little where nothing is behind the first, 24 MiB where no session is, and never more than
    256 MiB. What cannot be read is no session.
    """
    reader = VolumeReader(volume, budget=UNBOUNDED)
    head = _session(reader, 0)
    if head is None:
        return []
    found = [head]
    # Those of a disc that is overwritten come before the end of what its first descriptors say.
    below = _session(reader, _FIRST_OF_XORRISO)
    if below is not None:
        found.append(below)
    search = _Search(reader, volume)
    while len(found) < _SESSIONS_MAX and (following := search.behind(found[-1])) is not None:
        found.append(following)
    others = {item.root: item for item in found[1:]}
    shown = others.pop(head.root, None)
    if shown is not None:  # what is at the beginning are its descriptors
        return [*sorted(others.values()), shown]
    return [head, *sorted(others.values())]


class _Search:
    """Finds sessions behind others, and comes to an end on any disc."""

    def __init__(self, reader: VolumeReader, volume: Source) -> None:
        self._reader = reader
        self._volume = volume
        self._left = _SECTORS_MAX

    def behind(self, last: Session) -> Session | None:
        """The session that follows."""
        first = max(last.end, last.start + 1) + DESCRIPTORS_AT
        count = min(_GAP, self._volume.size // SECTOR - first)
        if count <= 0 or self._left <= 0:
            return None
        try:
            for sector in self._marked(first, count):
                self._left -= _SECTORS_OF_A_TRY
                found = _session(self._reader, sector - DESCRIPTORS_AT)
                if found is not None or self._left <= 0:
                    return found
        except (FormatError, ReadError):
            return None
        return None

    def _marked(self, first: int, count: int) -> Iterator[int]:
        """Which of some sectors may be descriptors."""
        for extent in self._volume.extents(first * SECTOR, count * SECTOR):
            if extent.kind in _EMPTY:
                continue
            end = -(-extent.end // SECTOR) * SECTOR
            for place in range(extent.offset // SECTOR * SECTOR, end, _PIECE):
                length = min(_PIECE, end - place)
                self._left -= length // SECTOR
                if self._left <= 0:
                    return
                data = bytes(self._reader.read(place, length, "sectors behind a session"))
                at = data.find(_MARK)
                while at >= 0:
                    if at % SECTOR == 0:
                        yield (place + at) // SECTOR
                    at = data.find(_MARK, at + 1)


def _session(reader: VolumeReader, start: int) -> Session | None:
    """The session that begins at a sector, if one does.

    A disc that lies in a file of another has descriptors as well. Its places are not those
    of the outer one, so that its root is not where they say.
    """
    try:
        place = (start + DESCRIPTORS_AT) * SECTOR
        head = Volume.unpack(reader.read(place, SECTOR, "volume descriptor"))
        root = record_at(head.root, 0, len(head.root), 0)
        if head.type != 1 or head.mark != b"CD001" or root is None:
            return None
        if head.block_size not in (512, 1024, 2048):
            return None
        where = (root.extent + root.attributes) * head.block_size
        itself = record_at(bytes(reader.read(where, SECTOR, "folder")), 0, SECTOR, where)
    except (FormatError, ReadError):
        return None
    if itself is None or itself.name != b"\0" or itself.extent != root.extent:
        return None
    sector = where // SECTOR
    if sector < start or not itself.flags & DIRECTORY:
        return None
    return Session(start, start + head.block_count * head.block_size // SECTOR, sector)
