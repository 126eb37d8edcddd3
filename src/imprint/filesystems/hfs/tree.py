"""The folders of a classic HFS.

Files and folders have the numbers of the catalog. Names are told as MacRoman, whatever script the
Mac had. Times are local ones of nobody knows where: they are taken as UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.contents import extents_of, held, in_a_row, mapped
from imprint.filesystems.hfs import layout
from imprint.filesystems.hfs.layout import FileRecord, FolderRecord, item_of
from imprint.filesystems.hfs.names import finder_info, name_of, times_of
from imprint.filesystems.hfs.volume import Volume
from imprint.filesystems.hfs_common import UNMOUNTED
from imprint.filesystems.tree import (
    RESOURCE_FORK,
    Entry,
    OwnTree,
    Type,
    no_stream,
    note_of,
    path_in,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Attribute

FILES_MAX: Final = 1 << 19
"""That are told; where each stands takes some 100 bytes. A volume has room for some 65,000."""

_UNMOUNTED: Final = "it was not unmounted: some of what was written last may be missing"


class HfsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    folds_case = True

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._place = Volume(VolumeReader(volume, budget=UNBOUNDED))
        try:
            self._place.read_overflow()
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of("/", failure.args[0]))
        self._catalog = self._place.catalog()
        self._leaves: dict[int, int] = {}
        """Where the records of those are that were told."""
        self._begin_at(self._root_entry())
        if not self._place.block.attributes & UNMOUNTED:
            self._remark(_UNMOUNTED)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; names that were deleted are not told."""
        try:
            for record in self._catalog.within(folder.inode):
                path = path_in(folder, name_of(record.name))
                try:
                    item = item_of(record.data)
                    entry = None if item is None else self._entry(path, record.leaf, item)
                except FormatError as failure:
                    self.notes.append(note_of(path, failure.args[0]))
                    continue
                if entry is not None:
                    yield entry
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None and stream not in entry.streams:
            raise no_stream(stream, name)
        if stream is None and entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        item = self._item(entry)
        if isinstance(item, FolderRecord):
            return held(name, b"")
        fork = layout.DATA if stream is None else layout.RESOURCE
        size, places = self._fork(item, fork)
        return mapped(self._volume, in_a_row(places, size), size, name=name)

    def _attributes(self, entry: Entry) -> Iterable[Attribute]:
        item = self._item(entry)
        if isinstance(item, FolderRecord):
            return finder_info(item.finder)
        return finder_info(item.finder + item.finder_more)

    def _root_entry(self) -> Entry:
        for record in self._catalog.within(layout.ROOT_PARENT):
            item = item_of(record.data)
            if isinstance(item, FolderRecord) and item.number == layout.ROOT:
                return self._entry("/", record.leaf, item)
        raise self._place.odd("catalog", "the root folder", "none")

    def _entry(self, path: str, leaf: int, item: FolderRecord | FileRecord) -> Entry:
        self._remember(item.number, leaf)
        times = times_of(item.modified_s, item.created_s)
        if isinstance(item, FolderRecord):
            return Entry(path, item.number, Type.DIRECTORY, 0, times)
        extents, is_plain = self._told(item, layout.DATA)
        more, _ = self._told(item, layout.RESOURCE)
        return Entry(
            path,
            item.number,
            Type.FILE,
            item.data_size,
            times,
            extents=(*extents, *more),
            streams=(RESOURCE_FORK,) if item.resource_size else (),
            is_plain=is_plain,
        )

    def _remember(self, number: int, leaf: int) -> None:
        """Keep where a record is: files have no index by number."""
        if len(self._leaves) >= FILES_MAX and number not in self._leaves:
            raise self._place.odd("catalog", f"at most {FILES_MAX} files", "more")
        if self._leaves.setdefault(number, leaf) != leaf:
            raise self._place.odd("catalog", f"one file {number}", "two")

    def _fork(self, file: FileRecord, fork: int) -> tuple[int, list[tuple[int, int]]]:
        """Size of a fork, and where it lies, in bytes of the volume."""
        size, first = file.data_size, file.data_extents
        if fork == layout.RESOURCE:
            size, first = file.resource_size, file.resource_extents
        found = self._place.extents(file.number, fork, size, layout.extents_of(first))
        return size, [self._place.place(extent) for extent in found]

    def _told(self, file: FileRecord, fork: int) -> tuple[list[tuple[int, int]], bool]:
        """Where a fork lies, as far as the volume reaches, and whether that is all of it."""
        try:
            _, places = self._fork(file, fork)
        except CorruptImageError:
            return [], False
        end = self._volume.size
        inside = [(start, min(length, end - start)) for start, length in places if start < end]
        return inside, inside == places

    def _item(self, entry: Entry) -> FolderRecord | FileRecord:
        """The record of an entry, where it was when the entry was told."""
        leaf = self._leaves.get(entry.inode)
        kind = FolderRecord if entry.type is Type.DIRECTORY else FileRecord
        for record in () if leaf is None else self._catalog.of_leaf(leaf):
            try:
                item = item_of(record.data)
            except FormatError:
                continue
            name = path_in(self._root, name_of(record.name)).removeprefix("/")
            is_named = name == entry.name or entry.inode == layout.ROOT
            if isinstance(item, kind) and item.number == entry.inode and is_named:
                return item
        raise self._place.odd("catalog", f"a record of file {entry.inode}", "none")


def open_tree(volume: Source, _kind: str) -> HfsTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return HfsTree(volume)
