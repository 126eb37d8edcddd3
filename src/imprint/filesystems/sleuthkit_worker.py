"""The Sleuth Kit in a process of its own: whatever an image does to it ends there.

Asked by :mod:`imprint.filesystems.sleuthkit`, through :mod:`imprint.filesystems.isolated`.
"""

from __future__ import annotations

import contextlib
import importlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from imprint.core.errors import CorruptImageError
from imprint.filesystems.isolated_worker import Kept, Refusal
from imprint.filesystems.sleuthkit_attributes import (
    EXTENTS_MAX,
    Attributes,
    attribute_name,
    is_content,
    is_stored,
    whole,
)
from imprint.filesystems.sleuthkit_ext import folders_of
from imprint.filesystems.sleuthkit_image import Losses, image_of
from imprint.filesystems.sleuthkit_ntfs import check_here, name_times, records_of, special
from imprint.filesystems.tree import Type, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.filesystems.isolated_worker import Answers, Pipe

_P = ParamSpec("_P")
_T = TypeVar("_T")

PART_ENTRIES: Final = 2000
"""Of one answer: large enough that a question costs nothing, small enough to be held."""

_OPEN_MAX: Final = 2
"""Folders of which the rest is kept: the library holds all names of each."""

_NS: Final = 1_000_000_000
_LINK_BYTES_MAX: Final = 4096
_UNREAD: Final = "it cannot be read"
_NAME_GIVEN_UP: Final = 2
_NO_NAMES: Final = (None, b"", b".", b"..")
_META_IN_USE: Final = 1
_FOLDER: Final = 2
_LINK: Final = 6
_SPECIAL: Final = {
    Type.LINK: _LINK,
    Type.FIFO: 3,
    Type.CHARACTER: 4,
    Type.BLOCK: 5,
    Type.SOCKET: 8,
}
_ORPHANS: Final = 11
"""``TSK_FS_META_TYPE_VIRT_DIR``: a folder that the library makes up."""

DELETED: Final = 1
IN_USE: Final = 2
PLAIN: Final = 4
LOST: Final = 8
"""Of what is told of an entry: its name was given up, its inode is in use, its content lies in its
extents and nowhere else, nothing is known but its name."""


def opened(pipe: Pipe, size: int, kinds: str) -> Answers:
    """The questions that are answered of a file system, by name.

    Args:
        pipe: to the volume.
        size: of it, in bytes.
        kinds: what it may be to the library, one word each.
    """
    library = importlib.import_module("pytsk3")
    losses = Losses()
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
        "image": image.get_size,
    }


class _Folder:
    """What is left of a folder to be told."""

    def __init__(self, rows: Iterator[list[Any] | None]) -> None:
        self.rows = rows
        self.told = 0


