"""Where the files on a disk begin and end, so that a repository cuts the disk there.

It looks like what is told of a disk for ``--used``, but nothing depends on it except how much two
disks are found to have in common. So every doubt is resolved by silence: of a volume that
cannot be read, only its own borders are told. What is encrypted is not looked into: the same
files have other bytes there on every disk.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import defaultdict
from operator import sub
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.events import ignore
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.endpoints.gate import no_passphrase
from imprint.endpoints.survey import describe
from imprint.endpoints.used import VolumeTree
from imprint.filesystems.files import Locating
from imprint.filesystems.table import allocator
from imprint.repository.cutting import Cuts, Cutting
from imprint.repository.pack import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.endpoints.used import Volume

MARKS_MAX: Final = 4 << 20
"""Borders of all volumes of a disk, before those that coincide are joined: some two million files.
Finding them takes up to 200 MiB then; a volume that has more is cut by blocks."""

_ROOM_BYTES: Final = 64 * KIB
"""What is not in files and at least so long: tables that change here and there, or free space that
is full of old files. Both are better cut by blocks."""

_PART_BYTES: Final = 256 * MIB
"""Borders are sorted by parts of a volume that are so long, to take little memory."""


def disk_cuts(source: Source) -> Cuts:
    """Borders of partitions, volumes, and extents of files.

    Reads metadata only, some 2 µs for each extent. Never fails because of what it reads.
    """
    parts: list[array[int]] = []
    unknown: list[Runs] = []
    left = MARKS_MAX
    for volume in _volumes(source):
        found = _files(volume, left)
        unknown.append(volume.to_disk(found.unknown))
        marks = found.borders
        for span in volume.spans:
            first, last = bisect_left(marks, span.start + 1), bisect_left(marks, span.end)
            last = min(last, first + left)  # a mirrored volume has each several times
            left -= last - first
            part = array("Q", [span.disk])
            part.extend(map((span.disk - span.start).__add__, memoryview(marks)[first:last]))
            part.append(span.disk + span.end - span.start)
            parts.append(part)
        del found, marks
    parts.sort(reverse=True)
    borders = parts.pop() if parts else array("Q")
    while parts:
        # What several volumes claim is cut as the first of them says.
        part = parts.pop()
        borders.extend(part[bisect_left(part, borders[-1] + 1) :])
    return Cuts(borders, Runs.union(unknown))


def _volumes(source: Source) -> Iterator[Volume]:
    try:
        yield from VolumeTree(source, describe(source), no_passphrase, ignore).volumes()
    except (FormatError, ReadError):
        return


def _files(volume: Volume, limit: int) -> Cuts:
    """The borders of a volume's files, all in its own bytes; none if there are too many."""
    whole = Runs.whole(volume.source.size)
    file_system = None if volume.kind is None else allocator(volume.kind)
    if not isinstance(file_system, Locating):
        return Cuts(unknown=whole)
    starts, ends, inside = _parts(), _parts(), _parts()
    count = 0
    try:
        for position, offset, length in file_system.file_runs(volume.source):
            end = offset + length
            starts[offset // _PART_BYTES].append(offset)
            ends[end // _PART_BYTES].append(end)
            count += 2
            rest = position % CHUNK_BYTES
            if rest and length > CHUNK_BYTES - rest:
                # A file that is in pieces here and in one there has the same chunks then.
                place = offset - rest + CHUNK_BYTES
                inside[place // _PART_BYTES].append(place)
                count += 1
            if count > limit:
                return Cuts(unknown=whole)
    except (FormatError, ReadError):
        return Cuts(unknown=whole)
    marks, firsts, lasts = array("Q"), array("Q"), array("Q", [0])
    for part in sorted({*starts, *ends, *inside}):
        first, last = sorted(starts.pop(part, ())), sorted(ends.pop(part, ()))
        marks.extend(sorted({*first, *last, *inside.pop(part, ())}))
        firsts.extend(first)
        lasts.extend(last)
    firsts.append(volume.source.size)
    # Each sorted on its own, they tell where no file is: see :class:`Runs`.
    room = zip(lasts, map(sub, firsts, lasts), strict=True)
    return Cuts(marks, Runs.of(gap for gap in room if gap[1] >= _ROOM_BYTES))


def _parts() -> defaultdict[int, array[int]]:
    return defaultdict(lambda: array("Q"))


class LateCutting:
    """Looks for the borders of files when something has to be cut: often nothing has to be."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._found: Cutting | None = None

    def border_after(self, offset: int) -> int:
        """As of :class:`Cutting`."""
        return self._cutting().border_after(offset)

    def lengths(self, offset: int, data: memoryview) -> Sequence[int]:
        """As of :class:`Cutting`."""
        return self._cutting().lengths(offset, data)

    def _cutting(self) -> Cutting:
        if self._found is None:
            with self._lock:
                if self._found is None:
                    self._found = Cutting(disk_cuts(self._source))
        return self._found
