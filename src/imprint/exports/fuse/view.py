"""What is shown where: disks as files, and folders with what is in their file systems.

It knows nothing of FUSE, but that it is asked by paths, and answers errors of the system.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from imprint.exports.fuse.contents import Raw, Text
from imprint.exports.fuse.facts import BLOCK_BYTES, Facts
from imprint.exports.fuse.names import encoded
from imprint.exports.fuse.trees import FOLDER_MAX, Item, Listing, ShownTree
from imprint.filesystems.tree import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.exports.fuse.contents import Content

ENTRIES_MAX: Final = 200_000
"""Entries of all folders that are kept: some 150 MiB. Those asked for last are kept."""

STREAM_BYTES_MAX: Final = 64 << 10
"""Of a stream: what the kernel takes as the value of an attribute."""

NAMES_BYTES_MAX: Final = 64 << 10
"""Of attributes of one file, each with a zero byte: what the kernel takes."""

_FILE_MODE: Final = 0o400  # a disk has everybody's files in it
_ATTRIBUTE: Final = "user."

Shown = Mapping[str, Raw | ShownTree]
"""What is in the folder, by name."""

_NOTHING: Final[Shown] = {}

Node = Item | Raw | Text | None
"""What a path leads to; ``None`` is the folder that all is in."""


class View:
    """Disks and trees by path. Safe to use from many threads."""

    def __init__(
        self,
        shown: Callable[[], Shown] | ShownTree,
        *,
        owner: tuple[int, int],
        time_ns: int,
        notes: Mapping[str, bytes],
    ) -> None:
        """Show some things.

        Args:
            shown: says what is in the folder, by name, whenever it is asked: the same object as
                long as it is the same; or a tree that is the folder.
            owner: user and group whose the disks are.
            time_ns: when they were changed, in ns since 1970.
            notes: further files there, which nobody sees who does not know their names.
        """
        self._tree = shown if isinstance(shown, ShownTree) else None
        self._ask = _nothing if isinstance(shown, ShownTree) else shown
        self._owner = owner
        self._time = time_ns
        self._notes = {name: Text(data) for name, data in notes.items()}
        self._lock = threading.Lock()
        self._listings: OrderedDict[str, Listing] = OrderedDict()
        self._count = 0
        self._inodes: dict[str, int] = {}
        self._shown: Shown | None = None
        self._trees: set[ShownTree | None] = {self._tree}
        self._now()

    @property
    def has_streams(self) -> bool:
        """Whether files may have attributes."""
        trees = [item for item in (self._tree, *self._now().values()) if item is not None]
        return any(isinstance(item, ShownTree) and item.has_streams for item in trees)

    @property
    def size(self) -> int:
        """Of the largest disk that is shown, in bytes."""
        sizes = [item.source.size for item in self._now().values() if isinstance(item, Raw)]
        return max(sizes, default=0)

    def find(self, path: str) -> Node:
        """What is at a path.

        Raises:
            FileNotFoundError: if nothing is.
            NotADirectoryError: if it leads through what is no folder.
            ImagingError: if a folder on the way cannot be read.
        """
        if path == "/":
            return None if self._tree is None else self._tree.top()
        folder, _, name = path.rpartition("/")
        if not folder and (name in self._notes or self._tree is None):
            return self._top(name)
        found = self._listing(folder or "/").find(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return found

    def facts(self, path: str) -> Facts:
        """What ``stat`` says of a path; raises as :meth:`find` does."""
        return self.facts_of(self.find(path), path)

    def facts_of(self, node: Node, path: str) -> Facts:
        """The same of what was found there."""
        if isinstance(node, Item):
            return node.facts
        times = (self._time, self._time, self._time)
        if node is None:
            return Facts(stat.S_IFDIR | 0o755, 1, 1, *self._owner, 0, 0, *times)
        inode = self._inodes.get(path[1:], 0)
        if isinstance(node, Text):
            mode = stat.S_IFREG | 0o444
            return Facts(mode, inode, 1, *self._owner, node.size, 1, *times)
        mode = stat.S_IFREG | _FILE_MODE | (0 if node.writing is None else 0o200)
        size = node.source.size
        return Facts(mode, inode, 1, *self._owner, size, -(-size // BLOCK_BYTES), *times)

    def entries(self, path: str) -> Iterator[tuple[str, Facts]]:
        """What is in a folder: names, and what ``stat`` says.

        Raises:
            NotADirectoryError: if it is none.
            ImagingError: if it cannot be read; in the end, if not all of it can.
        """
        if path == "/" and self._tree is None:
            for name, thing in self._now().items():
                if isinstance(thing, Raw):
                    yield name, self.facts_of(thing, f"/{name}")
                else:  # it is not opened before somebody looks into it
                    yield name, self.facts_of(None, path)._replace(inode=self._inodes[name])
            return
        for name, item in self._listing(path).items():
            yield name, item.facts

    def content(self, node: Node) -> Content:
        """The bytes of what was found.

        Raises:
            IsADirectoryError: if it has none.
            OSError: the same, ``ENXIO``.
            ImagingError: if they cannot be had.
        """
        if isinstance(node, Text):
            return node
        if isinstance(node, Raw):
            return node.source
        if node is None or node.is_folder:
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        entry = node.entry
        if entry.type is Type.LINK:
            return Text(encoded(entry.target or ""))
        if entry.type not in (Type.FILE, Type.SYSTEM, Type.OTHER):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return node.tree.content(entry)

    def target(self, path: str) -> str:
        """Of a symbolic link.

        Raises:
            OSError: ``EINVAL`` if it is none.
        """
        node = self.find(path)
        if not isinstance(node, Item) or node.entry.target is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return node.entry.target

    def attributes(self, path: str) -> list[str]:
        """Names of attributes: of extended ones, and the streams of a file.

        As many as the system tells of one file.
        """
        node = None if self._is_disk(path) else self.find(path)
        if not isinstance(node, Item):
            return []
        streams = [f"{_ATTRIBUTE}{name}" for name in node.entry.streams]
        names, left = [], NAMES_BYTES_MAX
        for name in dict.fromkeys((*streams, *node.tree.attributes(node.entry))):
            left -= len(encoded(name)) + 1
            if left < 0:
                break
            names.append(name)
        return names

    def attribute(self, path: str, name: str) -> bytes:
        """The value of an attribute.

        Raises:
            OSError: ``ENODATA`` if there is none, ``E2BIG`` if it is too long to be one.
            ImagingError: if it cannot be read.
        """
        node = None if self._is_disk(path) else self.find(path)
        if not isinstance(node, Item):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        stream = name.removeprefix(_ATTRIBUTE)
        if stream == name or stream not in node.entry.streams:
            value = node.tree.attribute(node.entry, name)
            if value is None:
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
            if len(value) > STREAM_BYTES_MAX:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            return value
        content = node.tree.content(node.entry, stream)
        try:
            if content.size > STREAM_BYTES_MAX:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            data = bytearray(content.size)
            content.readinto(memoryview(data), 0)
        finally:
            content.close()
        return bytes(data)

    def _is_disk(self, path: str) -> bool:
        """Whether it is, or was when somebody looked last: the kernel asks with each write."""
        return self._shown is not None and isinstance(self._shown.get(path[1:]), Raw)

    def _now(self) -> Shown:
        """What is in the folder. Of trees that are not there any more nothing is kept."""
        shown = self._ask()
        if shown is self._shown:
            return shown
        with self._lock:
            self._shown = shown
            for name in shown:
                self._inodes.setdefault(name, 2 + len(self._inodes))
            trees = (thing for thing in shown.values() if isinstance(thing, ShownTree))
            self._trees = {self._tree, *trees}
            for path, listing in list(self._listings.items()):
                if listing.folder.tree not in self._trees:
                    self._count -= _weight(self._listings.pop(path))
        return shown

    def _top(self, name: str) -> Node:
        note = self._notes.get(name)
        if note is not None:
            return note
        thing = self._now().get(name)
        if thing is None:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return thing.top() if isinstance(thing, ShownTree) else thing

    def _listing(self, path: str) -> Listing:
        """What is in the folder at a path; from the nearest folder above it that is known."""
        self._now()
        missing: list[str] = []
        listing = self._known(path)
        while listing is None:
            missing.append(path)
            is_top = path == "/" or (self._tree is None and path.rfind("/") == 0)
            if is_top:
                listing = self._list(path, self.find(path))
                missing.pop()
                break
            path = path.rpartition("/")[0] or "/"
            listing = self._known(path)
        for below in reversed(missing):
            listing = self._list(below, listing.find(below.rpartition("/")[2]))
        return listing

    def _known(self, path: str) -> Listing | None:
        with self._lock:
            found = self._listings.get(path)
            if found is not None:
                self._listings.move_to_end(path)
            return found

    def _list(self, path: str, node: Node) -> Listing:
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        if not isinstance(node, Item) or not node.is_folder:
            raise NotADirectoryError(errno.ENOTDIR, "is no folder")
        listing = node.tree.listing(node)
        with self._lock:
            if node.tree not in self._trees:
                return listing  # it has been replaced meanwhile
            self._count += _weight(listing)
            old = self._listings.pop(path, None)
            self._count -= 0 if old is None else _weight(old)
            self._listings[path] = listing
            while self._count > ENTRIES_MAX and len(self._listings) > 1:
                self._count -= _weight(self._listings.popitem(last=False)[1])
        return listing


def _nothing() -> Shown:
    return _NOTHING


def _weight(listing: Listing) -> int:
    """In entries. One that is not whole counts as if it were as large as it may get."""
    return 1 + (len(listing.names) if listing.is_whole else FOLDER_MAX)
