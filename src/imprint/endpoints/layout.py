"""Where the files on a disk begin and end, so that a repository cuts the disk there.

It looks like what is told of a disk for ``--used``, but nothing depends on it except how much two
disks are found to have in common. So every doubt is resolved by silence: of a volume that
cannot be read, only its own borders are told. What is encrypted is not looked into: the same
files have other bytes there on every disk.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, PassphraseError, ReadError
from imprint.core.events import ignore
from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.endpoints.survey import describe
from imprint.endpoints.used import VolumeTree
from imprint.filesystems.files import Locating
from imprint.filesystems.table import allocator
from imprint.repository.cutting import Cuts
from imprint.repository.pack import CHUNK_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.endpoints.used import Volume

MARKS_MAX: Final = 1 << 23
"""Borders of all volumes of a disk, before those that coincide are joined: some four million files.
They take 64 MiB; of a volume that has more, none is told."""

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
        marks = _marks(volume, left)
        left -= len(marks)
        if not marks:
            unknown.append(volume.to_disk(Runs.whole(volume.source.size)))
        for span in volume.spans:
            first, last = bisect_left(marks, span.start + 1), bisect_left(marks, span.end)
            inside = map((span.disk - span.start).__add__, marks[first:last])
            parts.append(array("Q", (span.disk, *inside, span.disk + span.end - span.start)))
    parts.sort()
    borders = array("Q")
    for part in parts:
        # What several volumes claim is cut as the first of them says.
        borders.extend(part[bisect_left(part, borders[-1] + 1) :] if borders else part)
    return Cuts(borders, Runs.union(unknown))


def _volumes(source: Source) -> Iterator[Volume]:
    try:
        yield from VolumeTree(source, describe(source), _refuse, ignore).volumes()
    except (FormatError, ReadError):
        return


def _refuse(name: str) -> bytes:
    raise PassphraseError("is not looked into", name=name)


def _marks(volume: Volume, limit: int) -> array[int]:
    """The borders of a volume's files, in its own bytes, ascending; none if there are too many."""
    file_system = None if volume.kind is None else allocator(volume.kind)
    if not isinstance(file_system, Locating):
        return array("Q")
    parts: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
    count = 0
    try:
        for position, offset, length in file_system.file_runs(volume.source):
            end = offset + length
            parts[offset // _PART_BYTES].append(offset)
            parts[end // _PART_BYTES].append(end)
            count += 2
            rest = position % CHUNK_MAX
            if rest and length > CHUNK_MAX - rest:
                # A file that is in pieces here and in one there has the same chunks then.
                inside = offset - rest + CHUNK_MAX
                parts[inside // _PART_BYTES].append(inside)
                count += 1
            if count > limit:
                return array("Q")
    except (FormatError, ReadError):
        return array("Q")
    marks = array("Q")
    for part in sorted(parts):
        marks.extend(sorted(set(parts[part])))
    return marks
