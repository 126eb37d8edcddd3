"""Which files lie on given ranges of a disk, found without mounting anything.

The disk is looked at as a tree of volumes, as for ``--used``. Names come from The Sleuth Kit where
it knows the file system. Where it does not, what is known is whether the content of some file, the
file system itself, or nothing lies there. Every range that was asked for is in some answer.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, UnsupportedFeatureError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.runs import Runs
from imprint.endpoints.survey import describe
from imprint.endpoints.used import Volume, VolumeTree
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.files import Locating
from imprint.filesystems.table import allocator
from imprint.filesystems.tree import Type, shown
from imprint.filesystems.trees import READERS, tree
from imprint.filesystems.walking import walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Passphrase, Source
    from imprint.filesystems.tree import Entry, FileTree

NOTES_MAX: Final = 8
"""What is told of one damaged file system."""

_WAITING_MAX: Final = 1 << 16
"""Runs that are not united yet."""


class Part(enum.Enum):
    """What lies on some ranges."""

    FILE = "file"
    """The content of a file; of a link or a device file, too."""
    DIRECTORY = "directory"
    """The names in a folder."""
    METADATA = "metadata"
    """The file system's own: its tables, where they have no names, and where they have."""
    UNUSED = "unused"
    """What the file system says to be free, where files may have been."""
    UNKNOWN = "unknown"
    """A volume that could not be looked into."""
    OUTSIDE = "outside"
    """In no volume: tables, gaps, what containers keep for themselves."""


@dataclass(frozen=True)
class FileHit:
    """Something that lies on the ranges.

    Attributes:
        where: the volume, as :class:`~imprint.endpoints.used.Volume` calls it.
        part: what it is.
        path: of the file or folder, from the root of its volume; ``None``: it is none, or
            names cannot be told.
        inode: of the file or folder.
        ranges: those of the asked ones that it lies on, in bytes of the disk.
    """

    where: str
    part: Part
    path: str | None
    inode: int | None
    ranges: Runs

    def __str__(self) -> str:
        """For people: the volume, and what is there."""
        return f"{self.where}: {self.path or _IN_WORDS[self.part]}"

    def to_json(self) -> dict[str, object]:
        """For scripts."""
        return {
            "where": self.where,
            "part": self.part.value,
            "path": self.path,
            "inode": self.inode,
            "ranges": [{"offset": start, "length": length} for start, length in self.ranges],
        }


_PARTS: Final = {Type.DIRECTORY: Part.DIRECTORY, Type.SYSTEM: Part.METADATA}

_IN_WORDS: Final = {
    Part.FILE: "content of files whose names are not known",
    Part.DIRECTORY: "folders",
    Part.METADATA: "the file system itself",
    Part.UNUSED: "unused space",
    Part.UNKNOWN: "a volume that was not looked into",
    Part.OUTSIDE: "outside of volumes",
}


def files_on(
    source: Source, ranges: Runs, passphrase: Passphrase, *, on_event: OnEvent = ignore
) -> Iterator[FileHit]:
    """What lies on ranges of a disk: files as they are found, then for each volume the rest.

    Reads metadata only, of volumes that have some of the ranges. A file that has several names is
    told by each. Blocks that files share belong to each of them. What is too small for blocks
    of its own lies in tables: of NTFS, in the file ``$MFT``.

    Args:
        source: the disk, or a partition of it.
        ranges: in bytes of the disk.
        passphrase: asks for secrets of encrypted volumes; if it refuses, they are unknown.
        on_event: told of what could not be followed.

    Raises:
        UnsupportedFeatureError: if a volume has files whose names only a missing module can tell.
    """
    ranges = ranges.clip(0, source.size)
    covered = CollectedRuns()
    for volume in VolumeTree(source, describe(source), passphrase, on_event).volumes():
        covered.add(Runs.of((span.disk, span.end - span.start) for span in volume.spans))
        inside = from_disk(volume, ranges)
        if inside:
            yield from _Search(volume, inside, ranges, on_event).hits()
    rest = ranges - covered.runs()
    if rest:
        yield FileHit("disk", Part.OUTSIDE, None, None, rest)


def from_disk(volume: Volume, ranges: Runs) -> Runs:
    """Which bytes of a volume lie on ranges of the disk."""
    return Runs.union(
        ranges.clip(span.disk, span.disk + span.end - span.start).shifted(span.start - span.disk)
        for span in volume.spans
    )


def names_of(volume: Volume) -> FileTree | None:
    """The files of a volume; ``None`` if nothing knows names in such a file system.

    Raises:
        UnsupportedFeatureError: if the module for it is missing.
        FormatError: if they cannot be listed.
    """
    return tree(volume.kind, volume.source) if volume.kind in READERS else None


