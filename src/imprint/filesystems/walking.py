"""Ways through the files of a volume, of whatever kind its file system is.

Folders of a damaged or hostile file system may hold themselves, and go on for ever. So each is
entered once, and what is kept of those that wait is bounded.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from imprint.core.errors import NotFoundError, ReadError
from imprint.filesystems.tree import Entry, Expecting, Folding, Type, note_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from imprint.filesystems.tree import FileTree

PATH_CHARS_MAX: Final = 4096
"""Of a path: Linux's own limit."""

PENDING_CHARS_MAX: Final = 64 << 20
"""Of all paths of folders that are still to be looked into: some million."""

ENTRIES_MAX: Final = 1 << 24
"""Names of one walk; file systems with more have to be damaged to be walked in a minute."""

FOLLOWED_MAX: Final = 40
"""Symbolic links on the way to a file: Linux's own limit."""

_EXPECTED: Final = 4
_TURN: Final = 1000

_T = TypeVar("_T")
_Pair = tuple[Entry | None, Entry | None]


class _Entered:
    """Which folders of a tree may be entered."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._seen: set[tuple[int, int]] = set()
        self._left = ENTRIES_MAX

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder, if it may be entered, and was not seen too much."""
        if self._left < 0 or not self.enter(folder):
            return
        for entry in self._tree.children(folder, deleted=deleted):
            self._left -= 1
            if self._left < 0:
                self.note(folder, "expected an end, found too many files")
                return
            yield entry

    def enter(self, folder: Entry) -> bool:
        """Whether it is one that was not entered before; notes why not."""
        if folder.is_deleted and folder.is_allocated:
            return False  # its inode is another one's, who is told under its own name
        key = (folder.subvolume, folder.inode)
        if key in self._seen or len(folder.path) > PATH_CHARS_MAX:
            if not folder.is_deleted:
                self.note(folder, "a folder in itself, or too deep")
            return False
        self._seen.add(key)
        return True

    def note(self, folder: Entry, why: str) -> None:
        self._tree.notes.append(note_of(folder.path, why))


class _Waiting:
    """Folders that are still to be looked into, the next one last."""

    def __init__(self) -> None:
        self._pairs: list[_Pair] = []
        self._chars = 0

    def add(self, below: list[_Pair]) -> bool:
        """Put some before the others; whether there was room for all."""
        for pair in reversed(below):
            self._chars += _chars(pair)
            if self._chars > PENDING_CHARS_MAX:
                return False
            self._pairs.append(pair)
        return True

    def following(self) -> list[Entry]:
        """Some of the first tree, the next one first."""
        return [pair[0] for pair in self._pairs[: -_EXPECTED - 1 : -1] if pair[0] is not None]

    def next(self) -> _Pair | None:
        if not self._pairs:
            return None
        pair = self._pairs.pop()
        self._chars -= _chars(pair)
        return pair


def _chars(pair: _Pair) -> int:
    return sum(len(item.path) for item in pair if item is not None)


def walk(tree: FileTree, start: Entry | None = None, *, deleted: bool = False) -> Iterator[Entry]:
    """A folder, or the root, then all that is below it: what is in a folder after the folder.

    No folder is entered twice, so that it ends, whatever the file system says. Nothing is sorted
    but the folders of a folder. Where more folders wait than memory is given to, a note says so.

    Args:
        tree: of the volume.
        start: an entry of it, of any type; ``None``: the root.
        deleted: tell deleted names as well, and what was in deleted folders, as far as these
            are nobody else's now.
    """
    top = tree.root() if start is None else start
    yield top
    expecting = tree if isinstance(tree, Expecting) else None
    entered = _Entered(tree)
    waiting = _Waiting()
    waiting.add([(top, None)])
    while (pair := waiting.next()) is not None:
        folder = pair[0]
        assert folder is not None
        if folder.type is not Type.DIRECTORY:
            continue
        if expecting is not None:
            expecting.expect(waiting.following())
        below: list[_Pair] = []
        for entry in entered.children(folder, deleted=deleted):
            yield entry
            if entry.type is Type.DIRECTORY:
                below.append((entry, None))
        below.sort(key=_path)
        if not waiting.add(below):
            entered.note(folder, "too many folders")
            return


