"""The folders of FAT12, FAT16 and FAT32.

Files are numbered as The Sleuth Kit does, which tells deleted ones: by the place of their entry.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems import sleuthkit
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    FOLDER_BYTES_AT_ONCE,
    Table,
    pieces_of,
    runs_of,
)
from imprint.filesystems.contents import PIECES_MAX, Run, inside, mapped
from imprint.filesystems.dos_times import NS, moment_of
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
_RUNS_KEPT: Final = 1024
"""Of a chain that is kept."""

_FEW_CLUSTERS: Final = 1 << 16
_SECTOR_BYTES: Final = 512
_UNREAD: Final = b"\xe5"
"""What an entry begins with that is none."""

_FREE_STEPS: Final = 1 << 16
_STAMPS: Final = struct.Struct("<13x B H H H 2x H H 6x")
"""Of an entry: hundredths of a second, when it was created, read, and modified."""


class _Chain(NamedTuple):
    """The clusters of a file, ``(first, count)`` each, and why there are no more of them."""

    runs: tuple[tuple[int, int], ...]
    problem: str | None


class FatTree(WithDeleted):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    folds_case = True

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
        self._chains: dict[int, _Chain] = {}
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
        try:
            extents = self._folder(folder)
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))
            return
        content = self._entries_of(folder, extents)
        numbers = [
            number
            for offset, length in extents
            for number in range(self._number(offset), self._number(offset + length))
        ]
        for record in records_in(content, bits=self._place.bits):
            if record.is_dot:
                continue
            entry = content[record.last * ENTRY_BYTES : (record.last + 1) * ENTRY_BYTES]
            if record.attributes & LABEL and folder.inode == _ROOT:
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
        place = self._place
        if folder.inode != _ROOT:
            places = self._followed(folder, self._record(folder.inode).cluster)
        elif place.root_size:
            places = [(place.root_at, place.root_size)]
        else:
            places = self._followed(folder, place.root_cluster)
        left = ENTRIES_MAX * ENTRY_BYTES
        found: list[tuple[int, int]] = []
        for offset, length in inside(self._volume, places):
            if left:
                found.append((offset, min(length, left) // ENTRY_BYTES * ENTRY_BYTES))
                left -= found[-1][1]
        told, there = (sum(length for _, length in extents) for extents in (found, places))
        if told < there:
            why = f"a folder of {there} bytes: no more than {told} of them are read"
            self.notes.append(note_of(folder.path, why))
        return found

    def _followed(self, folder: Entry, first: int) -> list[tuple[int, int]]:
        """Where the clusters of a folder are; notes why not, if it has others."""
        chain = self._chain(first)
        if chain.problem is not None:
            self.notes.append(note_of(folder.path, chain.problem))
        return self._places(chain)

    def _entries_of(self, folder: Entry, extents: list[tuple[int, int]]) -> bytes:
        """The entries of a folder; deleted ones in place of those that cannot be read."""
        found = bytearray()
        problem = None
        for piece in pieces_of(extents, FOLDER_BYTES_AT_ONCE):
            with suppress(FormatError, ReadError):
                found += self._reader.read(*piece, "folder")
                continue
            for offset, length in pieces_of([piece], _SECTOR_BYTES):
                try:
                    found += self._reader.read(offset, length, "folder")
                except (FormatError, ReadError) as failure:
                    problem = problem or failure.args[0]
                    found += _UNREAD * length
        if problem is not None:
            self.notes.append(note_of(folder.path, f"some of its names are lost: {problem}"))
        return bytes(found)

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
        path = path_in(self._root, text_of(record.short) + _LABEL)
        return Entry(path, number, Type.SYSTEM, 0, _times(entry), links=1, mode=0o777)

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

    def _chain(self, first: int) -> _Chain:
        """Raises: CorruptImageError: if others were too long to follow this one."""
        found = self._chains.get(first)
        if found is None:
            found = self._chain_from(first)
            if len(self._chains) >= _CHAINS_KEPT:
                del self._chains[next(iter(self._chains))]
            if len(found.runs) <= _RUNS_KEPT:
                self._chains[first] = found
        return found

    def _chain_from(self, first: int) -> _Chain:
        place = self._place
        mask = MASKS[place.bits]
        end = min(FIRST_CLUSTER + place.cluster_count, self._table.count)
        found: list[tuple[int, int]] = []
        cluster, done, milestone = first, 0, 0
        start = count = 0
        problem: str | None = None
        while first and cluster < mask - 7:
            if cluster == milestone:  # so a loop is found (R. P. Brent)
                problem = "expected an end of it, it leads back into itself"
                break
            if not FIRST_CLUSTER <= cluster < end:
                problem = f"expected another cluster, found {cluster}"
                break
            if not self._steps:
                raise CorruptImageError(
                    f"chain from cluster {first}: it is not followed, others were too long"
                )
            self._steps -= 1
            done += 1
            if not done & (done - 1):
                milestone = cluster
            if cluster == start + count:
                count += 1
            else:
                if count:
                    found.append((start, count))
                start, count = cluster, 1
            if len(found) >= PIECES_MAX:
                problem = f"expected at most {PIECES_MAX} pieces, found more"
                break
            try:
                cluster = self._table[cluster] & mask
            except (FormatError, ReadError) as failure:
                problem = str(failure.args[0])
                break
        if count:
            found.append((start, count))
        if problem is None:
            return _Chain(tuple(found), None)
        return _Chain(tuple(_once(found)), f"chain from cluster {first}: {problem}")


def _once(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The clusters of a chain, ``(first, count)`` each, up to where it leads back into itself."""
    if all(sum(run) <= following[0] for run, following in pairwise(sorted(runs))):
        return runs
    if sum(count for _, count in runs) <= _FEW_CLUSTERS:
        clusters = chain.from_iterable(range(start, start + count) for start, count in runs)
        return list(runs_of(dict.fromkeys(clusters)))
    met = bytearray(max(map(sum, runs)))
    found = []
    for start, count in runs:
        again = met.find(1, start, start + count)
        if again >= 0:
            if again > start:
                found.append((start, again - start))
            break
        met[start : start + count] = b"\x01" * count
        found.append((start, count))
    return found


def _times(entry: bytes) -> Times:
    """Local ones, of nobody knows where, taken for UTC."""
    stamps = _STAMPS.unpack(entry)
    hundredths, created_at, created_on, accessed_on, modified_at, modified_on = stamps
    created = moment_of(created_on, created_at)
    return Times(
        moment_of(modified_on, modified_at),
        moment_of(accessed_on, 0),
        None,
        None if created is None else created + min(hundredths, 199) * (NS // 100),
    )


def open_tree(volume: Source, kind: str) -> FileTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    try:
        return FatTree(volume)
    except CorruptImageError as failure:
        try:
            return sleuthkit.open_tree(volume, kind)
        except FormatError:
            raise failure from None
