"""Files of a volume, told by The Sleuth Kit: nothing is mounted.

It is a library in C that was made for evidence. It runs in a process of its own. Where a file lies
in the volume as it is, its content is read there; what is compressed, or within the file system's
tables, is asked for.

Times of FAT are local times of nobody knows where: they are taken as UTC.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ReadError,
    UnsupportedFeatureError,
)
from imprint.core.runs import Runs
from imprint.filesystems.contents import OnDemand, Run, extents_of, held, mapped
from imprint.filesystems.isolated import Isolated, told_pairs
from imprint.filesystems.sleuthkit_worker import DELETED, IN_USE, LOST, PLAIN
from imprint.filesystems.table import allocator
from imprint.filesystems.tree import Entry, Notes, Times, Type, bytes_of, note_of, path_in, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

KINDS: Final = {
    "exfat": "TSK_FS_TYPE_EXFAT",
    "ext2": "TSK_FS_TYPE_EXT_DETECT",
    "ext3": "TSK_FS_TYPE_EXT_DETECT",
    "ext4": "TSK_FS_TYPE_EXT_DETECT",
    "hfsplus": "TSK_FS_TYPE_HFS_DETECT",
    "ntfs": "TSK_FS_TYPE_NTFS",
    "ufs": "TSK_FS_TYPE_FFS_DETECT",
    "vfat": "TSK_FS_TYPE_FAT_DETECT TSK_FS_TYPE_FAT32",
}
"""What the library calls them, by the kind that ``identify`` tells; it knows no others of ours.

Names are tried one after the other: it does not see that a small FAT32 is one.
"""

ORPHANS: Final = "$OrphanFiles"
"""The folder, made up by the library, of what was deleted and has no name any more."""

_SYSTEM_BELOW: Final = {"ntfs": 24, "hfsplus": 16}
"""First inode number that files of users have."""

_ROOT_TABLES: Final = frozenset(
    {"/$ALLOC_BITMAP", "/$UPCASE_TABLE", "/$VOLUME_GUID", "/$TEX_FAT", "/$ACT"}
)
"""What the library calls the entries of exFAT's root that are no files."""

_LABEL: Final = " (Volume Label Entry)"
"""Behind the name of the entry of FAT's and exFAT's root that is no file."""

_WITH_ZERO_TIMES: Final = frozenset({"ext2", "ext3", "ext4", "ufs"})
"""Where 1970 is a time like others, and does not stand for none."""

_META_TYPES: Final = {
    1: Type.FILE,
    2: Type.DIRECTORY,
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
_NS: Final = 1_000_000_000


class SleuthKit:
    """A file system; see :class:`~imprint.filesystems.tree.FileTree`.

    Attributes:
        notes: what could not be followed, one sentence each, without a full stop.
        process: the library.
    """

    def __init__(self, volume: Source, kind: str) -> None:
        """The file system that is all of ``volume``.

        Raises:
            UnsupportedFeatureError: if the library is missing, or does not know the kind.
            CorruptImageError: if it makes nothing of the volume.
        """
        if kind not in KINDS:
            raise UnsupportedFeatureError(f"files of {kind} cannot be listed", name=volume.name)
        self.notes: list[str] = Notes()
        self._kind = kind
        self._volume = volume
        self._used: Runs | None = None
        self.process = Isolated(volume, "sleuthkit_worker", KINDS[kind], library="pytsk3")
        self.close = self.process.close
        """Ends the process; it is called by itself when nobody needs this any more."""
        try:
            self._root = self._asked_root()
        except (CorruptImageError, ReadError) as failure:
            self.close()
            raise type(failure)(
                f"its files cannot be listed: {failure.args[0]}", name=volume.name
            ) from failure

    def root(self) -> Entry:
        """The folder that holds all others."""
        return self._root

    def _asked_root(self) -> Entry:
        row, notes = self.process.ask("root")
        self._take_notes("/", notes)
        return self._entry("/", row)._replace(type=Type.DIRECTORY, is_plain=False)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; see :class:`~imprint.filesystems.tree.FileTree`.

        With deleted names, the root has the folder :data:`ORPHANS`, for which all inodes are
        looked at.
        """
        path = folder.path
        told, is_all = 0, False
        while not is_all:
            try:
                answer = self.process.ask("folder", folder.inode, told, deleted)
            except (FormatError, ReadError) as failure:
                self._note(path, str(failure.args[0]))
                return
            rows, count, is_all, notes = answer
            told += count
            for row in rows:
                entry = self._entry(path_in(folder, row[0]), row)
                yield self._judged(entry) if entry.is_deleted else entry
            self._take_notes(path, notes)

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = entry.path if stream is None else f"{entry.path}:{stream}"
        name = f"{self._volume.name}: {shown(name)}"
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

    def _read(self, inode: int, kind: int, number: int, offset: int, length: int) -> bytes:
        """Bytes that only the library can make."""
        found: bytes = self.process.ask("read", inode, kind, number, offset, length)
        return found

    def _entry(self, path: str, row: Any) -> Entry:  # noqa: ANN401 - parsed JSON
        _, inode, code, size, *times, facts, flags, target, streams, places = row
        mode, owner, group, links = facts
        types = _NAME_TYPES if flags & LOST else _META_TYPES
        return Entry(
            path,
            inode,
            self._type(path, types.get(code, Type.OTHER), inode),
            size,
            self._times(times),
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
        )

    def _times(self, told: list[int]) -> Times:
        """Seconds and further ns of each, in the order of :class:`Times`."""
        modified, accessed = told[0] * _NS + told[1], told[2] * _NS + told[3]
        changed, created = told[4] * _NS + told[5], told[6] * _NS + told[7]
        if self._kind in _WITH_ZERO_TIMES:
            return Times(modified, accessed, changed, created or None)
        return Times(modified or None, accessed or None, changed or None, created or None)

    def _type(self, path: str, found: Type, inode: int) -> Type:
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
        if entry.is_allocated or not entry.extents:
            return entry
        if self._used is None:
            self._used = self._allocation()
        used = self._used
        is_taken = any(used.clip(start, start + length) for start, length in entry.extents)
        return entry._replace(is_allocated=is_taken)

    def _allocation(self) -> Runs:
        """What the file system uses, if that can be told."""
        system = allocator(self._kind)
        try:
            return Runs.of([]) if system is None else system.allocation(self._volume).used
        except (FormatError, ReadError) as failure:
            self._note("/", f"it is not known which blocks are in use again: {failure.args[0]}")
            return Runs.of([])

    def _take_notes(self, path: str, notes: list[Any]) -> None:
        prefix = path if path == "/" else f"{path}/"
        for name, why, is_unread in notes:
            failure = self.process.failure if is_unread else ""
            self._note(prefix + name if name else path, failure or why)

    def _note(self, path: str, why: str) -> None:
        self.notes.append(note_of(path, why))


def open_tree(volume: Source, kind: str) -> SleuthKit:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return SleuthKit(volume, kind)
