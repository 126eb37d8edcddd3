"""The folders of a UFS1 or UFS2, in both byte orders, with names that were deleted."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.core.units import KIB
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.contents import PIECES_MAX, extents_of, held, mapped
from imprint.filesystems.remains import ORPHANS, Reuse
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    OwnTree,
    Type,
    bytes_of,
    no_stream,
    note_of,
    path_in,
    shown,
    text_of,
)
from imprint.filesystems.ufs.attributes import attributes
from imprint.filesystems.ufs.blocks import Blocks
from imprint.filesystems.ufs.inodes import DIRECT, Inodes
from imprint.filesystems.ufs.layout import Dialect, read_superblock
from imprint.filesystems.ufs.names import Names
from imprint.filesystems.ufs.orphans import Orphans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.contents import Run
    from imprint.filesystems.tree import Attribute
    from imprint.filesystems.ufs.inodes import Inode
    from imprint.filesystems.ufs.names import Name

_ROOT: Final = 2
_WHITEOUT: Final = 0xE000
_WITH_CONTENT: Final = (Type.FILE, Type.DIRECTORY, Type.LINK)
_PIECE_BYTES: Final = 64 * KIB
"""What of a folder is read at once."""

_TARGET_BYTES_MAX: Final = 4096
_KNOWN_MAX: Final = 1 << 18
"""Names of a folder that are remembered, so that what is left of them is not told again."""

_AGAIN_MAX: Final = 1 << 16
"""Blocks of pointers that are read again for lists of files, from that of the root on. Where a few
large files have millions of names, the others say nothing of where they lie."""

_LOG: Final = "it was not unmounted: what is only in its log is not told"


class UfsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``, or was, before its end was cut off.

        Raises:
            CorruptImageError: if it contradicts itself.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        self._block = block = read_superblock(self._reader, may_be_cut=True)
        self._inodes = Inodes(self._reader, block)
        self._blocks = Blocks(self._reader, block)
        has_types = block.dialect is Dialect.BSD
        self._names = Names(block.order, has_types=has_types, inode_count=block.inode_count)
        self._reuse = Reuse("ufs", volume, self.notes)
        inode = self._inodes.inode(_ROOT)
        self._begin_at(self._entry("/", _ROOT, inode))
        if block.has_log:
            self._remark(_LOG)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; see :class:`~imprint.filesystems.tree.FileTree`.

        With deleted names, the root has the folder :data:`~imprint.filesystems.remains.ORPHANS`,
        for which all inodes are looked at.
        """
        if folder.path == "/":
            self._blocks.again = 0
        try:
            if folder.inode == self._block.inode_count:
                yield from self._orphans(folder)
                return
            inode = self._inodes.inode(folder.inode)
            if not stat.S_ISDIR(inode.mode):
                if folder.is_deleted:
                    return
                raise CorruptImageError("expected a folder")
            yield from self._named(folder, inode, deleted=deleted or folder.is_deleted)
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))
        if deleted and folder.path == "/":
            path = path_in(folder, ORPHANS)
            number = self._block.inode_count
            yield Entry(path, number, Type.DIRECTORY, 0, is_deleted=True, is_allocated=False)

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        if entry.type is Type.LINK and entry.target is not None:
            return held(name, bytes_of(entry.target))
        if entry.type not in _WITH_CONTENT or not 0 < entry.inode < self._block.inode_count:
            return held(name, b"")
        if entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        inode = self._inodes.inode(entry.inode)
        runs = self._runs(entry.inode, inode, is_used=not entry.is_deleted, through=True)
        return mapped(self._volume, runs, inode.size, name=name)

    def _attributes(self, entry: Entry) -> Iterable[Attribute]:
        if entry.is_deleted or not 0 < entry.inode < self._block.inode_count:
            return
        inode = self._inodes.inode(entry.inode)
        parts = [
            self._reader.read(run.offset, run.length, "extended attributes")
            for run in self._blocks.attribute_runs(inode)
        ]
        data = b"".join(parts)[: inode.attributes_size]
        yield from attributes(data, self._block.order)

    def _named(self, folder: Entry, inode: Inode, *, deleted: bool) -> Iterator[Entry]:
        """What has a name in a folder, or had one."""
        known: set[int] = set()
        if deleted and not folder.is_deleted:
            for name in self._names_of(folder.inode, inode, folder, deleted=False):
                if name is not None and len(known) < _KNOWN_MAX:
                    known.add(hash((name.name, name.inode)))
        for name in self._names_of(folder.inode, inode, folder, deleted=deleted):
            if name is None:
                self.notes.append(note_of(folder.path, "expected names one behind the other"))
                continue
            if name.name in (b".", b".."):
                continue
            path = path_in(folder, text_of(name.name))
            if not name.is_deleted:
                try:
                    entry = self._live(path, name)
                except (FormatError, ReadError) as failure:
                    self.notes.append(note_of(path, failure.args[0]))
                    continue
                yield entry
                continue
            key = hash((name.name, name.inode))
            if key in known:
                continue
            if len(known) < _KNOWN_MAX:
                known.add(key)
            yield self._given_up(path, name.inode, TYPES_BY_MODE.get(name.type << 12))

    def _names_of(
        self, number: int, inode: Inode, folder: Entry | None, *, deleted: bool
    ) -> Iterator[Name | None]:
        """All names in a folder, piece by piece; of one that was deleted all are."""
        is_used = folder is None or not folder.is_deleted
        left = self._volume.size
        for run in self._runs(number, inode, is_used=is_used):
            left -= run.length
            if left < 0:
                raise CorruptImageError("a folder: expected blocks of its own")
            end = min(run.length, inode.size - run.position)
            for at in range(0, end, _PIECE_BYTES):
                length = min(_PIECE_BYTES, end - at)
                try:
                    data = bytes(self._reader.read(run.offset + at, length, "folder"))
                except (FormatError, ReadError) as failure:
                    if folder is not None and not deleted:
                        self.notes.append(note_of(folder.path, failure.args[0]))
                    continue
                if is_used:
                    yield from self._names.names(data, deleted=deleted)
                else:
                    yield from self._names.all_deleted(data)

    def _live(self, path: str, name: Name) -> Entry:
        inode = self._inodes.inode(name.inode)
        if not inode.mode and name.type << 12 != _WHITEOUT:
            raise CorruptImageError(f"inode {name.inode}: expected one in use")
        return self._entry(path, name.inode, inode)

    def _given_up(self, path: str, number: int, type_: Type | None) -> Entry:
        """What is left of a file: by its inode, as long as that says anything."""
        lost = Entry(path, number, type_ or Type.OTHER, 0, is_deleted=True, is_allocated=False)
        try:
            inode = self._inodes.inode(number)
            entry = self._entry(path, number, inode, is_deleted=True)
        except (FormatError, ReadError):
            return lost
        try:
            is_used = self._inodes.is_used(number)
        except (FormatError, ReadError):
            is_used = inode.mode != 0
        if not inode.mode:
            entry = entry._replace(type=lost.type)
        return self._reuse.judged(entry._replace(is_deleted=True, is_allocated=is_used))

    def _orphans(self, folder: Entry) -> Iterator[Entry]:
        found = Orphans(self._block, self._inodes, self._names_with_deleted, self._volume.size)
        for number in found.numbers(lambda why: self.notes.append(note_of(folder.path, why))):
            yield self._given_up(path_in(folder, f"OrphanFile-{number}"), number, None)

    def _names_with_deleted(self, number: int, inode: Inode) -> Iterator[Name | None]:
        return self._names_of(number, inode, None, deleted=True)

    def _entry(self, path: str, number: int, inode: Inode, *, is_deleted: bool = False) -> Entry:
        type_ = TYPES_BY_MODE.get(stat.S_IFMT(inode.mode), Type.OTHER)
        is_within = type_ is Type.LINK and inode.is_within(self._block)
        extents: list[tuple[int, int]] = []
        is_plain = False
        target = None
        try:
            if type_ in _WITH_CONTENT and not is_within:
                is_plain = self._add_extents(number, inode, extents, is_used=not is_deleted)
            if type_ is Type.LINK:
                target = text_of(self._target(inode, extents, is_within=is_within))
        except (FormatError, ReadError) as failure:
            if not is_deleted:
                self.notes.append(note_of(path, failure.args[0]))
        return Entry(
            path,
            number,
            type_,
            inode.size,
            inode.times,
            stat.S_IMODE(inode.mode),
            inode.owner,
            inode.group,
            inode.links,
            tuple(extents),
            target,
            is_plain=is_plain and type_ is Type.FILE,
        )

    def _add_extents(
        self, number: int, inode: Inode, extents: list[tuple[int, int]], *, is_used: bool
    ) -> bool:
        """Add where blocks are, of many the first ones; whether these are all of the content."""
        if self._blocks.again > _AGAIN_MAX and any(inode.pointers[DIRECT:]):
            return False
        covered = 0
        is_plain = True
        for run in self._runs(number, inode, is_used=is_used):
            if len(extents) >= PIECES_MAX:
                return False
            there = max(0, min(run.length, self._volume.size - run.offset))
            is_plain = is_plain and run.position == covered and there == run.length
            covered = run.position + run.length
            if there:
                extents.append((run.offset, there))
        return is_plain and covered >= inode.size

    def _runs(
        self, number: int, inode: Inode, *, is_used: bool, through: bool = False
    ) -> Iterator[Run]:
        return self._blocks.runs(number, inode, is_used=is_used, through=through)

    def _target(self, inode: Inode, extents: list[tuple[int, int]], *, is_within: bool) -> bytes:
        size = min(inode.size, _TARGET_BYTES_MAX)
        if is_within:
            return inode.inner[:size]
        place, length = extents[0] if extents else (0, 0)
        return bytes(self._reader.read(place, min(size, length), "symbolic link"))


def open_tree(volume: Source, _kind: str) -> UfsTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return UfsTree(volume)
