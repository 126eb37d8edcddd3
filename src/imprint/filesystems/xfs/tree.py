"""The folders of an XFS, as they are on the disk, or as they are once its log is replayed."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, ReadError
from imprint.filesystems.allocation import UNBOUNDED
from imprint.filesystems.contents import Run, extents_of, held, mapped
from imprint.filesystems.journals import ADVICE
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    OwnTree,
    Type,
    bytes_of,
    no_stream,
    shown,
    text_of,
)
from imprint.filesystems.xfs.attributes import attributes
from imprint.filesystems.xfs.geometry import Reader, read_geometry
from imprint.filesystems.xfs.inodes import IN_INODE, InodeTable
from imprint.filesystems.xfs.layout import BASIC_BLOCK
from imprint.filesystems.xfs.log import Log, LogError
from imprint.filesystems.xfs.names import DATA_END, names_in_block, names_in_inode
from imprint.filters.replayed import Replayed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Attribute
    from imprint.filesystems.xfs.geometry import Geometry
    from imprint.filesystems.xfs.inodes import Facts

_FOLDER_BLOCK_LOG_AT: Final = 192
_FOLDER_BLOCK_MAX: Final = 64 << 10
_TYPES_INCOMPAT: Final = 1 << 0
_TYPES_FEATURES2: Final = 0x200
_TARGET_BYTES_MAX: Final = 1024
_LINK_MARK: Final = b"XSLM"
_LINK_HEAD: Final = 56
_DIRTY: Final = f"the file system was not unmounted: what is only in its log is not told ({ADVICE})"


class XfsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if it has a feature that is not known, or a second device.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._reader = Reader(volume, budget=UNBOUNDED)
        self._geometry = read_geometry(self._reader)
        self._inodes = InodeTable(self._reader, self._geometry)
        superblock = self._geometry.superblock
        if self._geometry.is_v5:
            self._has_types = self._geometry.has(incompat=_TYPES_INCOMPAT)
        else:
            self._has_types = bool(superblock.features2 & _TYPES_FEATURES2)
        log = self._reader.read(0, BASIC_BLOCK, "superblock")[_FOLDER_BLOCK_LOG_AT]
        self._folder_block = min(superblock.block_size << min(log, 8), _FOLDER_BLOCK_MAX)
        self._begin_at(self._entry("/", superblock.root_inode))
        if not isinstance(volume, Replayed) and not _is_clean(self._reader, self._geometry):
            self._remark(_DIRTY)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; names that were deleted are overwritten in part, and not told."""
        del deleted
        return self._each_entry(folder, self._names_in(folder), self._entry)

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        if entry.type is Type.LINK:
            return held(name, bytes_of(entry.target or ""))
        if entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        facts = self._inodes.facts(entry.inode)
        if facts.form == IN_INODE:
            return held(name, bytes(facts.fork[: facts.size]))
        runs = (Run(*run) for run in self._inodes.runs(facts) if run[0] >= 0)
        return mapped(self._volume, runs, facts.size, name=name)

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        yield from attributes(self._reader, self._geometry, self._inodes, entry.inode)

    def _names_in(self, folder: Entry) -> Iterator[tuple[bytes, int]]:
        yield from self._names(self._inodes.facts(folder.inode))

    def _entry(self, path: str, number: int) -> Entry:
        facts = self._inodes.facts(number)
        type_ = TYPES_BY_MODE.get(stat.S_IFMT(facts.mode), Type.OTHER)
        extents: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        covered = 0
        has_holes = False
        for position, offset, length in self._inodes.runs(facts):
            if position < 0:
                others.append((offset, length))
                continue
            has_holes = has_holes or position != covered
            covered = position + length
            extents.append((offset, length))
        is_plain = type_ is Type.FILE and not has_holes and covered >= facts.size
        target = None
        if type_ is Type.LINK:
            target = text_of(self._target(facts, extents))
        return Entry(
            path,
            number,
            type_,
            facts.size,
            facts.times,
            stat.S_IMODE(facts.mode),
            facts.owner,
            facts.group,
            facts.links,
            (*extents, *others),
            target,
            is_plain=is_plain,
        )

    def _target(self, facts: Facts, extents: list[tuple[int, int]]) -> bytes:
        """Of a symbolic link. In version 5 each run of blocks has a head."""
        size = min(facts.size, _TARGET_BYTES_MAX)
        if facts.form == IN_INODE:
            return bytes(facts.fork[:size])
        found = b""
        for offset, length in extents:
            block = max(self._geometry.block_size, 2 * _TARGET_BYTES_MAX)
            data = bytes(self._reader.read(offset, min(length, block), "symbolic link"))
            if data[:4] == _LINK_MARK:
                data = data[_LINK_HEAD : _LINK_HEAD + int.from_bytes(data[8:12], "big")]
            found += data[: size - len(found)]
        return found

    def _names(self, facts: Facts) -> Iterator[tuple[bytes, int]]:
        """Names and numbers of what is in a folder, block by block."""
        if facts.form == IN_INODE:
            yield from names_in_inode(facts.fork, has_types=self._has_types)
            return
        left = self._volume.size
        size = self._folder_block
        ahead = b""
        for position, offset, length in self._inodes.runs(facts):
            if not 0 <= position < DATA_END:
                continue
            left -= length
            if left < 0:
                raise CorruptImageError("a folder: expected blocks of its own")
            for start in range(offset, offset + length, _FOLDER_BLOCK_MAX):
                piece = min(_FOLDER_BLOCK_MAX, offset + length - start)
                ahead += bytes(self._reader.read(start, piece, "folder"))
                whole = len(ahead) - len(ahead) % size
                for at in range(0, whole, size):
                    block = ahead[at : at + size]
                    yield from names_in_block(block, has_types=self._has_types)
                ahead = ahead[whole:]


def _is_clean(reader: Reader, geometry: Geometry) -> bool:
    """Whether the disk has all that the log has."""
    log = Log(reader, geometry)
    try:
        last, _ = log.find_last()
    except (LogError, ReadError):
        return False
    return last is None or log.is_unmount(last)


def open_tree(volume: Source, _kind: str) -> XfsTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return XfsTree(volume)
