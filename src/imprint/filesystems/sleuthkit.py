"""Files of a volume, told by The Sleuth Kit: nothing is mounted.

It is a library in C that was made for evidence. It runs in a process of its own. Where a file lies
in the volume as it is, its content is read there; what is compressed, or within the file system's
tables, is asked for.

Times of FAT are local times of nobody knows where: they are taken as UTC.
"""

from __future__ import annotations

import contextlib
from binascii import a2b_base64
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ReadError,
    UnsupportedFeatureError,
)
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.attributes import check_length
from imprint.filesystems.blocks import block_size
from imprint.filesystems.contents import OnDemand, Run, extents_of, held, mapped, told_pairs
from imprint.filesystems.ext.attributes import Attributes
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.inodes import Inodes
from imprint.filesystems.isolated import Isolated
from imprint.filesystems.remains import ORPHANS, Reuse
from imprint.filesystems.sleuthkit_ntfs import time_of
from imprint.filesystems.sleuthkit_rows import DELETED, IN_USE, LOST, PLAIN
from imprint.filesystems.tree import (
    Entry,
    Notes,
    Times,
    Type,
    bytes_of,
    collected,
    note_of,
    path_in,
    shown,
)
from imprint.filters.cutoff import present
from imprint.filters.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.filesystems.exfat.times import EntryTimes
    from imprint.filesystems.tree import Attribute

KINDS: Final = {
    "exfat": "TSK_FS_TYPE_EXFAT",
    "ext2": "TSK_FS_TYPE_EXT_DETECT",
    "ext3": "TSK_FS_TYPE_EXT_DETECT",
    "ext4": "TSK_FS_TYPE_EXT_DETECT",
    "hfsplus": "TSK_FS_TYPE_HFS_DETECT",
    "ntfs": "TSK_FS_TYPE_NTFS",
    "vfat": "TSK_FS_TYPE_FAT_DETECT TSK_FS_TYPE_FAT32",
}
"""What the library calls them, by the kind that ``identify`` tells; it knows no others of ours.

Names are tried one after the other: it does not see that a small FAT32 is one.
"""

_NTFS_CLUSTER_MAX: Final = 64 << 10
"""What the library knows. Newer versions of Windows make larger ones, on demand."""

_SYSTEM_BELOW: Final = {"ntfs": 24, "hfsplus": 16}
"""First inode number that files of users have."""

_ROOT_TABLES: Final = frozenset(
    {"/$ALLOC_BITMAP", "/$UPCASE_TABLE", "/$VOLUME_GUID", "/$TEX_FAT", "/$ACT"}
)
"""What the library calls the entries of exFAT's root that are no files."""

_LABEL: Final = " (Volume Label Entry)"
"""Behind the name of the entry of FAT's and exFAT's root that is no file."""

_WITH_ZERO_TIMES: Final = frozenset({"ext2", "ext3", "ext4"})
"""Where 1970 is a time like others, and does not stand for none."""

_FAR: Final = ((1 << 31) - 1) * 1_000_000_000
"""January 2038. The library takes the 32 bits of ext for a time from 1970 on; since then, and
before 1970, there are more, or they have a sign."""

_FOLDING: Final = frozenset({"exfat", "hfsplus", "ntfs", "vfat"})
"""Where upper and lower case of names are the same; a few HFS+ tell them apart."""

_WITH_TABLES: Final = frozenset({"exfat", "hfsplus", "ntfs", "vfat"})
"""Where the library tells parts of the file system as files."""

_WITH_ATTRIBUTES: Final = frozenset({"ext2", "ext3", "ext4"})
_FOLDER: Final = 2
_META_TYPES: Final = {
    1: Type.FILE,
    _FOLDER: Type.DIRECTORY,
    3: Type.FIFO,
    4: Type.CHARACTER,
    5: Type.BLOCK,
    6: Type.LINK,
    8: Type.SOCKET,
    10: Type.SYSTEM,
    11: Type.DIRECTORY,
}
_NAME_TYPES: Final = {
    1: Type.FIFO,
    2: Type.CHARACTER,
    3: Type.DIRECTORY,
    4: Type.BLOCK,
    5: Type.FILE,
    6: Type.LINK,
    7: Type.SOCKET,
}
_PERMISSIONS: Final = 0o7777