def tell_notes(volume: Volume, files: FileTree, on_event: OnEvent) -> None:
    """What could not be followed, as findings."""
    for note in files.notes[:NOTES_MAX]:
        on_event(Finding(Severity.WARNING, volume.where, note))
    more = len(files.notes) - NOTES_MAX
    if more > 0:
        on_event(Finding(Severity.WARNING, volume.where, f"{more} more of the kind"))


class _Found:
    """A union of very many small sets: two numbers a run, until they are united."""

    def __init__(self) -> None:
        self._united = CollectedRuns()
        self._starts = array("Q")
        self._lengths = array("Q")

    def add(self, runs: Runs) -> None:
        for start, length in runs:
            self._starts.append(start)
            self._lengths.append(length)
        if len(self._starts) > _WAITING_MAX:
            self._unite()

    def _unite(self) -> None:
        self._united.add(Runs.of(zip(self._starts, self._lengths, strict=True)))
        self._starts, self._lengths = array("Q"), array("Q")

    def runs(self) -> Runs:
        self._unite()
        return self._united.runs()


class _Search:
    """In one volume."""

    def __init__(self, volume: Volume, inside: Runs, ranges: Runs, on_event: OnEvent) -> None:
        self._volume = volume
        self._inside = inside
        self._ranges = ranges
        self._on_event = on_event
        self._found = _Found()
        self._starts = [span.start for span in volume.spans]
        self._ends = list(accumulate((span.end for span in volume.spans), max))

    def hits(self) -> Iterator[FileHit]:
        volume = self._volume
        try:
            files = names_of(volume)
        except UnsupportedFeatureError:
            raise
        except FormatError as failure:
            self._warn(failure)
            files = None
        if files is not None:
            for entry in walk(files):
                runs = touched(entry, self._inside)
                if runs is not None:
                    self._found.add(runs)
                    part = _PARTS.get(entry.type, Part.FILE)
                    yield self._hit(part, runs, shown(entry.path), entry.inode)
            tell_notes(volume, files, self._on_event)
        if files is None or files.notes:
            yield from self._nameless()
        rest = self._inside - self._found.runs()
        if rest:
            yield from self._rest(rest)

    def _nameless(self) -> Iterator[FileHit]:
        """What is in files, where only that can be told, or names of some are lost."""
        volume = self._volume
        system = None if volume.kind is None else allocator(volume.kind)
        if not isinstance(system, Locating):
            return
        inside = self._inside - self._found.runs()
        found = _Found()
        try:
            for _, offset, length in system.file_runs(volume.source):
                found.add(inside.clip(offset, offset + length))
        except (FormatError, ReadError) as failure:
            self._warn(failure)
        runs = found.runs() & inside
        if runs:
            self._found.add(runs)
            yield self._hit(Part.FILE, runs)

    def _rest(self, rest: Runs) -> Iterator[FileHit]:
        """What is in no file that was found."""
        volume = self._volume
        system = None if volume.kind is None else allocator(volume.kind)
        if system is None:
            yield self._hit(Part.UNKNOWN, rest)
            return
        try:
            used = system.allocation(volume.source).used
        except (FormatError, ReadError) as failure:
            self._warn(failure)
            yield self._hit(Part.UNKNOWN, rest)
            return
        for part, runs in ((Part.METADATA, rest & used), (Part.UNUSED, rest - used)):
            if runs:
                yield self._hit(part, runs)

    def _hit(
        self, part: Part, runs: Runs, path: str | None = None, inode: int | None = None
    ) -> FileHit:
        """With only the spans of the volume that can matter: a group of volumes has thousands."""
        first = bisect_right(self._ends, runs.starts[0])
        last = bisect_left(self._starts, runs.end)
        near = replace(self._volume, spans=self._volume.spans[first:last])
        disk = self._asked(near.to_disk(runs))
        return FileHit(self._volume.where, part, path, inode, disk)

    def _asked(self, disk: Runs) -> Runs:
        """What was asked for of it; a mirrored volume is asked for by one of its halves."""
        return Runs.union(self._ranges.clip(low, low + length) for low, length in disk)

    def _warn(self, failure: FormatError | ReadError) -> None:
        self._on_event(Finding(Severity.WARNING, self._volume.where, str(failure.args[0])))


def touched(entry: Entry, ranges: Runs) -> Runs | None:
    """Which of the ranges, in bytes of its volume, a file lies on; ``None``: none of them."""
    parts = [
        part for offset, length in entry.extents if (part := ranges.clip(offset, offset + length))
    ]
    return Runs.union(parts) if parts else None


def first_of(hits: Iterable[FileHit], count: int) -> list[str]:
    """The first hits, for people; then that there are more."""
    found: list[str] = []
    for hit in hits:
        if len(found) == count:
            found.append("and more")
            break
        found.append(str(hit))
    return found
