"""The folders of FAT12, FAT16 and FAT32.

Files are numbered as The Sleuth Kit does, which tells deleted ones: by the place of their entry.
"""

from __future__ import annotations

import calendar
import functools
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems import sleuthkit
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.clusters import FIRST_CLUSTER, Table
from imprint.filesystems.contents import Run, inside, mapped
from imprint.filesystems.fat.folders import (
    ENTRIES_MAX,
    FOLDER,
    LABEL,
    READ_ONLY,
    Record,
    record_of,
    records_in,
)
from imprint.filesystems.fat.geometry import ENTRY_BYTES, read_geometry
from imprint.filesystems.fat.table import MASKS, table_size
from imprint.filesystems.tree import (
    Entry,
    Times,
    Type,
    no_stream,
    note_of,
    path_in,
    shown,
    text_of,
)
from imprint.filesystems.with_deleted import WithDeleted
from imprint.filters.cutoff import filled_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree

_ROOT: Final = 2
_FIRST_INODE: Final = 3
_BOOT_BYTES: Final = 512
_READ_AND_RUN: Final = 0o555
_WRITE: Final = 0o222
_LABEL: Final = " (Volume Label Entry)"
_CHAINS_KEPT: Final = 256
_FREE_STEPS: Final = 1 << 16
_NS: Final = 1_000_000_000
_EPOCH_YEAR: Final = 1980


class _Chain(NamedTuple):
    """The clusters of a file, ``(first, count)`` each, and why there are no more of them."""

    runs: tuple[tuple[int, int], ...]
    problem: str | None