def in_turns(found: Iterator[_T], lock: AbstractContextManager[object]) -> Iterator[_T]:
    """What a tree tells, asked for under its lock, which is free whenever somebody has the result.

    A lock that were held by a generator would be so for as long as nobody goes on, and would be
    given back by another thread than took it.

    Args:
        found: asks the tree.
        lock: of the tree.
    """
    while True:
        with lock:
            part = list(islice(found, _TURN))
        yield from part
        if len(part) < _TURN:
            return


def _path(pair: _Pair) -> str:
    entry = pair[0] or pair[1]
    assert entry is not None
    return entry.path


def paired(old: FileTree | None, new: FileTree | None) -> Iterator[_Pair]:
    """What two file systems have at each path but the root, ``None`` for nothing; by name.

    Both are walked at once, so that only the folders on the way are kept, and what is in one of
    them. Of entries with the same name in a folder, one is taken.
    """
    sides = (old, new)
    entered = tuple(None if side is None else _Entered(side) for side in sides)
    waiting = _Waiting()
    waiting.add([(None if old is None else old.root(), None if new is None else new.root())])
    while (folders := waiting.next()) is not None:
        first, second = (
            {}
            if seen is None or folder is None
            else {entry.path: entry for entry in seen.children(folder)}
            for seen, folder in zip(entered, folders, strict=True)
        )
        below: list[_Pair] = []
        for path in sorted({*first, *second}):
            pair = (first.get(path), second.get(path))
            yield pair
            before, after = (
                item if item is not None and item.type is Type.DIRECTORY else None for item in pair
            )
            if before is not None or after is not None:
                below.append((before, after))
        if not waiting.add(below):
            for seen, folder in zip(entered, folders, strict=True):
                if seen is not None and folder is not None:
                    seen.note(folder, "too many folders")
            return


def find_path(tree: FileTree, path: str, *, follow: bool = False, deleted: bool = False) -> Entry:
    """The entry at a path; ``.`` and ``..`` are understood.

    Names are in the spelling of the file system; where that takes upper and lower case for the
    same, the other will do if there is none of the very spelling.

    Args:
        tree: of the volume.
        path: from its root, with or without a ``/`` in front; as :attr:`Entry.path` is.
        follow: go where symbolic links lead, also the last one, but never out of the volume;
            otherwise a link on the way is no folder, and one at the end is the entry itself.
        deleted: look among deleted names as well, where no other has the name.

    Raises:
        NotFoundError: if there is none, or a part of the path is no folder, or links go in circles.
        CorruptImageError: if the root cannot be read.
        ReadError: the same; or if it may be where a folder cannot be read.
    """
    way = [tree.root()]
    left = path.split("/")[::-1]
    followed = 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            _need_folder(way[-1], path)
            if len(way) > 1:
                way.pop()
            continue
        entry = _child(tree, way[-1], name, path, deleted=deleted)
        if follow and entry.type is Type.LINK and entry.target:
            followed += 1
            target = entry.target
            if followed > FOLLOWED_MAX or len(target) > PATH_CHARS_MAX:
                raise _missing(path, "links that end", f"more than {FOLLOWED_MAX} of them")
            if target.startswith("/"):
                del way[1:]
            left += target.split("/")[::-1]
            continue
        way.append(entry)
    return way[-1]


def _child(tree: FileTree, folder: Entry, name: str, path: str, *, deleted: bool) -> Entry:
    """What has a name in a folder."""
    _need_folder(folder, path)
    told = len(tree.notes)
    left_over: Entry | None = None
    folded: Entry | None = None
    wanted = name.casefold() if isinstance(tree, Folding) and tree.folds_case else None
    for entry in tree.children(folder, deleted=deleted):
        if entry.name == name:
            if not entry.is_deleted:
                return entry
            left_over = left_over or entry
        elif wanted is not None and entry.name.casefold() == wanted and not entry.is_deleted:
            folded = folded or entry
    left_over = folded or left_over
    if left_over is None:
        if len(tree.notes) > told:  # nobody can say that it is not there
            what = f"expected {shown(name)} in a folder that cannot be read whole"
            raise ReadError(f"{what}: {tree.notes[told]}", name=shown(path))
        raise _missing(path, f"{shown(name)} in {shown(folder.path)}", "no such name")
    return left_over


def _need_folder(entry: Entry, path: str) -> None:
    if entry.type is not Type.DIRECTORY:
        raise _missing(path, f"a folder {shown(entry.path)}", f"a {entry.type.value}")


def _missing(path: str, expected: str, found: str) -> NotFoundError:
    return NotFoundError(f"expected {expected}, found {found}", name=shown(path))
