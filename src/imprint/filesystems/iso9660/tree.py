"""The folders of a disc.

A disc may have its names several times: in the capitals of ISO 9660, in Joliet, and beside the
former with all that Unix knows in Rock Ridge. The last is taken where it is there, then Joliet.
Files are numbered by the place of their record, folders by that of their content.

Of several sessions the last is told; what the others had is in folders among what was deleted.
"""

from __future__ import annotations

import stat
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, ReadError, UnsupportedFeatureError
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.contents import extents_of, held, in_a_row, mapped
from imprint.filesystems.iso9660.records import (
    ASSOCIATED,
    DIRECTORY,
    GOES_ON,
    SECTOR,
    Record,
    Volume,
    record_at,
    records_of,
    time_of,
)
from imprint.filesystems.iso9660.rockridge import Facts, rock_ridge
from imprint.filesystems.iso9660.sessions import DESCRIPTORS_AT, sessions_of
from imprint.filesystems.iso9660.zisofs import unzipped
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    OwnTree,
    Times,
    Type,
    bytes_of,
    no_stream,
    note_of,
    path_in,
    shown,
    text_of,
)
from imprint.filesystems.walking import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

SESSION: Final = "$Session"
"""What the folder of a session is called that was not the last, before its number."""

_DESCRIPTORS_MAX: Final = 16
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_FOLDER_BYTES_MAX: Final = 1 << 30
_EXTENTS_MAX: Final = 1 << 12
"""Of one file, of up to 4 GiB each."""

_KNOWN_MAX: Final = 1 << 20
"""Files, and places, of all sessions that are compared with those of earlier ones."""


