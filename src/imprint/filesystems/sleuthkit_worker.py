"""The Sleuth Kit in a process of its own: whatever an image does to it ends there.

Asked by :mod:`imprint.filesystems.sleuthkit`, through :mod:`imprint.filesystems.isolated`.
"""

from __future__ import annotations

import contextlib
import importlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from imprint.filesystems.isolated_worker import Kept, Refusal
from imprint.filesystems.sleuthkit_attributes import (
    EXTENTS_MAX,
    PROPER,
    attribute_name,
    content_name,
    is_stored,
    whole,
)
from imprint.filesystems.sleuthkit_image import UNREAD, Losses, image_of
from imprint.filesystems.sleuthkit_ntfs import check_here
from imprint.filesystems.sleuthkit_rows import (
    DELETED,
    META_IN_USE,
    NAME_GIVEN_UP,
    NO_NAMES,
    Row,
    Rows,
    lost_row,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.isolated_worker import Answers, Pipe

PART_ENTRIES: Final = 2000
"""Of one answer: large enough that a question costs nothing, small enough to be held."""

_OPEN_MAX: Final = 2
"""Folders of which the rest is kept: the library holds all names of each."""

_ORPHANS: Final = 11
"""``TSK_FS_META_TYPE_VIRT_DIR``: a folder that the library makes up."""


def opened(pipe: Pipe, size: int, kinds: str) -> Answers:
    """The questions that are answered of a file system, by name.

    Args:
        pipe: to the volume.
        size: of it, in bytes.
        kinds: what it may be to the library, one word each.
    """
    library = importlib.import_module("pytsk3")
    losses = Losses(pipe)
    image = image_of(library, Kept(pipe, size), losses, size)
    *others, last = (int(getattr(library, kind)) for kind in kinds.split())
    system = None
    for kind in others:
        with contextlib.suppress(OSError, RuntimeError):
            system = library.FS_Info(image, offset=0, type=kind)
            break
    if system is None:
        system = library.FS_Info(image, offset=0, type=last)
    worker = _Worker(pipe, system, size, losses)
    return {
        "root": worker.root,
        "folder": worker.folder,
        "content": worker.content,
        "read": worker.read,
        "attributes": worker.attributes,
        "date_names": worker.date_names,
        "hold_contents": worker.hold_contents,
        "image": image.get_size,
    }


class _Folder:
    """What is left of a folder to be told."""

    def __init__(self, rows: Iterator[Row | None]) -> None:
        self.rows = rows
        self.told = 0


class _Worker:
    """Answers questions of a file system."""

    def __init__(self, pipe: Pipe, system: Any, size: int, losses: Losses) -> None:  # noqa: ANN401
        self._pipe = pipe
        self._losses = losses
        self._system = system
        self._rows = Rows(pipe, system, size, losses)
        self._folders: dict[tuple[int, bool], _Folder] = {}
        self._file: tuple[int, Any] | None = None

    def date_names(self) -> None:
        """Tell times of names from now on, if the file system has any."""
        self._rows.dates_names = True

    def hold_contents(self) -> None:
        """Tell small contents that are not in blocks of their own from now on."""
        self._rows.holds_contents = True

    def root(self) -> list[object]:
        """Tell of the root: its facts, and notes."""
        file = self._losses.sure(self._system.open_meta, inode=self._system.info.root_inum)
        return [self._rows.row("", file, 0), self._rows.taken_notes()]

    def folder(self, inode: int, skip: int, deleted: bool) -> list[object]:  # noqa: FBT001 - JSON
        """Tell a part of what is in a folder: rows, how many names they took, whether it is all."""
        key = (inode, deleted)
        folder = self._folders.pop(key, None)
        if folder is None or folder.told != skip:
            folder = _Folder(self._entries(inode, deleted=deleted))
            folder.told = sum(1 for _ in islice(folder.rows, skip))
        rows: list[object] = []
        notes = self._rows.notes
        count = places = 0
        is_all = True
        for row in folder.rows:
            count += 1
            if row is not None:
                rows.append(row)
                places += len(row[-1])
            if len(rows) >= PART_ENTRIES or places > EXTENTS_MAX or len(notes) >= PART_ENTRIES:
                is_all = False
                break
        folder.told += count
        if not is_all:
            self._folders[key] = folder
            if len(self._folders) > _OPEN_MAX:
                del self._folders[next(iter(self._folders))]
        return [rows, count, is_all, self._rows.taken_notes()]

    def content(self, inode: int, stream: str | None) -> list[object]:
        """Where a content lies: its size, how many bytes were ever written, and its runs.

        In place of the runs, the type and number of the attribute to be read, where bytes are not
        in the volume as they are.
        """
        return self._losses.sure(self._content, inode, stream)

    def _content(self, inode: int, stream: str | None) -> list[object]:
        file = self._opened(inode)
        meta = file.info.meta
        for attribute in file:
            if content_name(attribute.info) != (stream or PROPER):
                continue
            size = attribute.info.size if stream is not None else meta.size
            valid = self._rows.attributes.valid(meta.addr, attribute.info)
            number = [attribute.info.type, attribute.info.id]
            if not is_stored(attribute.info) or (valid is None and size):
                return [size, size, None, number]
            runs = list(islice(self._rows.attributes.runs(attribute, size), 3 * EXTENTS_MAX + 1))
            if size and not runs and self._rows.records is not None and stream is None:
                check_here(file)
            return [size, size if valid is None else valid, runs, number]
        if stream is not None or meta.size:
            raise Refusal("corrupt", "expected a content, found none")
        return [0, 0, [], None]

    def read(self, inode: int, kind: int, number: int, offset: int, length: int) -> bytes:
        """Bytes of an attribute."""
        return self._losses.sure(whole, self._opened(inode), offset, length, kind, number)

    def attributes(self, inode: int) -> list[list[object]]:
        """Extended attributes: for each its name, its length, and what reads it as a content."""
        return [
            [name, info.size, [info.type, info.id]]
            for info in (attribute.info for attribute in self._opened(inode))
            if (name := attribute_name(info)) is not None
        ]

    def _opened(self, inode: int) -> Any:  # noqa: ANN401 - without types
        if self._file is None or self._file[0] != inode:
            self._file = (inode, self._losses.sure(self._system.open_meta, inode=inode))
        return self._file[1]

    def _in_folder(self, inode: int) -> Iterator[Any]:
        """All that the library finds in a folder, each read just now."""
        self._losses.clear()
        files = iter(self._system.open_dir(inode=inode))
        if self._losses:
            self._rows.notes.append(["", f"a part of it: {UNREAD}", True])
        self._losses.clear()
        for file in files:
            yield file
            self._losses.clear()

    def _entries(self, inode: int, *, deleted: bool) -> Iterator[Row | None]:
        """All that is in a folder; ``None`` for what is not to be told.

        What the library cannot follow ends it, and is a note.
        """
        try:
            own = None if self._rows.own is None else self._rows.own.own_names(inode)
            if own is None:
                for file in self._in_folder(inode):
                    yield self._named(file, deleted=deleted)
                return
            names, is_large, problems = own
            for name, number in names:
                yield None if name == "." else self._numbered(name, number)
            self._rows.notes += [["", problem, False] for problem in problems]
            if deleted and is_large:
                self._rows.notes.append(
                    ["", "it is too large to look for deleted names in it", False]
                )
            elif deleted:
                for file in self._in_folder(inode):
                    yield self._named(file, deleted=True, alive=False)
        except (OSError, RuntimeError, OverflowError) as failure:
            self._rows.notes.append(["", *self._pipe.note(failure)])

    def _numbered(self, name: str, inode: int) -> Row | None:
        """An entry of which only name and number are known."""
        try:
            return self._rows.row(name, self._losses.sure(self._system.open_meta, inode=inode), 0)
        except (OSError, RuntimeError) as failure:
            self._rows.notes.append([name, *self._pipe.note(failure)])
            return None

    def _left_of(self, name: Any) -> Any:  # noqa: ANN401
        """The inode of a deleted name, if it is free, and was nobody else's since; else ``None``.

        The library takes it for another's where it was used once more, and deleting counts in
        NTFS; and those of names that it has made up itself.
        """
        try:
            file = self._losses.sure(self._system.open_meta, inode=name.meta_addr)
        except (OSError, RuntimeError, OverflowError):
            return None
        meta = file.info.meta
        if meta.flags & META_IN_USE:
            return None
        if self._rows.records is not None and not 0 <= meta.seq - name.meta_seq <= 1:
            return None
        return file

    def _named(
        self,
        file: Any,  # noqa: ANN401
        *,
        deleted: bool,
        alive: bool = True,
    ) -> Row | None:
        """An entry of a folder; ``None`` if it is not to be told: deleted, or alive."""
        info = file.info
        name = info.name
        if name is None:
            return None
        given_up = name.flags & NAME_GIVEN_UP
        raw = name.name
        if (given_up and not deleted) or raw in NO_NAMES:
            return None
        text = raw.decode("utf-8", "surrogateescape")
        meta = info.meta
        if not given_up and (meta is None or self._losses):
            if alive:
                why = UNREAD if self._losses else f"expected its inode {name.meta_addr}"
                self._rows.notes.append([text, why, bool(self._losses)])
            return None
        if meta is None and not self._losses and (left := self._left_of(name)) is not None:
            file, meta = left, left.info.meta
        if meta is None or self._losses:
            return lost_row(text, name.meta_addr, name.type)
        if meta.type == _ORPHANS:
            if not deleted:
                return None
            given_up = True
        if not (given_up or alive):
            return None
        return self._rows.row(text, file, DELETED if given_up else 0)