class FatTree(WithDeleted):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``, or was, before its end was cut off.

        Raises:
            CorruptImageError: if its boot sector contradicts itself.
            ReadError: if that cannot be read.
        """
        super().__init__(volume, "vfat")
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        place = self._place = read_geometry(self._reader, may_be_cut=True)
        start = place.fat_at + place.active * place.fat_size
        self._table = Table(self._reader, start, table_size(place), place.bits)
        self._chain = functools.lru_cache(_CHAINS_KEPT)(self._chain_from)
        self._steps = self._steps_at_once = 2 * place.cluster_count + _FREE_STEPS
        self._area = place.root_at if place.root_size else place.data_at
        self._begin_at(Entry("/", _ROOT, Type.DIRECTORY, 0, mode=0o777, links=1))
        root = _Chain((), None) if place.root_size else self._chain(place.root_cluster)
        extents = [(place.root_at, place.root_size)] if place.root_size else self._places(root)
        size = sum(length for _, length in extents)
        self._root = self._root._replace(size=size, extents=inside(volume, extents))

    def _living_content(self, entry: Entry, stream: str | None) -> Source:
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        runs: list[Run] = []
        position = 0
        extents, problem = list(entry.extents), None
        if entry.type is not Type.SYSTEM:
            self._steps = self._steps_at_once
            chain = self._chain(self._record(entry.inode).cluster)
            extents, problem = self._places(chain), chain.problem
        for offset, length in extents:
            runs.append(Run(position, offset, length))
            position += length
        there = min(position, entry.size)
        if problem is not None and not there and entry.size:
            raise CorruptImageError(problem, name=name)
        return filled_up(mapped(self._volume, runs, there, name=name), entry.size, name=name)

    def _living(self, folder: Entry) -> Iterator[Entry]:
        """What was not deleted, and in the root what is no file."""
        self._steps = self._steps_at_once
        path = folder.path
        try:
            extents = self._folder(folder)
            content = b"".join(bytes(self._reader.read(*item, "folder")) for item in extents)
            numbers = [
                number
                for offset, length in extents
                for number in range(self._number(offset), self._number(offset + length))
            ]
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(path, failure.args[0]))
            return
        for record in records_in(content, bits=self._place.bits):
            if record.is_dot:
                continue
            entry = content[record.last * ENTRY_BYTES : (record.last + 1) * ENTRY_BYTES]
            if record.attributes & LABEL:
                if folder.inode == _ROOT:
                    yield self._label(record, numbers[record.last], entry)
                continue
            name = record.name.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            yield self._entry(path_in(folder, name), record, numbers[record.last], entry)
        if folder.inode == _ROOT:
            yield from self._tables()

    def _folder(self, folder: Entry) -> list[tuple[int, int]]:
        """Where the entries of a folder are, as far as the volume has them.

        Raises:
            CorruptImageError: if nowhere.
            ReadError: if that cannot be read.
        """
        if folder.inode == _ROOT:
            return list(self._root.extents)
        chain = self._chain(self._record(folder.inode).cluster)
        if chain.problem is not None:
            self.notes.append(note_of(folder.path, chain.problem))
        left = ENTRIES_MAX * ENTRY_BYTES
        found: list[tuple[int, int]] = []
        for offset, length in inside(self._volume, self._places(chain)):
            found.append((offset, min(length, left)))
            left -= found[-1][1]
            if not left:
                break
        return found

    def _number(self, offset: int) -> int:
        return _FIRST_INODE + (offset - self._area) // ENTRY_BYTES

    def _record(self, number: int) -> Record:
        """What the entry of a number says.

        Raises:
            CorruptImageError: if there is none.
            ReadError: if it cannot be read.
        """
        at = self._area + (number - _FIRST_INODE) * ENTRY_BYTES
        if number < _FIRST_INODE or at + ENTRY_BYTES > self._place.end:
            raise CorruptImageError(f"expected the number of an entry, found {number}")
        entry = bytes(self._reader.read(at, ENTRY_BYTES, "entry of a folder"))
        return record_of("", entry, 0, 0, bits=self._place.bits)

    def _entry(self, path: str, record: Record, number: int, entry: bytes) -> Entry:
        type_ = Type.DIRECTORY if record.attributes & FOLDER else Type.FILE
        chain = _Chain((), None)
        try:
            if record.cluster:
                chain = self._chain(record.cluster)
        except (FormatError, ReadError) as failure:
            chain = _Chain((), str(failure.args[0]))
        places = self._places(chain)
        covered = sum(length for _, length in places)
        size = covered if type_ is Type.DIRECTORY else record.size
        if covered < size:
            why = chain.problem or f"expected clusters for {size} bytes, found {covered}"
            self.notes.append(note_of(path, why))
        return Entry(
            path,
            number,
            type_,
            size,
            _times(entry),
            _READ_AND_RUN | (0 if record.attributes & READ_ONLY else _WRITE),
            links=1,
            extents=inside(self._volume, places),
            is_plain=type_ is Type.FILE and size <= covered and self._is_inside(places),
        )

    def _label(self, record: Record, number: int, entry: bytes) -> Entry:
        text = text_of(record.short)
        times = _times(entry)
        return Entry(f"/{text}{_LABEL}", number, Type.SYSTEM, 0, times, links=1, mode=0o777)

    def _tables(self) -> Iterator[Entry]:
        """What is in front of the files, by the names that The Sleuth Kit gives them."""
        place = self._place
        number = self._number(min(place.end, self._volume.size))
        tables = [("/$MBR", (0, _BOOT_BYTES))]
        tables += [
            (f"/$FAT{index + 1}", (place.fat_at + index * place.fat_size, place.fat_size))
            for index in range(min(place.fat_count, 2))
        ]
        for index, (path, where) in enumerate(tables):
            extents = inside(self._volume, [where])
            yield Entry(
                path, number + index, Type.SYSTEM, where[1], links=1, extents=extents, is_plain=True
            )

    def _places(self, chain: _Chain) -> list[tuple[int, int]]:
        unit = self._place.cluster_size
        return [
            (self._place.data_at + (first - FIRST_CLUSTER) * unit, count * unit)
            for first, count in chain.runs
        ]

    def _is_inside(self, places: list[tuple[int, int]]) -> bool:
        return all(offset + length <= self._volume.size for offset, length in places)

    def _chain_from(self, first: int) -> _Chain:
        """Raises: ReadError, CorruptImageError: if the table cannot be read."""
        place = self._place
        mask = MASKS[place.bits]
        end = min(FIRST_CLUSTER + place.cluster_count, self._table.count)
        found: list[tuple[int, int]] = []
        cluster, left = first, place.cluster_count
        start = count = 0
        problem: str | None = None
        while first and cluster < mask - 7:
            if not FIRST_CLUSTER <= cluster < end or not left:
                problem = f"chain from cluster {first}: expected another cluster, found {cluster}"
                break
            if not self._steps:
                raise CorruptImageError(
                    f"chain from cluster {first}: it is not followed, others were too long"
                )
            self._steps -= 1
            left -= 1
            if cluster == start + count:
                count += 1
            else:
                if count:
                    found.append((start, count))
                start, count = cluster, 1
            cluster = self._table[cluster] & mask
        if count:
            found.append((start, count))
        return _Chain(tuple(found), problem)


def _times(entry: bytes) -> Times:
    """Local ones, of nobody knows where, taken for UTC.

    Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, Date and Time Formats.
    """
    fields = [int.from_bytes(entry[at : at + 2], "little") for at in (14, 16, 18, 22, 24)]
    created_at, created_on, accessed_on, modified_at, modified_on = fields
    created = _time(created_on, created_at)
    return Times(
        _time(modified_on, modified_at),
        _time(accessed_on, 0),
        None,
        None if created is None else created + min(entry[13], 199) * (_NS // 100),
    )


def _time(date: int, clock: int) -> int | None:
    month, day = date >> 5 & 0xF, date & 0x1F
    if not (1 <= month <= 12 and day):
        return None
    hours, minutes, seconds = clock >> 11, clock >> 5 & 0x3F, 2 * (clock & 0x1F)
    when = (_EPOCH_YEAR + (date >> 9), month, day, hours, minutes, seconds)
    return calendar.timegm(when) * _NS


def open_tree(volume: Source, kind: str) -> FileTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    try:
        return FatTree(volume)
    except CorruptImageError as failure:
        try:
            return sleuthkit.open_tree(volume, kind)
        except FormatError:
            raise failure from None