class SleuthKit:
    """A file system; see :class:`~imprint.filesystems.tree.FileTree`.

    Attributes:
        notes: what could not be followed, one sentence each, without a full stop.
        process: the library.
        folds_case: whether upper and lower case of names are the same.
    """

    def __init__(self, volume: Source, kind: str, notes: list[str] | None = None) -> None:
        """The file system that is all of ``volume``; ``notes`` may be those of another reader.

        Raises:
            UnsupportedFeatureError: if the library is missing, or does not know the kind.
            CorruptImageError: if it makes nothing of the volume.
        """
        if kind not in KINDS:
            raise UnsupportedFeatureError(f"files of {kind} cannot be listed", name=volume.name)
        self.notes: list[str] = Notes() if notes is None else notes
        self._kind = kind
        self.folds_case = kind in _FOLDING
        self._volume = volume
        self._reuse = Reuse(kind, volume, self.notes)
        self._ext: Attributes | None = None
        self._inodes: Inodes | None = None
        self._entry_times: EntryTimes | None = None
        if kind == "exfat":
            from imprint.filesystems.exfat.times import EntryTimes  # of no other file system

            with contextlib.suppress(FormatError, ReadError):
                self._entry_times = EntryTimes(volume)
        self._expected: Sequence[Entry] = ()
        self._has_zero_times = kind in _WITH_ZERO_TIMES
        self._has_tables = kind in _WITH_TABLES
        # Told that more is there than it can read, the library would give up where that ends.
        there = Window(volume, 0, present(volume))
        self.process = Isolated(there, "sleuthkit_worker", KINDS[kind], library="pytsk3")
        self.close = self.process.close
        """Ends the process, which ends by itself when nobody needs this any more."""
        try:
            self._root = self._asked_root()
        except (CorruptImageError, ReadError) as failure:
            self.close()
            cluster = block_size(kind, volume) or 0
            if kind == "ntfs" and cluster > _NTFS_CLUSTER_MAX:
                raise UnsupportedFeatureError(
                    f"files in clusters of {cluster} bytes cannot be listed", name=volume.name
                ) from failure
            raise type(failure)(
                f"its files cannot be listed: {failure.args[0]}", name=volume.name
            ) from failure

    def root(self) -> Entry:
        """The folder that holds all others."""
        return self._root

    def _asked_root(self) -> Entry:
        row, notes = self.process.ask("root")
        self._take_notes("/", notes, self.process.failure)
        return self._entry("/", row)._replace(type=Type.DIRECTORY, is_plain=False)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; see :class:`~imprint.filesystems.tree.FileTree`.

        With deleted names, the root has the folder :data:`ORPHANS`, for which all inodes are
        looked at.
        """
        path = folder.path
        expected, self._expected = self._expected, ()
        told, is_all = 0, False
        while not is_all:
            try:
                answer = self.process.ask("folder", folder.inode, told, deleted)
            except (FormatError, ReadError) as failure:
                self._note(path, str(failure.args[0]))
                return
            unread = self.process.failure  # the next is that of whoever takes what is yielded
            rows, count, is_all, notes = answer
            told += count
            if not is_all:
                self.process.ask_ahead("folder", folder.inode, told, deleted)
            elif not any(row[2] == _FOLDER for row in rows):
                for following in expected:
                    block = following.extents[0][0] if following.extents else None
                    self.process.ask_ahead("folder", following.inode, 0, deleted, reads=block)
            for row in rows:
                entry = self._entry(path_in(folder, row[0]), row)
                yield self._judged(entry) if entry.is_deleted else entry
            self._take_notes(path, notes, unread)

    def expect(self, folders: Sequence[Entry]) -> None:
        """See :class:`~imprint.filesystems.tree.Expecting`."""
        self._expected = folders

    def date_names(self) -> None:
        """See :class:`~imprint.filesystems.tree.NameDating`."""
        self.process.ask("date_names")
        self.process.forget()

    def hold_contents(self) -> None:
        """See :class:`~imprint.filesystems.tree.Holding`."""
        self.process.ask("hold_contents")
        self.process.forget()

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = entry.path if stream is None else f"{entry.path}:{stream}"
        name = f"{self._volume.name}: {shown(name)}"
        if stream is None and entry.held is not None:
            return held(name, entry.held)
        if stream is None and entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        if stream is None and entry.type is Type.LINK and entry.target is not None:
            return held(name, bytes_of(entry.target))
        size, valid, flat, number = self.process.ask("content", entry.inode, stream)
        if flat is None:
            return OnDemand(name, size, partial(self._read, entry.inode, *number))
        numbers = iter(flat)
        runs = (Run(*told) for told in zip(numbers, numbers, numbers, strict=True))
        return mapped(self._volume, runs, size, name=name, valid=valid)

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes; see :class:`~imprint.filesystems.tree.FileTree`.

        Those of ext, on the disk as it is, and those of HFS+ that are not in extents of their own.
        """
        return collected(self._attributes(entry), entry.path, self.notes)

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        if entry.is_deleted and entry.is_allocated:
            return  # its inode is another one's
        if self._kind == "hfsplus":
            for name, length, number in self.process.ask("attributes", entry.inode):
                yield f"user.{name}", partial(self._value, entry.inode, length, *number)
        elif self._kind in _WITH_ATTRIBUTES:
            if self._ext is None:
                self._ext = Attributes(self._volume)
            yield from self._ext.of(entry.inode)

    def _value(self, inode: int, length: int, kind: int, number: int) -> bytes:
        check_length(length)
        return self._read(inode, kind, number, 0, length) if length else b""

    def _read(self, inode: int, kind: int, number: int, offset: int, length: int) -> bytes:
        """Bytes that only the library can make."""
        found: bytes = self.process.ask("read", inode, kind, number, offset, length)
        return found

    def _entry(self, path: str, row: Any) -> Entry:  # noqa: ANN401 - parsed JSON
        _, inode, code, size, modified, accessed, changed, created, *facts = row
        mode, owner, group, links, flags, target, streams, named, content, places = facts
        type_ = (_NAME_TYPES if flags & LOST else _META_TYPES).get(code, Type.OTHER)
        if self._has_tables:
            type_ = self._type(path, type_, inode)
        if not self._has_zero_times:
            modified, accessed, changed = modified or None, accessed or None, changed or None
        times = Times(modified, accessed, changed, created or None)
        if self._entry_times is not None:
            times = self._entry_times.of(inode) or times
        elif self._has_zero_times and max(modified, accessed, changed, created) >= _FAR:
            times = self._far_times(inode) or times
        return Entry(
            path,
            inode,
            type_,
            size,
            times,
            mode & _PERMISSIONS,
            owner,
            group,
            links,
            told_pairs(places),
            target,
            () if streams is None else tuple(streams),
            bool(flags & DELETED),
            bool(flags & IN_USE),
            bool(flags & PLAIN),
            named=None if named is None else Times(*map(time_of, named)),
            held=None if content is None else a2b_base64(content),
        )

    def _far_times(self, inode: int) -> Times | None:
        """Of an inode of ext, as its own reader has them; ``None`` if it cannot."""
        with contextlib.suppress(FormatError, ReadError):
            if self._inodes is None:
                reader = VolumeReader(self._volume, budget=UNBOUNDED)
                self._inodes = Inodes(reader, read_geometry(reader, may_be_cut=True))
            return self._inodes.facts(inode).times
        return None

    def _type(self, path: str, found: Type, inode: int) -> Type:
        """What it is where tables are told as files."""
        if self._kind == "exfat" and path in _ROOT_TABLES:
            return Type.SYSTEM
        if self._kind in ("exfat", "vfat") and path.endswith(_LABEL) and path.count("/") == 1:
            return Type.SYSTEM
        if found is not Type.DIRECTORY and inode < _SYSTEM_BELOW.get(self._kind, 0):
            return Type.SYSTEM
        if self._kind == "ntfs" and path.startswith("/$Extend/") and found is Type.FILE:
            return Type.SYSTEM
        return found

    def _judged(self, entry: Entry) -> Entry:
        """A deleted entry; its place may be another's although its inode is not."""
        if entry.path == f"/{ORPHANS}":
            return entry._replace(is_allocated=False)
        return self._reuse.judged(entry)

    def _take_notes(self, path: str, notes: list[Any], unread: str) -> None:
        """Note what the library could not follow; ``unread``: why the volume was not read."""
        prefix = path if path == "/" else f"{path}/"
        for name, why, is_unread in notes:
            self._note(prefix + name if name else path, (is_unread and unread) or why)

    def _note(self, path: str, why: str) -> None:
        self.notes.append(note_of(path, why))


def open_tree(volume: Source, kind: str) -> SleuthKit:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return SleuthKit(volume, kind)
