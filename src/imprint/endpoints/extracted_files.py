"""One file, link or folder of an image, made below a folder: its name, content and facts."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, RefusedError, TargetError
from imprint.core.system import reason_of
from imprint.endpoints import extracted_names as names
from imprint.endpoints.browsing import file_content
from imprint.endpoints.extracted_attributes import plain_mode, restore
from imprint.endpoints.extracted_content import lacking, same, store
from imprint.endpoints.leftovers import slack
from imprint.filesystems.trees import WITH_MODES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.endpoints.extracted_content import Watcher
    from imprint.endpoints.extracted_folders import TargetFolders
    from imprint.endpoints.extraction import Extraction, Wishes
    from imprint.filesystems.tree import Entry, FileTree

_FIRST_NAMES_MAX: Final = 1 << 20
_SECOND_NS: Final = 1_000_000_000
_SPECIAL_BITS: Final = 0o7000

Way = tuple[str, ...]
"""Names of folders below the target."""


@dataclass
class Folder:
    """A folder that is being filled.

    Attributes:
        way: where it is.
        path: in the image.
        entry: with its times; ``None``: it has none.
        is_new: it was made for this.
        taken: what tells names in it apart.
        again: how often a name was wanted that was taken.
        waiting: folders in it that were made, by their paths in the image, and not filled yet.
    """

    way: Way
    path: str
    entry: Entry | None
    is_new: bool
    taken: set[int] = field(default_factory=set)
    again: dict[int, int] = field(default_factory=dict)
    waiting: dict[str, Folder] = field(default_factory=dict)


class Maker:
    """Makes what folders hold.

    Attributes:
        folders: what it writes below.
        wishes: what is wanted.
        report: gets what came of it.
        volume: whose files are made; ``None``: that does not matter.
        tree: of it.
    """

    def __init__(
        self, folders: TargetFolders, wishes: Wishes, report: Extraction, watch: Watcher
    ) -> None:
        """``watch`` is told of bytes that are done, and may stop everything."""
        self.folders = folders
        self.wishes = wishes
        self.report = report
        self.volume: BrowsedVolume | None = None
        self.tree: FileTree | None = None
        self._watch = watch
        self._first: dict[tuple[int, int], tuple[Way, str]] = {}
        self._spared: set[tuple[int, int]] = set()
        self._is_folding = self._find_folding()

    def spare(self, files: Iterable[str]) -> None:
        """Never replace these: they are being read."""
        for name in files:
            with contextlib.suppress(OSError, ValueError):
                facts = Path(name).stat()
                self._spared.add((facts.st_dev, facts.st_ino))

    def begin(self, volume: BrowsedVolume, tree: FileTree) -> None:
        """Files of another volume follow: their numbers are others."""
        self.volume = volume
        self.tree = tree
        self._first.clear()

    def make_folder(self, tree: FileTree, folder: Folder, entry: Entry) -> None:
        """A folder, which waits to be filled, and its streams. The root is there already."""
        if entry.path in folder.waiting:
            return  # two folders of one name become one
        if not entry.name:
            self.make_streams(tree, folder, entry)
            return
        name = self._name(folder, entry)
        way = (*folder.way, name)
        is_new = self.folders.make(folder.way, name, is_private=self._has_mode(entry))
        self.report.folders += is_new
        folder.waiting[entry.path] = Folder(way, entry.path, entry, is_new)
        if self.wishes.streams == "xattrs" and (is_new or self.wishes.force or self.wishes.resume):
            self._attributes(tree, entry, self.folders.descriptor(way))
        self.make_streams(tree, folder, entry)

    def make_streams(self, tree: FileTree, folder: Folder, entry: Entry) -> None:
        """Files beside what it is, if these are wanted; else they are counted."""
        if self.wishes.streams is None:
            self.report.streams_left += len(entry.streams)
        if self.wishes.streams != "files":
            return
        for stream in entry.streams:
            further = entry._replace(path=f"{entry.path}:{stream}", mode=plain_mode(tree, entry))
            with contextlib.closing(tree.content(entry, stream)) as source:
                self._write(folder, self._name(folder, further), further, source)

    def make_link(self, folder: Folder, entry: Entry) -> None:
        """A symbolic link, as it stands; nothing is ever written through it."""
        target, name = entry.target or "", self._name(folder, entry)
        there = None if folder.is_new else self.folders.facts(folder.way, name)
        if there is not None:
            where = self.folders.descriptor(folder.way)
            with contextlib.suppress(OSError):
                if self.wishes.resume and os.readlink(name, dir_fd=where) == target:
                    self.report.kept += 1
                    return
            self._check_replaceable(folder, name, there)
        try:
            self.folders.begin_link(folder.way, target)
            self._dress_link(folder, entry)
            self.folders.publish(folder.way, name, may_replace=there is not None)
        finally:
            self.folders.drop(folder.way)
        self.report.links += 1

    def make_file(self, tree: FileTree, folder: Folder, entry: Entry) -> None:
        """A file, its streams and its slack."""
        name = self._name(folder, entry)
        key = (entry.subvolume, entry.inode)
        if entry.links > 1 and key in self._first and self._join(folder, name, entry, key):
            return
        with contextlib.closing(file_content(tree, entry)) as content:
            self._write(folder, name, entry, content, tree)
        if entry.links > 1 and not entry.is_deleted and len(self._first) < _FIRST_NAMES_MAX:
            self._first.setdefault(key, (folder.way, name))
        self.make_streams(tree, folder, entry)
        if self.wishes.slack and self.volume is not None:
            left = slack(self.volume, entry)
            if left.size:
                behind = entry._replace(path=f"{entry.path} (slack)", mode=plain_mode(tree, entry))
                self._write(folder, names.marked(name, "slack"), behind, left)

    def _join(self, folder: Folder, name: str, entry: Entry, key: tuple[int, int]) -> bool:
        """Give a file that was written a further name; ``False``: it has to be written again."""
        there = None if folder.is_new else self.folders.facts(folder.way, name)
        way, first = self._first[key]
        if there is not None:
            other = self.folders.facts(way, first)
            if self.wishes.resume and other is not None and os.path.samestat(there, other):
                self.report.kept += 1
                return True
            self._check_replaceable(folder, name, there)
        try:
            self.folders.begin_name(folder.way, way, first)
            self.folders.publish(folder.way, name, may_replace=there is not None)
        except (OSError, RefusedError):
            return False
        finally:
            self.folders.drop(folder.way)
        self.report.files += 1
        self._watch(entry.size)
        return True

    def _write(
        self,
        folder: Folder,
        name: str,
        entry: Entry,
        source: Source,
        tree: FileTree | None = None,
    ) -> None:
        """A file of that name; with ``tree``, also what it has as extended attributes."""
        there = None if folder.is_new else self.folders.facts(folder.way, name)
        if there is not None:
            if self.wishes.resume and self._is_whole(folder, name, there, entry, source):
                self.report.kept += 1
                for offset, length in lacking(source):  # it is no more whole than it was
                    self.report.bad.add(path=entry.path, offset=offset, length=length)
                self._watch(source.size)
                return
            self._check_replaceable(folder, name, there)
        try:
            descriptor = self.folders.begin(folder.way, is_private=self._has_mode(entry))
            try:
                for offset, length in store(source, descriptor, self._watch):
                    self.report.bad.add(path=entry.path, offset=offset, length=length)
                if tree is not None and self.wishes.streams == "xattrs":
                    self._attributes(tree, entry, descriptor)
                self.dress(descriptor, entry, tree)
            finally:
                os.close(descriptor)
            self.folders.publish(folder.way, name, may_replace=there is not None)
        finally:
            self.folders.drop(folder.way)
        self.report.files += 1
        self.report.size += source.size

    def _is_whole(
        self, folder: Folder, name: str, there: os.stat_result, entry: Entry, source: Source
    ) -> bool:
        """Whether a file that is there was made of this one, by an earlier extraction."""
        if not stat.S_ISREG(there.st_mode) or there.st_size != source.size:
            return False
        modified = entry.times.modified
        if modified is not None and there.st_mtime_ns in (
            modified,
            modified // _SECOND_NS * _SECOND_NS,
        ):
            return True
        where = self.folders.descriptor(folder.way)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
        try:
            return same(source, descriptor)
        finally:
            os.close(descriptor)

    def _attributes(self, tree: FileTree, entry: Entry, descriptor: int) -> None:
        for stream in entry.streams:
            try:
                with contextlib.closing(tree.content(entry, stream)) as source:
                    if source.size > os.XATTR_SIZE_MAX:
                        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
                    value = bytearray(source.size)
                    source.readinto(memoryview(value), 0)
                os.setxattr(descriptor, f"user.{stream}", value)
            except (OSError, ValueError, FormatError, ReadError) as failure:
                why = reason_of(failure) if isinstance(failure, OSError) else str(failure.args[0])
                self.report.failed.add(path=f"{entry.path}:{stream}", why=why)

    def dress(self, descriptor: int, entry: Entry, tree: FileTree | None) -> None:
        """Owner, attributes, mode and times, in the order in which they do not undo each other.

        With ``tree``, also what it has as extended attributes.
        """
        if self.wishes.owner:
            os.fchown(descriptor, entry.owner, entry.group)
        mode = entry.mode
        if tree is not None:
            mode = restore(tree, entry, descriptor, self.wishes, self.report)
        if self._has_mode(entry):
            kept = mode & 0o7777 if self.wishes.owner else mode & ~_SPECIAL_BITS
            os.fchmod(descriptor, kept & 0o7777)
        times = _times(entry)
        if times is not None:
            with contextlib.suppress(OverflowError, OSError):  # a time that no system has
                os.utime(descriptor, ns=times)

    def _has_mode(self, entry: Entry) -> bool:
        """Whether it has permissions. Of FAT there are none; no permissions are some elsewhere."""
        volume = self.volume
        return entry.mode != 0 or (
            volume is not None and volume.kind in WITH_MODES and not entry.is_deleted
        )

    def _dress_link(self, folder: Folder, entry: Entry) -> None:
        where = self.folders.descriptor(folder.way)
        if self.wishes.owner:
            os.chown(names.TEMPORARY, entry.owner, entry.group, dir_fd=where, follow_symlinks=False)
        if self.tree is not None:
            # No call sets them on a link in a folder that is open, but this leads into it.
            link = f"/proc/self/fd/{where}/{names.TEMPORARY}"
            restore(self.tree, entry, link, self.wishes, self.report)
        times = _times(entry)
        if times is not None:
            with contextlib.suppress(OverflowError, OSError):
                os.utime(names.TEMPORARY, ns=times, dir_fd=where, follow_symlinks=False)

    def _name(self, folder: Folder, entry: Entry) -> str:
        """What a file is called: as in the image, if that can be."""
        name = names.safe(entry.name)
        key = self._key(name)
        if key in folder.taken:
            count = folder.again[key] = folder.again.get(key, 1) + 1
            name = names.marked(name, str(count))
        folder.taken.add(key)
        if name != entry.name:
            self.report.renamed.add(path=entry.path, name=name)
        return name

    def _key(self, name: str) -> int:
        if self._is_folding:
            name = unicodedata.normalize("NFC", name).casefold()
        return hash(name)

    def _find_folding(self) -> bool:
        """Whether the folder takes names that differ in case only for the same."""
        try:
            os.close(self.folders.begin(()))
            return self.folders.facts((), names.TEMPORARY.upper()) is not None
        except OSError as failure:
            raise TargetError(reason_of(failure), name=self.folders.shown(())) from failure
        finally:
            self.folders.drop(())

    def _check_replaceable(self, folder: Folder, name: str, there: os.stat_result) -> None:
        path = self.folders.shown((*folder.way, name))
        if stat.S_ISDIR(there.st_mode):
            raise RefusedError("expected a file to replace, found a folder", name=path)
        if (there.st_dev, there.st_ino) in self._spared:
            raise RefusedError("is the source as well", name=path)
        if not self.wishes.force:
            raise RefusedError(
                "exists already",
                name=path,
                advice="--force replaces it; --resume keeps what an earlier extraction has made",
            )


def _times(entry: Entry) -> tuple[int, int] | None:
    modified = entry.times.modified
    if modified is None:
        return None
    accessed = entry.times.accessed
    return (modified if accessed is None else accessed, modified)
