"""The folders of a Btrfs, subvolumes and snapshots among them, as the last commit left them."""

from __future__ import annotations

import stat
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems.allocation import UNBOUNDED
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.contents import Run, content, runs_of
from imprint.filesystems.btrfs.layout import FolderName, Inode
from imprint.filesystems.btrfs.lookup import Lookup
from imprint.filesystems.btrfs.state import read_state
from imprint.filesystems.contents import PIECES_MAX
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    OwnTree,
    Times,
    Type,
    no_stream,
    note_of,
    path_in,
    shown,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.btrfs.trees import Item, Pointer
    from imprint.filesystems.tree import Attribute

_ANY: Final = (1 << 64) - 1
_STANDS_FOR_NOTHING: Final = 2
"""The number that Linux gives to a subvolume's name in a snapshot, which does not have it."""
_SUBVOLUME_BITS: Final = 64
_TARGET_BYTES_MAX: Final = 4096
_NS: Final = 1_000_000_000
_UNCLEAN: Final = "the file system was not unmounted: what is only in its log is not told"


class BtrfsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`. For one thread."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if it has a feature that is not known, or a second device.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._state = read_state(volume, budget=UNBOUNDED)
        self._lookup = Lookup(self._state.trees)
        self._roots: dict[int, Pointer] = {}
        if self._state.log_root is not None:
            self._remark(_UNCLEAN)
        self._begin_at(self._entry("/", layout.FILE_TREE, layout.FIRST_FREE))

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; nothing is kept of deleted names."""
        del deleted
        if folder.inode < layout.FIRST_FREE:
            return  # it stands for a subvolume that is not in this snapshot
        first = (folder.inode, layout.FOLDER_NAME, 0)
        last = (folder.inode, layout.FOLDER_NAME, _ANY)
        try:
            root = self._tree(folder.subvolume)
            for item in self._lookup.items(root, first, last):
                found = FolderName.unpack(item.data, where=self._volume.name)
                raw = bytes(item.data[FolderName.SIZE :][: found.name_bytes])
                path = path_in(folder, text_of(raw))
                try:
                    yield self._named(path, folder, found)
                except (FormatError, ReadError) as failure:
                    self.notes.append(note_of(path, failure.args[0]))
                    yield Entry(path, found.target, Type.OTHER, 0, subvolume=folder.subvolume)
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        items = self._items(entry.subvolume, entry.inode, layout.EXTENT_DATA)
        sector = self._state.superblock.sector_size
        runs = runs_of(items, self._state.chunks, sector, name)
        return content(self._volume, runs, entry.size, sector, name)

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        """Names and values as Linux has them; those with the same hash of the name in one item."""
        if entry.inode < layout.FIRST_FREE:
            return
        for item in self._items(entry.subvolume, entry.inode, layout.ATTRIBUTE):
            left, is_first = item.data, True
            while left or is_first:
                found = FolderName.unpack(left, where=self._volume.name)
                start = FolderName.SIZE + found.name_bytes
                end = start + found.data_bytes
                if end > len(left):
                    raise CorruptImageError(f"inode {entry.inode}: expected attributes that end")
                yield text_of(bytes(left[FolderName.SIZE : start])), bytes(left[start:end])
                left, is_first = left[end:], False

    def _named(self, path: str, folder: Entry, found: FolderName) -> Entry:
        if found.target_kind == layout.ROOT_ITEM:
            if self._holds(found.target, folder):
                return self._entry(path, found.target, layout.FIRST_FREE)
            # A folder of its own each time: it is not one that holds itself.
            own = found.target << _SUBVOLUME_BITS | folder.subvolume
            return Entry(path, _STANDS_FOR_NOTHING, Type.DIRECTORY, 0, subvolume=own)
        return self._entry(path, folder.subvolume, found.target)

    def _holds(self, subvolume: int, folder: Entry) -> bool:
        """Whether a subvolume is in a folder: a snapshot of the folder has its name only."""
        key = (subvolume, layout.ROOT_BACKREF, folder.subvolume)
        found = next(self._lookup.items(self._state.root, key, key), None)
        return found is not None and bytes(found.data[:8]) == folder.inode.to_bytes(8, "little")

    def _tree(self, identity: int) -> Pointer:
        """Where the tree of a subvolume is."""
        pointer = self._roots.get(identity)
        if pointer is None:
            first, last = (identity, layout.ROOT_ITEM, 0), (identity, layout.ROOT_ITEM, _ANY)
            item = None
            for item in self._lookup.items(self._state.root, first, last):  # noqa: B007 - the last
                pass
            if item is None:
                raise CorruptImageError(
                    f"tree {identity}: expected one, found none", name=self._volume.name
                )
            pointer = self._roots[identity] = self._state.tree_of(item)[0]
        return pointer

    def _items(self, subvolume: int, inode: int, kind: int) -> Iterator[Item]:
        root = self._tree(subvolume)
        return self._lookup.items(root, (inode, kind, 0), (inode, kind, _ANY))

    def _entry(self, path: str, subvolume: int, number: int) -> Entry:
        item = next(self._items(subvolume, number, layout.INODE), None)
        if item is None:
            raise CorruptImageError(f"inode {number}: expected one, found none")
        inode = Inode.unpack(item.data, where=self._volume.name)
        kind = TYPES_BY_MODE.get(stat.S_IFMT(inode.mode), Type.OTHER)
        runs: list[Run] = []
        is_told = True
        if kind in (Type.FILE, Type.LINK):
            items = self._items(subvolume, number, layout.EXTENT_DATA)
            sector = self._state.superblock.sector_size
            found = runs_of(items, self._state.chunks, sector, shown(path))
            runs = list(islice(found, PIECES_MAX + 1))
            is_told = len(runs) <= PIECES_MAX
            if not is_told:
                self.notes.append(note_of(path, f"lies in more than {PIECES_MAX} runs"))
        return Entry(
            path,
            number,
            kind,
            inode.size,
            times=_times(inode),
            mode=stat.S_IMODE(inode.mode),
            owner=inode.owner,
            group=inode.group,
            links=inode.links,
            extents=_places(runs) if is_told else (),
            target=self._target(runs) if kind is Type.LINK else None,
            is_plain=kind is Type.FILE and is_told and _is_plain(runs, inode.size),
            subvolume=subvolume,
        )

    def _target(self, runs: list[Run]) -> str:
        text = b"".join(run.inline for run in runs if not run.compression)[:_TARGET_BYTES_MAX]
        return text_of(text)


def _places(runs: list[Run]) -> tuple[tuple[int, int], ...]:
    return tuple((run.offset, run.stored) for run in runs if run.offset is not None)


def _is_plain(runs: list[Run], size: int) -> bool:
    position = 0
    for run in runs:
        if not run.is_plain or run.position != position:
            return False
        position += run.length
    return position >= size


def _times(inode: Inode) -> Times:
    return Times(
        inode.modified_s * _NS + inode.modified_ns,
        inode.accessed_s * _NS + inode.accessed_ns,
        inode.changed_s * _NS + inode.changed_ns,
        inode.created_s * _NS + inode.created_ns if inode.created_s else None,
    )


def open_tree(volume: Source, kind: str) -> BtrfsTree:
    """The files of a Btrfs; see :func:`imprint.filesystems.trees.tree`."""
    del kind
    return BtrfsTree(volume)
