"""A file tree as folders that are asked for by name, again and again and in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.exports.fuse.facts import Facts, facts_of, inode_of
from imprint.exports.fuse.names import Distinct, carried
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
        facts = facts_of(self.entry, self.tree.number, self.tree.showing)
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
    """

    folder: Item
    names: dict[str, Item]
    is_whole: bool

    def find(self, name: str) -> Item | None:
        """What has that name, if anything has."""
        found = self.names.get(name)
        if found is None and not self.is_whole:
            self.names = self.folder.tree.window(self.folder, name)
            found = self.names.get(name)
        return found


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
    ) -> None:
        """Nothing is read yet.

        Args:
            opened: the tree, and the folder of it that is shown. It is asked every time.
            lock: held while the tree is asked.
            showing: how.
            number: of the tree among those that are shown, from 1.
            has_streams: files may have further contents, or attributes.
        """
        self._opened = opened
        self._lock = lock
        self.showing = showing
        self.number = number
        self.has_streams = has_streams
        self._asked: tuple[Entry, dict[str, bytes]] | None = None

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
        with self._lock:
            for name, item in self._items(folder):
                if len(names) == FOLDER_MAX:
                    return Listing(folder, names, is_whole=False)
                names[name] = item
        return Listing(folder, names, is_whole=True)

    def all_of(self, folder: Item) -> Iterator[tuple[str, Item]]:
        """All that is in a folder, however large it is; others may ask the tree meanwhile."""
        return in_turns(self._items(folder), self._lock)

    def window(self, folder: Item, first: str) -> dict[str, Item]:
        """What is in a large folder from a name on: who asks for one asks for the next then."""
        names: dict[str, Item] = {}
        with self._lock:
            for name, item in self._items(folder):
                if names or name == first:
                    names[name] = item
                    if len(names) == FOLDER_MAX:
                        break
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
        with self._lock:
            if self._asked is None or self._asked[0] != entry:
                self._asked = (entry, self._opened()[0].attributes(entry))
            return self._asked[1]

    def _items(self, folder: Item) -> Iterator[tuple[str, Item]]:
        """Names that can be carried, each once, as far as that can be known of a large folder."""
        names = Distinct()
        has_trash = False
        with_deleted = self.showing.deleted
        # What is in a deleted folder is deleted too, and needs no folder of its own.
        splits = with_deleted and not folder.entry.is_deleted
        tree = self._opened()[0]
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