class SessionTree(OwnTree):
    """What a session tells; see :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source, start: int = 0) -> None:
        """``start`` is the first sector of the session.

        Raises:
            CorruptImageError: if it is none.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._start = start
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        primary, joliet = self._descriptors()
        self._block = primary.block_size
        root = self._folder_record(primary)
        self._rock_ridge = rock_ridge(self._reader, self._block, root.system)
        self._is_joliet = self._rock_ridge is None and joliet is not None
        if self._is_joliet and joliet is not None:
            root = self._folder_record(joliet)
        self._root = self._entry("/", [root], self._facts(root))

    @property
    def has_rock_ridge(self) -> bool:
        """Whether it has all that Unix knows of files."""
        return self._rock_ridge is not None

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; discs keep no deleted names."""
        parts: list[Record] = []
        try:
            for record in self._records(folder.inode):
                if record.name in (b"\0", b"\1") or record.flags & ASSOCIATED:
                    continue
                parts.append(record)
                if record.flags & GOES_ON and len(parts) < _EXTENTS_MAX:
                    continue
                facts = self._facts(record)
                name = self._name(record, facts)
                if not facts.is_moved and name not in ("", ".", ".."):
                    yield self._entry(path_in(folder, name), parts, facts)
                parts = []
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        if entry.type is Type.LINK:
            return held(name, bytes_of(entry.target or ""))
        if not entry.is_plain and self._is_zipped(entry):
            length = sum(length for _, length in entry.extents)
            stored = mapped(self._volume, in_a_row(entry.extents, length), length, name=name)
            return unzipped(stored, entry.size, name)
        if not entry.is_plain:
            raise UnsupportedFeatureError("it is interleaved with others, or has gaps", name=name)
        return mapped(self._volume, extents_of(entry), entry.size, name=name)

    def _is_zipped(self, entry: Entry) -> bool:
        """Whether a file is compressed, by its record, which is its number."""
        length = SECTOR - entry.inode % SECTOR
        data = bytes(self._reader.read(entry.inode, length, "record"))
        record = record_at(data, 0, length, entry.inode)
        return record is not None and self._facts(record).zipped is not None

    def _descriptors(self) -> tuple[Volume, Volume | None]:
        """The primary descriptor, and that of Joliet."""
        primary = joliet = None
        for number in range(_DESCRIPTORS_MAX):
            offset = (self._start + DESCRIPTORS_AT + number) * SECTOR
            if offset + SECTOR > self._reader.size:
                break
            found = Volume.unpack(self._reader.read(offset, SECTOR, "volume descriptor"))
            if found.mark != b"CD001" or found.type == 255:
                break
            if found.type == 1 and primary is None:
                primary = found
            if found.type == 2 and joliet is None and found.escapes[:3] in _JOLIET:
                joliet = found
        if primary is None or primary.block_size not in (512, 1024, 2048):
            raise CorruptImageError(
                "its files cannot be listed: expected a volume descriptor of ISO 9660",
                name=self._volume.name,
            )
        return primary, joliet

    def _folder_record(self, descriptor: Volume) -> Record:
        """What the root folder says of itself, in its first record."""
        there = record_at(descriptor.root, 0, len(descriptor.root), 0)
        if there is None or not there.flags & DIRECTORY:
            raise CorruptImageError("expected the record of a folder", name=self._volume.name)
        return self._first_record((there.extent + there.attributes) * self._block)

    def _first_record(self, place: int) -> Record:
        data = bytes(self._reader.read(place, SECTOR, "folder"))
        record = record_at(data, 0, SECTOR, place)
        if record is None or record.name != b"\0" or not record.flags & DIRECTORY:
            raise CorruptImageError(f"expected a folder at 0x{place:x}", name=self._volume.name)
        return record

    def _records(self, place: int) -> Iterator[Record]:
        """Of the folder whose content begins there."""
        size = self._first_record(place).size
        if size > _FOLDER_BYTES_MAX:
            raise CorruptImageError(
                f"expected a folder of at most 1 GiB, found {size} bytes", name=self._volume.name
            )
        return records_of(self._reader, place, size)

    def _facts(self, record: Record) -> Facts:
        return Facts() if self._rock_ridge is None else self._rock_ridge.facts(record.system)

    def _name(self, record: Record, facts: Facts) -> str:
        if facts.name is not None:
            return text_of(facts.name)
        if self._is_joliet:
            name = record.name.decode("utf-16-be", "replace")
        else:
            name = text_of(record.name)
        name = name.partition(";")[0] if not record.flags & DIRECTORY else name
        name = name.replace("\0", "")
        # A period at the end separates an extension that there is none of.
        plain = name.removesuffix(".")
        return name if plain in ("", ".", "..") else plain

    def _entry(self, path: str, parts: list[Record], facts: Facts) -> Entry:
        record = parts[0]
        place = (record.extent + record.attributes) * self._block
        is_folder = bool(record.flags & DIRECTORY)
        if facts.child is not None:
            place, is_folder = facts.child * self._block, True
        type_ = Type.DIRECTORY if is_folder else Type.FILE
        if facts.mode is not None and not is_folder:
            type_ = TYPES_BY_MODE.get(stat.S_IFMT(facts.mode), Type.OTHER)
        extents, is_plain = self._extents(parts)
        size = sum(part.size for part in parts)
        target = None
        if type_ is Type.LINK:
            target = text_of(facts.target or b"")
            size = len(facts.target or b"")
        return Entry(
            path,
            place if is_folder else record.place,
            type_,
            size if facts.zipped is None else facts.zipped,
            facts.times or Times(modified=time_of(record.date)),
            stat.S_IMODE(facts.mode or 0),
            facts.owner,
            facts.group,
            facts.links,
            extents,
            target,
            is_plain=is_plain and type_ is Type.FILE and facts.zipped is None,
        )

    def _extents(self, parts: list[Record]) -> tuple[tuple[tuple[int, int], ...], bool]:
        """Where a file lies, whole blocks, and whether all of it is inside of the volume."""
        found: list[tuple[int, int]] = []
        is_plain = True
        for part in parts:
            start = (part.extent + part.attributes) * self._block
            length = -(-part.size // self._block) * self._block
            inside = max(0, min(length, self._volume.size - start))
            if inside:
                found.append((start, inside))
            if inside < part.size or part.is_interleaved:
                is_plain = False
        # The next extent follows the bytes of the last one, so that all but that are whole.
        whole = all(part.size % self._block == 0 for part in parts[:-1])
        return tuple(found), is_plain and whole


class IsoTree(SessionTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it is no ISO 9660.
            ReadError: if it cannot be read.
        """
        *earlier, last = [item.start for item in sessions_of(volume)] or [0]
        failures: list[str] = []
        while True:
            try:
                super().__init__(volume, last)
                break
            except (FormatError, ReadError) as failure:
                if not earlier:
                    raise
                why = f"the session from sector {last} is not shown: {failure.args[0]}"
                failures.append(note_of("/", why))
                last = earlier.pop()
        self.notes += failures
        self._earlier = tuple(earlier)
        self._opened: dict[int, SessionTree] = {}
        self._known: dict[int, int] = {}
        self._ways: set[int] = set()
        self._looked_through: set[int] = set()

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; what earlier sessions had is deleted."""
        if not folder.subvolume:
            yield from super().children(folder)
            if deleted and folder.path == "/":
                yield from self._folders(folder)
            return
        session = self._session(folder.subvolume)
        told = len(session.notes)
        number, prefix = folder.subvolume, len(self._path_of(folder.subvolume))
        for entry in session.children(folder):
            path = entry.path[prefix:]
            if not self._is_behind(number, _key(entry, path)) or self._is_way(number, path):
                yield self._given_up(entry, number)
        for note in session.notes[told:]:
            self.notes.append(note)

    def _folders(self, root: Entry) -> Iterator[Entry]:
        """The root folders of all sessions but the last, the first of which has number 1."""
        for number in range(1, len(self._earlier) + 1):
            path = path_in(root, self._path_of(number)[1:])
            try:
                entry = self._session(number).root()
            except (FormatError, ReadError) as failure:
                self.notes.append(note_of(path, failure.args[0]))
            else:
                yield self._given_up(entry._replace(path=path), number)

    def _path_of(self, number: int) -> str:
        return f"/{SESSION}{number}"

    def _session(self, number: int) -> SessionTree:
        found = self._opened.get(number)
        if found is None:
            found = SessionTree(self._volume, self._earlier[number - 1])
            self._opened[number] = found
        return found

    def _given_up(self, entry: Entry, number: int) -> Entry:
        """An entry of an earlier session; its place may be in use, in a later one."""
        is_used = entry.type is not Type.DIRECTORY and bool(entry.extents)
        is_used = is_used and self._is_behind(number, hash(entry.extents))
        return entry._replace(subvolume=number, is_deleted=True, is_allocated=is_used)

    def _is_behind(self, number: int, key: int) -> bool:
        """Whether a session behind one has a file, or a place, of that key."""
        if not self._known:
            for other in range(len(self._earlier) + 1, 1, -1):
                for entry in self._all_of(other, _KNOWN_MAX - len(self._known)):
                    self._known.setdefault(_key(entry, entry.path), other)
                    if entry.type is not Type.DIRECTORY:
                        self._known.setdefault(hash(entry.extents), other)
        return self._known.get(key, 0) > number

    def _is_way(self, number: int, path: str) -> bool:
        """Whether the folder of that path has something that no later session has."""
        if number not in self._looked_through:
            self._looked_through.add(number)
            for entry in self._all_of(number, _KNOWN_MAX):
                if self._is_behind(number, _key(entry, entry.path)):
                    continue
                way = entry.path.rpartition("/")[0]
                while way and (key := hash((number, way))) not in self._ways:
                    if len(self._ways) >= _KNOWN_MAX:
                        break
                    self._ways.add(key)
                    way = way.rpartition("/")[0]
        return hash((number, path)) in self._ways or len(self._ways) >= _KNOWN_MAX

    def _all_of(self, number: int, count: int) -> Iterator[Entry]:
        """What a session shows, the last one included, as far as it can be told."""
        start = (*self._earlier, self._start)[number - 1]
        try:
            yield from islice(walk(SessionTree(self._volume, start)), max(count, 0))
        except (FormatError, ReadError):
            return  # so it has nothing, and what it has is told of those before it


def _key(entry: Entry, path: str) -> int:
    """The same for all that two sessions show in the same way, by its path in the session.

    Folders are written anew by each; so only their names count.
    """
    return hash(path) if entry.type is Type.DIRECTORY else hash((path, *entry[2:]))


def open_tree(volume: Source, _kind: str) -> IsoTree:
    """The files of a disc; see :func:`imprint.filesystems.trees.tree`."""
    return IsoTree(volume)
