"""The folders of an F2FS, as its last checkpoint left them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.contents import PIECES_MAX, Run, extents_of, held, mapped
from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.attributes import attributes
from imprint.filesystems.f2fs.clusters import content
from imprint.filesystems.f2fs.layout import BLOCK
from imprint.filesystems.f2fs.names import names_in_block, names_in_inode, without_key
from imprint.filesystems.f2fs.nodes import Cluster, Nodes
from imprint.filesystems.f2fs.state import goes_on, read_state
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    OwnTree,
    Times,
    Type,
    bytes_of,
    no_stream,
    note_of,
    shown,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.f2fs.layout import Inode
    from imprint.filesystems.f2fs.nodes import Node
    from imprint.filesystems.tree import Attribute

_NS: Final = 1_000_000_000
_TARGET_BYTES_MAX: Final = 4096
_UNCLEAN: Final = "it was not unmounted: files that were synced after its last checkpoint lack"


class F2fsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if it has a feature that is not known, or a second device.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        self._state = read_state(self._reader)
        self._nodes = Nodes(self._reader, self._state)
        self._begin_at(self._entry("/", self._state.block.root_inode))
        is_clean = self._state.checkpoint.flags & layout.CP_UMOUNT
        if not is_clean or goes_on(self._reader, self._state):
            self._remark(_UNCLEAN)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; nothing is told of deleted names."""
        del deleted
        return self._each_entry(folder, self._names_in(folder), self._entry)

    def _names_in(self, folder: Entry) -> Iterator[tuple[bytes, int]]:
        """Names as Linux shows them, and numbers."""
        node = self._nodes.inode(folder.inode)
        if not stat.S_ISDIR(node.inode.mode):
            raise CorruptImageError("expected a folder")
        is_encrypted = bool(node.inode.advice & layout.ENCRYPTED)
        if is_encrypted:
            self.notes.append(note_of(folder.path, "the names in it are encrypted"))
        for name, number, hash_ in self._names(node):
            is_open = not is_encrypted or name in (b".", b"..")
            yield name if is_open else without_key(name, hash_), number

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        if entry.type is Type.LINK and entry.target is not None:
            return held(name, bytes_of(entry.target))
        node = self._nodes.inode(entry.inode)
        if node.inode.advice & layout.ENCRYPTED:
            raise UnsupportedFeatureError("it is encrypted", name=name)
        if entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        if node.inode.inline & layout.INLINE_DATA:
            return held(name, self._inline(node))
        runs = self._nodes.runs(node)
        return content(self._volume, runs, entry.size, node.inode.algorithm, name)

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        yield from attributes(self._nodes.attributes(self._nodes.inode(entry.inode)))

    def _inline(self, node: Node) -> bytes:
        """What stands in an inode behind its first address, as far as its size."""
        start, size = node.start + 4, node.inode.size
        if size > node.end - start:
            raise CorruptImageError(
                f"node {node.number}: expected at most {node.end - start} bytes in it, "
                f"found {size}",
                name=self._volume.name,
            )
        return node.content[start : start + size]

    def _names(self, node: Node) -> Iterator[tuple[bytes, int, int]]:
        """Names, numbers and hashes of what is in a folder, block by block."""
        if node.inode.inline & layout.INLINE_NAMES:
            yield from names_in_inode(node.content[node.start + 4 : node.end])
            return
        left = self._volume.size
        for run in self._nodes.runs(node):
            left -= run.length
            if isinstance(run, Cluster) or left < 0:
                raise CorruptImageError("expected a folder of blocks of its own, as they are")
            for place in range(run.offset, run.offset + run.length, BLOCK):
                yield from names_in_block(bytes(self._reader.read(place, BLOCK, "folder")))

    def _entry(self, path: str, number: int) -> Entry:
        node = self._nodes.inode(number)
        inode = node.inode
        type_ = TYPES_BY_MODE.get(stat.S_IFMT(inode.mode), Type.OTHER)
        extents: tuple[tuple[int, int], ...] = ()
        is_plain = False
        if type_ in (Type.FILE, Type.DIRECTORY, Type.LINK):
            extents, is_plain = self._extents(node)
        is_encrypted = bool(inode.advice & layout.ENCRYPTED)
        return Entry(
            path,
            number,
            type_,
            inode.size,
            self._times(inode),
            stat.S_IMODE(inode.mode),
            inode.owner,
            inode.group,
            inode.links,
            extents,
            self._target(node, extents) if type_ is Type.LINK and not is_encrypted else None,
            is_plain=is_plain and type_ is Type.FILE and not is_encrypted,
        )

    def _extents(self, node: Node) -> tuple[tuple[tuple[int, int], ...], bool]:
        """Where an inode's blocks are, of many the first ones; whether these are all there is."""
        found: list[tuple[int, int]] = []
        covered = 0
        is_plain = not node.inode.inline & layout.INLINE_CONTENT
        for run in self._nodes.runs(node):
            if len(found) > PIECES_MAX:
                return tuple(found), False
            is_plain = is_plain and run.position == covered and isinstance(run, Run)
            covered = run.position + run.length
            if isinstance(run, Run):
                places = [(run.offset, run.length)]
            else:
                places = [(place, BLOCK) for place in run.places]
            for offset, length in places:
                if found and sum(found[-1]) == offset:
                    found[-1] = (found[-1][0], found[-1][1] + length)
                else:
                    found.append((offset, length))
        return tuple(found), is_plain and covered >= node.inode.size

    def _target(self, node: Node, extents: tuple[tuple[int, int], ...]) -> str:
        if node.inode.inline & layout.INLINE_DATA:
            found = self._inline(node)
        else:
            size = min(node.inode.size, _TARGET_BYTES_MAX, extents[0][1] if extents else 0)
            place = extents[0][0] if extents else 0
            found = bytes(self._reader.read(place, size, "symbolic link"))
        return text_of(found)

    def _times(self, inode: Inode) -> Times:
        has_created = (
            inode.inline & layout.EXTRA_ATTRIBUTES
            and self._state.block.features & layout.CREATION_TIME
            and inode.extra_size >= layout.CREATION_TIME_END
        )
        return Times(
            inode.modified_s * _NS + inode.modified_ns,
            inode.accessed_s * _NS + inode.accessed_ns,
            inode.changed_s * _NS + inode.changed_ns,
            inode.created_s * _NS + inode.created_ns if has_created else None,
        )


def open_tree(volume: Source, _kind: str) -> F2fsTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return F2fsTree(volume)
