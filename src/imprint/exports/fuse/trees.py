"""A file tree as folders that are asked for by name, again and again and in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import ReadError
from imprint.exports.fuse.facts import Facts, facts_of, inode_of
from imprint.exports.fuse.names import Distinct, carried
from imprint.filesystems.tree import Type, note_of
from imprint.filesystems.walking import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from imprint.core.contracts import Source
    from imprint.exports.fuse.facts import Showing
    from imprint.filesystems.tree import Entry, FileTree

FOLDER_MAX: Final = 50_000
"""Entries that are kept of one folder: some 40 MiB. A larger one is gone through again."""

TRASH: Final = ".deleted"
"""The folder with the deleted names of the one that it is in."""

_TRASH_INODE: Final = 1 << 47


class Item(NamedTuple):
    """Something in a tree.

    Attributes:
        tree: it is of.
        entry: what it is.
        is_trash: it stands for the deleted names in the folder ``entry``.
    """

    tree: ShownTree
    entry: Entry
    is_trash: bool = False

    @property
    def facts(self) -> Facts:
        """What ``stat`` says."""
        tree = self.tree
        facts = facts_of(self.entry, tree.number, tree.showing, has_modes=tree.has_modes)
        return facts._replace(inode=self.inode, links=1) if self.is_trash else facts

    @property
    def inode(self) -> int:
        """Its number: the same for all names of one file."""
        number = inode_of(self.entry, self.tree.number)
        return number ^ _TRASH_INODE if self.is_trash else number

    @property
    def is_folder(self) -> bool:
        """Whether there may be something in it."""
        return self.entry.type is Type.DIRECTORY


@dataclass
class Listing:
    """What is in a folder, or a part of it.

    Attributes:
        folder: it is of.
        names: what is in it, by the names that are shown.
        is_whole: whether there is no more.
        unread: why there may be more all the same, which cannot be read.
    """

    folder: Item
    names: dict[str, Item]
    is_whole: bool
    unread: Sequence[str] = ()

    def find(self, name: str) -> Item | None:
        """What has that name, if anything has.

        Raises:
            ReadError: if nothing has, as far as the folder can be read.
        """
        found = self.names.get(name)
        if found is None and not self.is_whole:
            self.names = self.folder.tree.window(self.folder, name)
            found = self.names.get(name)
        if found is None:
            _check_read(self.folder, self.unread)
        return found

    def items(self) -> Iterator[tuple[str, Item]]:
        """All that is in it.

        Raises:
            ReadError: in the end, if that is not all.
        """
        if not self.is_whole:
            yield from self.folder.tree.all_of(self.folder)
            return
        yield from self.names.items()
        _check_read(self.folder, self.unread)


class ShownTree:
    """A file system that is shown, opened when somebody looks."""

    def __init__(
        self,
        opened: Callable[[], tuple[FileTree, Entry]],
        lock: AbstractContextManager[object],
        showing: Showing,
        *,
        number: int,
        has_streams: bool = False,
        has_modes: bool = False,
    ) -> None:
        """Nothing is read yet.

        Args:
            opened: the tree, and the folder of it that is shown. It is asked every time.
            lock: held while the tree is asked.
            showing: how.
            number: of the tree among those that are shown, from 1.
            has_streams: files may have further contents, or attributes.
            has_modes: all files have permissions, if only none.
        """
        self._opened = opened
        self._lock = lock
        self.showing = showing
        self.number = number
        self.has_streams = has_streams
        self.has_modes = has_modes
        self._asked: tuple[Entry, tuple[dict[str, bytes], list[str]]] | None = None

    def top(self) -> Item:
        """The folder that is shown.

        Raises:
            ImagingError: if it cannot be read.
        """
        with self._lock:
            return Item(self, self._opened()[1])

    def listing(self, folder: Item) -> Listing:
        """What is in a folder, or as much of it as is worth being kept."""
        names: dict[str, Item] = {}
        unread: list[str] = []
        with self._lock:
            for name, item in self._items(folder, unread):
                if len(names) == FOLDER_MAX:
                    return Listing(folder, names, is_whole=False)
                names[name] = item
        return Listing(folder, names, is_whole=True, unread=unread)

    def all_of(self, folder: Item) -> Iterator[tuple[str, Item]]:
        """All that is in a folder, however large it is; others may ask the tree meanwhile.

        Raises:
            ReadError: in the end, if that is not all.
        """
        unread: list[str] = []
        yield from in_turns(self._items(folder, unread), self._lock)
        _check_read(folder, unread)

    def window(self, folder: Item, first: str) -> dict[str, Item]:
        """What is in a large folder from a name on: who asks for one asks for the next then.

        Raises:
            ReadError: if nothing has the name, as far as the folder can be read.
        """
        names: dict[str, Item] = {}
        unread: list[str] = []
        with self._lock:
            for name, item in self._items(folder, unread):
                if names or name == first:
                    names[name] = item
                    if len(names) == FOLDER_MAX:
                        break
        if not names:
            _check_read(folder, unread)
        return names

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file.

        Raises:
            ImagingError: if they cannot be had.
        """
        with self._lock:
            return self._opened()[0].content(entry, stream)

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes, by their names; who asks for one mostly asks for the next then.

        Raises:
            ImagingError: if the tree cannot be opened.
        """
        return self._attributes(entry)[0]

    def attribute(self, entry: Entry, name: str) -> bytes | None:
        """One of them; ``None``: there is none of that name.

        Raises:
            ReadError: if nobody can say, since they cannot be read.
            ImagingError: if the tree cannot be opened.
        """
        found, unread = self._attributes(entry)
        if name not in found and unread:
            raise ReadError(f"cannot be read: {unread[0]}", name=entry.path)
        return found.get(name)

    def _attributes(self, entry: Entry) -> tuple[dict[str, bytes], list[str]]:
        """Those of an entry, and why there are not more."""
        with self._lock:
            if self._asked is None or self._asked[0] != entry:
                tree = self._opened()[0]
                told = len(tree.notes)
                found = tree.attributes(entry)
                self._asked = entry, (found, tree.notes[told:])
            return self._asked[1]

    def _items(self, folder: Item, unread: list[str]) -> Iterator[tuple[str, Item]]:
        """Names that can be carried, each once, as far as that can be known of a large folder.

        What of it cannot be read is in ``unread`` in the end.
        """
        names = Distinct()
        has_trash = False
        with_deleted = self.showing.deleted
        # What is in a deleted folder is deleted too, and needs no folder of its own.
        splits = with_deleted and not folder.entry.is_deleted
        tree = self._opened()[0]
        told, about = len(tree.notes), note_of(folder.entry.path, "")[:-2]
        for count, entry in enumerate(tree.children(folder.entry, deleted=with_deleted)):
            if entry.type is Type.SYSTEM and not self.showing.system:
                continue
            if splits and entry.is_deleted != folder.is_trash:
                has_trash = has_trash or entry.is_deleted
                continue
            name = names.take(entry.name) if count < FOLDER_MAX else carried(entry.name)
            yield name, Item(self, entry)
        if has_trash:
            yield names.take(TRASH), Item(self, folder.entry, is_trash=True)
        unread += [note for note in tree.notes[told:] if note.startswith(about)][:1]


def _check_read(folder: Item, unread: Sequence[str]) -> None:
    """Tell of what a folder has besides what was told of it.

    Raises:
        ReadError: if there may be anything.
    """
    if unread:
        raise ReadError(f"cannot be read whole: {unread[0]}", name=folder.entry.path)
