"""The folders of a UDF.

Files are numbered by the block of their entry, in the partition that it is in; partitions are
sets of numbers of their own.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.core.units import MIB
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.contents import PIECES_MAX, extents_of, held, mapped
from imprint.filesystems.iso9660.tree import IsoTree
from imprint.filesystems.tree import (
    NOTES_MAX,
    Entry,
    OwnTree,
    Times,
    Type,
    bytes_of,
    no_stream,
    note_of,
    path_in,
    shown,
)
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.folders import DELETED, PARENT, Name, names_of
from imprint.filesystems.udf.free import FreeSpace
from imprint.filesystems.udf.icbs import Address, Icbs, address_of
from imprint.filesystems.udf.layout import EMBEDDED, FileSet
from imprint.filesystems.udf.maps import Mapper
from imprint.filesystems.udf.partitions import Space
from imprint.filesystems.udf.text import mode_of, target_of, time_of
from imprint.filesystems.udf.volume import read_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree
    from imprint.filesystems.udf.icbs import Facts
    from imprint.filesystems.udf.volume import VolumeSet

_TYPES: Final = {
    0: Type.FILE,
    4: Type.DIRECTORY,
    5: Type.FILE,
    6: Type.BLOCK,
    7: Type.CHARACTER,
    9: Type.FIFO,
    10: Type.SOCKET,
    12: Type.LINK,
    13: Type.SYSTEM,
    249: Type.FILE,
    **dict.fromkeys((248, 250, 251, 252), Type.SYSTEM),
}
"""By ECMA-167, 4/14.6.6; 248 and above by UDF."""

_STREAM_FOLDER: Final = 13
_FOLDERS: Final = (4, _STREAM_FOLDER)
_SPECIAL: Final = ((layout.SETUID, 0o4000), (layout.SETGID, 0o2000), (layout.STICKY, 0o1000))
_OWN_NAME: Final = "Non-Allocatable Space"
"""Of what may not be used, a file in the root until revision 1.50."""

_NOBODY: Final = 0xFFFFFFFF
_TARGET_BYTES_MAX: Final = 1 << 16
_STREAMS_MAX: Final = 1 << 10
"""Of one file."""

_AGAIN_BYTES_MAX: Final = 16 * MIB
"""Of descriptors that are read again for lists of files, from that of the root on. Where a few
large files have very many names, the others say nothing of where they lie."""

_COMPARED_MAX: Final = 1 << 12
"""Names of both roots of a disc."""


class UdfTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if its root is in a partition of an unknown kind.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._told: set[str] = set()
        self._is_quiet = False
        reader = VolumeReader(volume, budget=UNBOUNDED)
        found = read_volume(reader)
        mapper = self._map(found)
        if mapper.lacks_table:  # it is that of another session, whose anchor is elsewhere
            found = read_volume(reader, block=found.block)
            mapper = self._map(found)
        self.notes += found.problems
        self._free = FreeSpace(self._space, self._icbs, mapper.mapped)
        self._tell("/")
        for number, failure in enumerate(self._space.partitions):
            if isinstance(failure, (FormatError, ReadError)):
                self._note("/", f"partition {number}: {failure.args[0]}")
        there = address_of(found.logical.file_set)
        data = self._space.descriptor(
            there.partition, there.block, "file set descriptor", (layout.FILE_SET,)
        )
        root = address_of(FileSet.unpack(data).root)
        self._begin_at(self._entry("/", root))

    def _map(self, found: VolumeSet) -> Mapper:
        """Make the partitions of a set of descriptors, and what reads in them."""
        reader = VolumeReader(self._volume, budget=UNBOUNDED)
        self._space = Space(reader, found.block)
        self._icbs = Icbs(self._volume, self._space)
        return Mapper(self._volume, self._space, self._icbs, found)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; of deleted names, what is known of their files."""
        if folder.path == "/":
            self._icbs.again_bytes = 0
        try:
            for found in self._names(folder.subvolume, folder.inode, folder.path):
                is_deleted = folder.is_deleted or bool(found.flags & DELETED)
                if is_deleted and not (deleted and found.text):
                    continue
                path = path_in(folder, found.text)
                if found.problem is not None:
                    self._note(path, f"its name: {found.problem}")
                try:
                    if is_deleted:
                        yield self._deleted(path, found.entry)
                    elif found.text in ("", ".", ".."):
                        raise CorruptImageError("expected a name")
                    else:
                        yield self._entry(path, found.entry)
                except (FormatError, ReadError) as failure:
                    self._note(path, failure.args[0])
        except (FormatError, ReadError) as failure:
            self._note(folder.path, failure.args[0])

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if entry.type is Type.OTHER and entry.is_deleted:
            raise CorruptImageError("expected a file, found no more than its name", name=name)
        if stream is not None:
            facts = self._stream(entry, stream, name)
            return self._icbs.content(facts, f"{name}:{shown(stream)}")
        if entry.type is Type.LINK:
            return held(name, bytes_of(entry.target or ""))
        if entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        again = self._icbs.again_bytes
        content = self._icbs.content(self._icbs.facts(entry.subvolume, entry.inode), name)
        self._icbs.again_bytes = again  # contents are asked for one by one
        return content

    def _names(self, partition: int, block: int, path: str) -> Iterator[Name]:
        """The names in a folder, or of streams, whose entry is there, also deleted ones."""
        self._space.doubts.clear()  # what was told before, or was not asked for
        facts = self._icbs.facts(partition, block)
        self._tell(path)
        if facts.entry.type not in _FOLDERS:
            raise CorruptImageError("expected a folder")
        for found in names_of(self._copies(partition, facts, path), self._volume.size):
            if isinstance(found, str):
                self._note(path, found)
            elif not found.flags & PARENT:
                yield found

    def _copies(self, partition: int, facts: Facts, path: str) -> list[Source]:
        """Of a folder's content, those that can be found."""
        name = f"{self._volume.name}: {shown(path)}"
        found: list[Source] = []
        failures: list[FormatError | ReadError] = []
        for copy in range(self._space.partition(partition).copies):
            try:
                found.append(self._icbs.content(facts, name, copy))
            except (FormatError, ReadError) as failure:
                failures.append(failure)
                if not copy:
                    self._note(path, failure.args[0])
        if not found:
            raise failures[0]
        return found

    def _entry(self, path: str, there: Address) -> Entry:
        if not there.length:
            raise CorruptImageError("expected the place of its entry, found none")
        self._space.doubts.clear()
        facts = self._icbs.facts(there.partition, there.block)
        entry = facts.entry
        type_ = _TYPES.get(entry.type, Type.OTHER)
        if path == f"/{_OWN_NAME}" and entry.flags & layout.SYSTEM:
            type_ = Type.SYSTEM
        extents, is_plain = self._extents(facts, path)
        mode = mode_of(entry.permissions)
        for flag, bit in _SPECIAL:
            mode |= bit if entry.flags & flag else 0
        target = self._target(facts, path) if type_ is Type.LINK else None
        times = Times(
            time_of(entry.modified), time_of(entry.accessed), time_of(entry.changed), facts.created
        )
        streams = self._streams(facts, path)
        self._tell(path)
        return Entry(
            path,
            there.block,
            type_,
            entry.size if target is None else len(bytes_of(target)),
            times,
            mode,
            0 if entry.owner == _NOBODY else entry.owner,
            0 if entry.group == _NOBODY else entry.group,
            entry.links,
            extents,
            target,
            streams,
            is_plain=is_plain and type_ is Type.FILE,
            subvolume=there.partition,
        )

    def _deleted(self, path: str, there: Address) -> Entry:
        """What is left of a file whose name was deleted."""
        self._is_quiet = True  # nobody promised that anything is left
        lost = Entry(path, 0, Type.OTHER, 0, is_deleted=True, is_allocated=False)
        try:
            found = self._entry(path, there)
            facts = self._icbs.facts(there.partition, there.block)
            if self._is_too_much(facts):
                return found._replace(is_deleted=True, is_allocated=True)
            is_free = self._free.has(there.partition, there.block, self._space.block) and all(
                self._free.has(part.partition, part.block, part.length)
                for part in self._icbs.allocated(facts)
                if part.kind == layout.RECORDED
            )
        except (FormatError, ReadError):
            return lost
        finally:
            self._is_quiet = False
        return found._replace(is_deleted=True, is_allocated=not is_free)

    def _extents(self, facts: Facts, path: str) -> tuple[tuple[tuple[int, int], ...], bool]:
        """Where a file lies, whole blocks; whether it is nothing but that, one behind the other."""
        found: list[tuple[int, int]] = []
        block, end = self._space.block, self._volume.size
        covered = 0
        is_plain = facts.form != EMBEDDED
        try:
            if self._is_too_much(facts):
                self._note("/", "it has too many names of a few large files to say where all lie")
                return (), False
            for run in islice(self._icbs.runs(facts), PIECES_MAX):
                # The next extent follows the bytes of the last one, so all but that are whole.
                is_plain = is_plain and run.position == covered and covered % block == 0
                covered = run.position + run.length
                length = min(-(-run.length // block) * block, end - run.offset)
                is_plain = is_plain and length >= run.length
                if length <= 0:
                    continue
                if found and sum(found[-1]) == run.offset:
                    found[-1] = (found[-1][0], found[-1][1] + length)
                else:
                    found.append((run.offset, length))
        except (FormatError, ReadError) as failure:
            self._note(path, failure.args[0])
            is_plain = False
        return tuple(found), is_plain and covered >= facts.entry.size

    def _is_too_much(self, facts: Facts) -> bool:
        return self._icbs.again_bytes > _AGAIN_BYTES_MAX and facts.is_continued

    def _target(self, facts: Facts, path: str) -> str:
        """Where a symbolic link leads; nowhere if that cannot be read."""
        try:
            content = self._icbs.content(facts, self._volume.name)
            data = bytearray(min(content.size, _TARGET_BYTES_MAX))
            content.readinto(memoryview(data), 0)
        except (FormatError, ReadError) as failure:
            self._note(path, failure.args[0])
            return ""
        return target_of(bytes(data))

    def _streams(self, facts: Facts, path: str) -> tuple[str, ...]:
        """Names of further contents."""
        there = facts.streams
        if there is None:
            return ()
        try:
            names = islice(self._names(there.partition, there.block, path), _STREAMS_MAX)
            told = (name.text for name in names if not name.flags & DELETED)
            return tuple(name for name in told if name)
        except (FormatError, ReadError) as failure:
            self._note(path, f"its streams: {failure.args[0]}")
            return ()

    def _stream(self, entry: Entry, stream: str, name: str) -> Facts:
        there = self._icbs.facts(entry.subvolume, entry.inode).streams
        if there is not None:
            for found in self._names(there.partition, there.block, entry.path):
                if found.text == stream and not found.flags & DELETED:
                    return self._icbs.facts(found.entry.partition, found.entry.block)
        raise no_stream(stream, name)

    def _tell(self, path: str) -> None:
        """Note what was wrong with descriptors that were read for a path."""
        while self._space.doubts:
            self._note(path, self._space.doubts.pop())

    def _note(self, path: str, why: object) -> None:
        """Once, however often it is found."""
        note = note_of(path, why)
        is_new = note not in self._told and len(self._told) <= NOTES_MAX
        if is_new and not self._is_quiet:
            self._told.add(note)
            self.notes.append(note)


def open_tree(volume: Source, _kind: str) -> FileTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`.

    A disc may be ISO 9660 as well. That is told if its UDF cannot be read, or if it has the same
    files by Rock Ridge: programs that write both leave links and owners out of UDF.
    """
    iso = _iso_tree(volume)
    try:
        found = UdfTree(volume)
    except (FormatError, ReadError) as failure:
        if iso is None:
            raise
        why = f"its UDF cannot be read, so its ISO 9660 is told: {failure.args[0]}"
        iso.notes.append(note_of("/", why))
        return iso
    if iso is None or not iso.has_rock_ridge:
        return found
    names, others = _root_names(iso), _root_names(found)
    if not _is_same(names, others):
        return found
    untold = _only_in_second(names, others)
    if untold and len(others) < _COMPARED_MAX:
        why = f"its UDF has {len(untold)} other names here, which are not told, as {untold[0]}"
        iso.notes.append(note_of("/", shown(why)))
    return iso


def _iso_tree(volume: Source) -> IsoTree | None:
    try:
        return IsoTree(volume)
    except (FormatError, ReadError):
        return None


def _is_same(iso: set[str], udf: set[str]) -> bool:
    """Whether two roots are of the same files, though not all names may be the same."""
    return len(iso) >= len(udf) and not (udf and iso.isdisjoint(udf))


def _only_in_second(iso: set[str], udf: set[str]) -> list[str]:
    """Names that the first has not, not even longer ones that begin with them."""
    known = sorted(iso)
    places = ((name, bisect_left(known, name)) for name in sorted(udf))
    return [name for name, at in places if at == len(known) or not known[at].startswith(name)]


def _root_names(files: FileTree) -> set[str]:
    return {entry.name for entry in islice(files.children(files.root()), _COMPARED_MAX)}