class _Worker:
    """Answers questions of a file system."""

    def __init__(self, pipe: Pipe, system: Any, size: int, losses: Losses) -> None:  # noqa: ANN401
        self._pipe = pipe
        self._losses = losses
        self._system = system
        self._records = records_of(system)
        self._own = self._records or folders_of(system)
        self._attributes = Attributes(int(system.info.block_size), size, self._records)
        self._folders: dict[tuple[int, bool], _Folder] = {}
        self._file: tuple[int, Any] | None = None
        self._notes: list[list[object]] = []
        self._dates_names = False

    def date_names(self) -> None:
        """Tell times of names from now on, if the file system has any."""
        self._dates_names = self._records is not None

    def root(self) -> list[object]:
        """Tell of the root: its facts, and notes."""
        file = self._sure(self._system.open_meta, inode=self._system.info.root_inum)
        return [self._row("", file, 0), self._taken_notes()]

    def folder(self, inode: int, skip: int, deleted: bool) -> list[object]:  # noqa: FBT001 - JSON
        """Tell a part of what is in a folder: rows, how many names they took, whether it is all."""
        key = (inode, deleted)
        folder = self._folders.pop(key, None)
        if folder is None or folder.told != skip:
            folder = _Folder(self._rows(inode, deleted=deleted))
            folder.told = sum(1 for _ in islice(folder.rows, skip))
        rows: list[object] = []
        notes = self._notes
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
        return [rows, count, is_all, self._taken_notes()]

    def content(self, inode: int, stream: str | None) -> list[object]:
        """Where a content lies: its size, how many bytes were ever written, and its runs.

        In place of the runs, the type and number of the attribute to be read, where bytes are not
        in the volume as they are.
        """
        return self._sure(self._content, inode, stream)

    def _content(self, inode: int, stream: str | None) -> list[object]:
        file = self._opened(inode)
        meta = file.info.meta
        for attribute in file:
            if not is_content(attribute.info, stream):
                continue
            size = attribute.info.size if stream is not None else meta.size
            valid = self._attributes.valid(meta.addr, attribute.info)
            number = [attribute.info.type, attribute.info.id]
            if not is_stored(attribute.info) or (valid is None and size):
                return [size, size, None, number]
            runs = list(islice(self._attributes.runs(attribute, size), 3 * EXTENTS_MAX + 1))
            if size and not runs and self._records is not None and stream is None:
                check_here(file)
            return [size, size if valid is None else valid, runs, number]
        if stream is not None or meta.size:
            raise Refusal("corrupt", "expected a content, found none")
        return [0, 0, [], None]

    def read(self, inode: int, kind: int, number: int, offset: int, length: int) -> bytes:
        """Bytes of an attribute."""
        return self._sure(whole, self._opened(inode), offset, length, kind, number)

    def attributes(self, inode: int) -> list[list[object]]:
        """Extended attributes: for each its name, its length, and what reads it as a content."""
        return [
            [name, info.size, [info.type, info.id]]
            for info in (attribute.info for attribute in self._opened(inode))
            if (name := attribute_name(info)) is not None
        ]

    def _opened(self, inode: int) -> Any:  # noqa: ANN401 - without types
        if self._file is None or self._file[0] != inode:
            self._file = (inode, self._sure(self._system.open_meta, inode=inode))
        return self._file[1]

    def _sure(self, ask: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
        """What the library says, if it could read all that it wanted for that.

        Raises:
            OSError: if it could not.
        """
        self._losses.clear()
        found = ask(*args, **named)
        if self._losses:
            self._pipe.read_failed = True
            raise OSError(_UNREAD)
        return found

    def _in_folder(self, inode: int) -> Iterator[Any]:
        """All that the library finds in a folder, each read just now."""
        self._losses.clear()
        files = iter(self._system.open_dir(inode=inode))
        if self._losses:
            self._notes.append(["", f"a part of it: {_UNREAD}", True])
        self._losses.clear()
        for file in files:
            yield file
            self._losses.clear()

    def _rows(self, inode: int, *, deleted: bool) -> Iterator[list[Any] | None]:
        """All that is in a folder; ``None`` for what is not to be told.

        What the library cannot follow ends it, and is a note.
        """
        try:
            own = None if self._own is None else self._own.own_names(inode)
            if own is None:
                for file in self._in_folder(inode):
                    yield self._named(file, deleted=deleted)
                return
            names, is_large, problems = own
            for name, number in names:
                yield None if name == "." else self._numbered(name, number)
            self._notes += [["", problem, False] for problem in problems]
            if deleted and is_large:
                self._notes.append(["", "it is too large to look for deleted names in it", False])
            elif deleted:
                for file in self._in_folder(inode):
                    yield self._named(file, deleted=True, alive=False)
        except (OSError, RuntimeError, OverflowError) as failure:
            self._notes.append(["", *self._pipe.note(failure)])

    def _numbered(self, name: str, inode: int) -> list[Any] | None:
        """An entry of which only name and number are known."""
        try:
            return self._row(name, self._sure(self._system.open_meta, inode=inode), 0)
        except (OSError, RuntimeError) as failure:
            self._notes.append([name, *self._pipe.note(failure)])
            return None

    def _named(
        self,
        file: Any,  # noqa: ANN401
        *,
        deleted: bool,
        alive: bool = True,
    ) -> list[Any] | None:
        """An entry of a folder; ``None`` if it is not to be told: deleted, or alive."""
        info = file.info
        name = info.name
        if name is None:
            return None
        given_up = name.flags & _NAME_GIVEN_UP
        raw = name.name
        if (given_up and not deleted) or raw in _NO_NAMES:
            return None
        text = raw.decode("utf-8", "surrogateescape")
        meta = info.meta
        if not given_up and (meta is None or self._losses):
            if alive:
                why = _UNREAD if self._losses else f"expected its inode {name.meta_addr}"
                self._notes.append([text, why, bool(self._losses)])
            return None
        if meta is None or self._losses:
            nothing = [0] * 9  # its size, times, mode, owner, group, and links
            flags = DELETED | LOST
            return [text, name.meta_addr, name.type, *nothing, flags, None, None, None, []]
        if meta.type == _ORPHANS:
            if not deleted:
                return None
            given_up = True
        if not (given_up or alive):
            return None
        return self._row(text, file, DELETED if given_up else 0)

    def _row(self, text: str, file: Any, flags: int) -> list[Any]:  # noqa: ANN401
        meta = file.info.meta
        size, kind = meta.size, meta.type
        places: list[int] = []
        streams = None
        try:
            places, streams, is_plain = self._sure(self._attributes.told, file, size)
        except (OSError, RuntimeError) as failure:
            self._notes.append([text, *self._pipe.note(failure)])
        else:
            if is_plain:
                flags |= PLAIN
            if len(places) >= 2 * EXTENTS_MAX:
                what = "some of its places are left out: it has too many"
                self._notes.append([text, what, False])
        if meta.flags & _META_IN_USE:
            flags |= IN_USE
        target = self._target(file, meta, size) if kind == _LINK else None
        if self._records is not None and (found := self._special(text, file, size)) is not None:
            kind, target = found
            flags &= ~PLAIN
            size = 0 if target is None else len(bytes_of(target))
        return [
            text,
            meta.addr,
            kind,
            size,
            meta.mtime * _NS + meta.mtime_nano,
            meta.atime * _NS + meta.atime_nano,
            meta.ctime * _NS + meta.ctime_nano,
            meta.crtime * _NS + meta.crtime_nano,
            meta.mode,
            meta.uid,
            meta.gid,
            meta.nlink,
            flags,
            target,
            streams,
            name_times(file, text) if self._dates_names else None,
            places,
        ]

    def _special(self, text: str, file: Any, size: int) -> tuple[int, str | None] | None:  # noqa: ANN401
        """Of NTFS: the type of what is no plain file or folder, and where it leads.

        What holds something that would not be seen any more stays what it is besides.
        """
        try:
            found = special(file, size)
            if found is None:
                return None
            meta = file.info.meta
            is_folder = meta.type == _FOLDER
            if self._has_names(meta.addr) if is_folder else size and not found.has_content:
                where = "" if found.target is None else f" to {found.target}"
                what = f"it is a {found.type.value}{where} as well, and told by what it holds"
                self._notes.append([text, what, False])
                return None
        except CorruptImageError as failure:
            self._notes.append([text, str(failure.args[0]), False])
            return None
        except (OSError, RuntimeError) as failure:
            self._notes.append([text, *self._pipe.note(failure)])
            return None
        return _SPECIAL[found.type], found.target

    def _has_names(self, inode: int) -> bool:
        """Whether anything is in a folder."""
        if self._own is not None and self._own.own_names(inode) is not None:
            return True
        return any(
            name is not None and not name.flags & _NAME_GIVEN_UP and name.name not in _NO_NAMES
            for name in (file.info.name for file in self._system.open_dir(inode=inode))
        )

    def _target(self, file: Any, meta: Any, size: int) -> str | None:  # noqa: ANN401
        """Of a symbolic link."""
        target: bytes | None = meta.link
        if target is None and 0 < size <= _LINK_BYTES_MAX:
            try:
                target = self._sure(whole, file, 0, size)
            except (OSError, RuntimeError):
                return None
        return None if target is None else target.decode("utf-8", "surrogateescape")

    def _taken_notes(self) -> list[list[object]]:
        notes, self._notes = self._notes, []
        return notes
