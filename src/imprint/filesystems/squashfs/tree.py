"""The folders of a SquashFS 4."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.contents import held
from imprint.filesystems.squashfs import layout
from imprint.filesystems.squashfs.attributes import Attributes
from imprint.filesystems.squashfs.compressors import unpacker
from imprint.filesystems.squashfs.data import Blocks, Content, Layout, Tail
from imprint.filesystems.squashfs.inodes import folder_items, inode_at
from imprint.filesystems.squashfs.layout import Superblock
from imprint.filesystems.squashfs.metadata import Cursor, Metadata
from imprint.filesystems.tree import (
    Entry,
    OwnTree,
    Times,
    Type,
    no_stream,
    shown,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.squashfs.inodes import Inode
    from imprint.filesystems.tree import Attribute

INODES_MAX: Final = 1 << 23
"""The place of each that was told takes 8 bytes: 64 MiB."""

BLOCKS_MAX: Final = 1 << 24
"""Of a file: 2 TiB in blocks of the usual size; 64 MiB of numbers."""

_LISTED_BLOCKS_MAX: Final = 1 << 16
"""Of a file whose places are told in a list of files: all have to be read for it."""

_NS: Final = 1_000_000_000


class SquashfsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`."""

    def __init__(self, volume: Source) -> None:
        """The file system that is at the start of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if it is of another version or byte order, or compressed in
                a way that is not known, or needs a library that is missing.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        self._super = _superblock(self._reader)
        unpack = unpacker(self._super.compressor, volume.name)
        self._metadata = Metadata(self._reader, unpack)
        self._blocks = Blocks(volume, unpack, self._super.block_size)
        self._ids = self._read_ids()
        self._fragments: array[int] | None = None
        self._shared: Attributes | None = None
        self._references = array("Q")
        self._begin_at(self._entry("/", self._super.root_inode))

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; nothing is ever deleted in a file system of this kind."""
        del deleted
        return self._each_entry(folder, self._names_in(folder), self._entry)

    def _names_in(self, folder: Entry) -> Iterator[tuple[bytes, int]]:
        """Names, and references to their inodes."""
        inode = self._inode(self._reference(folder))
        if inode.type is not Type.DIRECTORY:
            raise CorruptImageError("expected a folder")
        for item in folder_items(self._metadata, self._super.folder_table, inode):
            yield item.name, item.reference

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        inode = self._inode(self._reference(entry))
        if inode.type is Type.LINK:
            return held(name, inode.target)
        if inode.type is not Type.FILE:
            return held(name, b"")
        return Content(name, self._blocks, self._layout(inode))

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        number = self._inode(self._reference(entry)).attributes
        if number == layout.NO_ATTRIBUTES or self._super.attribute_table == layout.NO_TABLE:
            return
        if self._shared is None:
            table = self._super.attribute_table
            self._shared = Attributes(self._reader, self._metadata, table)
        yield from self._shared.of(number)

    def _inode(self, reference: int) -> Inode:
        return inode_at(self._metadata, self._super.inode_table, reference)

    def _entry(self, path: str, reference: int) -> Entry:
        inode = self._inode(reference)
        self._remember(inode.number, reference)
        extents: tuple[tuple[int, int], ...] = ()
        is_plain = False
        if inode.type is Type.FILE:
            extents, is_plain = self._extents(inode)
        return Entry(
            path,
            inode.number,
            inode.type,
            inode.size,
            Times(modified=inode.modified_s * _NS),
            inode.mode,
            self._id(inode.owner),
            self._id(inode.group),
            inode.links,
            extents,
            text_of(inode.target) if inode.type is Type.LINK else None,
            is_plain=is_plain,
        )

    def _remember(self, number: int, reference: int) -> None:
        """Keep where an inode is; its number does not tell it."""
        if not 0 < number <= self._super.inode_count:
            raise CorruptImageError(
                f"expected an inode from 1 to {self._super.inode_count}, found {number}"
            )
        missing = number + 1 - len(self._references)
        if missing > 0:
            self._references.frombytes(bytes(missing * self._references.itemsize))
        known = self._references[number]
        if known not in (0, reference + 1):
            raise CorruptImageError(f"inode {number}: expected one of this number, found two")
        self._references[number] = reference + 1

    def _reference(self, entry: Entry) -> int:
        return self._references[entry.inode] - 1

    def _extents(self, inode: Inode) -> tuple[tuple[tuple[int, int], ...], bool]:
        """Where a file lies, and whether it is nothing but that, as it is."""
        if inode.size > _LISTED_BLOCKS_MAX * self._super.block_size:
            return (), False
        found = self._layout(inode)
        stored = sum(found.lengths())
        extents = [(found.start, stored)] if stored else []
        if found.tail is not None and found.tail.is_stored:
            rest = inode.size % self._super.block_size
            extents.append((found.tail.place + found.tail.offset, rest))
        inside = all(start + length <= self._volume.size for start, length in extents)
        is_plain = found.is_stored and sum(length for _, length in extents) == inode.size
        return tuple(extents) if inside else (), inside and is_plain

    def _layout(self, inode: Inode) -> Layout:
        block_size = self._super.block_size
        count, rest = divmod(inode.size, block_size)
        tail = None
        if inode.fragment != layout.NO_FRAGMENT and rest:
            place, word = self._fragment(inode.fragment)
            tail = Tail(place, word, inode.offset)
        elif rest:
            count += 1
        if count > BLOCKS_MAX:
            raise UnsupportedFeatureError(
                f"inode {inode.number}: expected at most {BLOCKS_MAX} blocks, found {count}",
                name=self._volume.name,
            )
        words = array("I")
        words.frombytes(Cursor(self._metadata, *inode.blocks_at).read(count * words.itemsize))
        if sys.byteorder == "big":
            words.byteswap()
        return Layout(inode.size, inode.start, words, tail)

    def _fragment(self, number: int) -> tuple[int, int]:
        """Where a fragment block is, and what is said of it."""
        entry = layout.FRAGMENT
        if number >= self._super.fragment_count:
            raise CorruptImageError(
                f"expected one of {self._super.fragment_count} fragments, found {number}",
                name=self._volume.name,
            )
        if self._fragments is None:
            self._fragments = self._metadata.table(
                self._super.fragment_table, self._super.fragment_count, entry.size
            )
        block, index = divmod(number, layout.METADATA_BYTES // entry.size)
        data = Cursor(self._metadata, self._fragments[block], index * entry.size).read(entry.size)
        place, word = entry.unpack(data)
        return place, word

    def _read_ids(self) -> array[int]:
        """Owners and groups, by their index."""
        found = array("I")
        count = self._super.id_count
        places = self._metadata.table(self._super.id_table, count, found.itemsize)
        each = layout.METADATA_BYTES // found.itemsize
        for index, place in enumerate(places):
            part = min(each, count - index * each)
            found.frombytes(Cursor(self._metadata, place, 0).read(part * found.itemsize))
        if sys.byteorder == "big":
            found.byteswap()
        return found

    def _id(self, index: int) -> int:
        if index >= len(self._ids):
            raise CorruptImageError(f"expected one of {len(self._ids)} owners, found {index}")
        return self._ids[index]


def _superblock(reader: VolumeReader) -> Superblock:
    found = Superblock.unpack(reader.read(0, Superblock.SIZE, "superblock"), where=reader.name)
    if found.magic == layout.MAGIC_SWAPPED:
        raise UnsupportedFeatureError(
            "its files cannot be listed: expected SquashFS 4, found a big-endian older one",
            name=reader.name,
        )
    found.require("magic", found.magic == layout.MAGIC, "hsqs", where=reader.name)
    found.require(
        "version_major",
        found.version_major == 4 and found.version_minor == 0,
        "SquashFS 4.0",
        where=reader.name,
        error=UnsupportedFeatureError,
    )
    block = found.block_size
    found.require(
        "block_size",
        12 <= found.block_log <= 20 and block == 1 << found.block_log,
        "4 KiB to 1 MiB, and its logarithm beside it",
        where=reader.name,
    )
    found.require(
        "bytes_used",
        found.bytes_used <= reader.size,
        f"at most the volume's {reader.size} bytes",
        where=reader.name,
    )
    found.require(
        "inode_count",
        0 < found.inode_count <= INODES_MAX,
        f"1 to {INODES_MAX} inodes",
        where=reader.name,
        error=UnsupportedFeatureError,
    )
    return found


def open_tree(volume: Source, _kind: str) -> SquashfsTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return SquashfsTree(volume)
