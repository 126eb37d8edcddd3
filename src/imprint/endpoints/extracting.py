"""Files of an image written into a folder, whatever the image says of their names and places.

Every name is made safe, every folder is opened by its descriptor without following links, and a
file shows under its name when it is whole. So nothing is ever written outside of the folder, and
what is in it was either there before, or is a whole file of the image.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, RefusedError, TargetError, UsageError
from imprint.core.system import reason_of
from imprint.endpoints import extracted_names as names
from imprint.endpoints.browsing import look_up
from imprint.endpoints.extracted_files import Folder, Maker, Way
from imprint.endpoints.open import files_of
from imprint.filesystems.tree import Type, shown
from imprint.filesystems.walking import walk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import BrowsedVolume, Browser
    from imprint.endpoints.extracted_content import Watcher
    from imprint.endpoints.extracted_folders import TargetFolders
    from imprint.endpoints.extraction import Extraction, Wishes
    from imprint.filesystems.tree import Entry, FileTree

_FATAL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE})
_NEVER_MADE: Final = {
    Type.CHARACTER: "is a character device, and these are never made",
    Type.BLOCK: "is a block device, and these are never made",
    Type.FIFO: "is a pipe, and these are never made",
    Type.SOCKET: "is a socket, and these are never made",
    Type.OTHER: "nothing is known of what it was",
}
_CONTENT: Final = frozenset({Type.FILE, Type.SYSTEM})


class Extractor:
    """Writes files of images below one folder."""

    def __init__(
        self,
        folders: TargetFolders,
        wishes: Wishes,
        report: Extraction,
        watch: Watcher,
        disks: Iterable[Source] = (),
    ) -> None:
        """Nothing is written yet.

        Args:
            folders: where to; the caller closes it.
            wishes: what is wanted.
            report: gets what came of it.
            watch: told of bytes that are done; it may stop everything.
            disks: that are read; none of their files is ever replaced.
        """
        self._maker = Maker(folders, wishes, report, watch)
        self._maker.spare(name for disk in disks for name in files_of(disk))
        self._folders = folders
        self._wishes = wishes
        self.report = report
        self._watch = watch
        self._top = Folder((), "", None, is_new=False)
        self._deleted: dict[Way, Folder] = {}

    def add(self, browser: Browser, volume: BrowsedVolume, path: str) -> None:
        """Extract what is at a path of a volume: a file, or a folder with all that is in it.

        Raises:
            UsageError: if it is a folder, and these are not wanted.
            RefusedError: if something is in the way.
            TargetError: if the folder cannot be written.
            ImagingError: of the kind that says what is wrong with the image.
        """
        wishes = self._wishes
        with browser.lock(volume):
            tree = browser.tree(volume)
            told = len(tree.notes) if tree is self._maker.tree else 0  # those of its opening, too
            self._maker.begin(browser.told(volume), tree)
            top = look_up(tree, path, follow=not wishes.recursive, deleted=wishes.deleted)
            if top.type is not Type.DIRECTORY:
                self._add(tree, self._top, top)
            elif not wishes.recursive:
                raise UsageError("is a folder", name=shown(top.path), advice="-r extracts folders")
            else:
                self._fill(tree, top)
                if wishes.deleted:
                    self._recover(tree, top)
            self.report.notes += dict.fromkeys(tree.notes[told:])

    def _fill(self, tree: FileTree, top: Entry) -> None:
        """A folder, and all below it."""
        self._add(tree, self._top, top)
        if top.name:
            first = self._top.waiting.pop(top.path, None)
            if first is None:
                return
        else:
            first = Folder((), top.path, None, is_new=False)
        open_folders = [first]
        found = walk(tree, top)
        next(found)
        for entry in found:
            self._watch(0)
            if entry.type is Type.SYSTEM and not self._wishes.system:
                continue
            above = entry.path.rpartition("/")[0] or "/"
            folder = self._enter(open_folders, above)
            if folder is None:
                self._fail(entry, "there is no folder for it")
            else:
                self._add(tree, folder, entry)
        while open_folders:
            self._leave(open_folders.pop())

    def _enter(self, open_folders: list[Folder], path: str) -> Folder | None:
        """The folder of that path, after those that are done have been left."""
        for depth in range(len(open_folders) - 1, -1, -1):
            folder = open_folders[depth]
            if folder.path == path or path in folder.waiting:
                while len(open_folders) > depth + 1:
                    self._leave(open_folders.pop())
                if folder.path == path:
                    return folder
                open_folders.append(folder.waiting.pop(path))
                return open_folders[-1]
            if path.startswith(f"{folder.path.rstrip('/')}/"):
                return None  # below one that could not be made
        return None

    def _leave(self, folder: Folder) -> None:
        """Nothing more comes into a folder: it gets its times."""
        for other in folder.waiting.values():
            self._leave(other)
        entry = folder.entry
        if entry is not None and (folder.is_new or self._wishes.force or self._wishes.resume):
            with contextlib.suppress(OSError, RefusedError):
                maker = self._maker
                maker.dress(self._folders.descriptor(folder.way), entry, maker.tree)

    def _add(self, tree: FileTree, folder: Folder, entry: Entry) -> None:
        """Whatever it is; what goes wrong with this one alone is told, and the rest goes on."""
        try:
            if entry.type is Type.DIRECTORY:
                self._maker.make_folder(tree, folder, entry)
            elif entry.type is Type.LINK:
                self._maker.make_link(folder, entry)
            elif entry.type in _CONTENT:
                self._maker.make_file(tree, folder, entry)
            else:
                self.report.skipped.add(path=entry.path, why=_NEVER_MADE[entry.type])
        except OSError as failure:
            if failure.errno in _FATAL:
                raise TargetError(
                    reason_of(failure), name=self._folders.shown(folder.way)
                ) from failure
            self._fail(entry, reason_of(failure))
        except (ValueError, OverflowError) as failure:  # what no system takes: 2**63, a zero byte
            self._fail(entry, str(failure))
        except (FormatError, ReadError) as failure:
            self._fail(entry, str(failure.args[0]))

    def _recover(self, tree: FileTree, top: Entry) -> None:
        """Deleted files below a folder, where their content still lies."""
        for entry in walk(tree, top, deleted=True):
            self._watch(0)
            if not entry.is_deleted or entry.type is Type.DIRECTORY:
                continue
            if entry.type is not Type.FILE or not entry.size:
                self.report.skipped.add(path=entry.path, why="nothing is left of its content")
            elif entry.is_allocated:
                why = "deleted, and its place is in use again"
                self.report.skipped.add(path=entry.path, why=why)
            else:
                folder = self._folder_of_deleted(entry)
                if folder is None:
                    self._fail(entry, "there is no folder for it")
                    continue
                done = self.report.files
                self._add(tree, folder, entry)
                if self.report.files > done:
                    where = self._folders.shown(folder.way)
                    self.report.recovered.add(path=entry.path, folder=where)

    def _folder_of_deleted(self, entry: Entry) -> Folder | None:
        """Where a deleted file goes: into folders of the names that its path has."""
        parts = entry.path.rpartition("/")[0].split("/")
        way = (names.DELETED, *(names.safe(part) for part in parts if part))
        found = self._deleted.get(way)
        if found is None:
            is_new = False
            try:
                for depth in range(len(way)):
                    is_new = self._folders.make(way[:depth], way[depth])
            except (OSError, RefusedError):
                return None
            found = self._deleted[way] = Folder(way, entry.path, None, is_new)
        return found

    def _fail(self, entry: Entry, why: str) -> None:
        self.report.failed.add(path=entry.path, why=why)
