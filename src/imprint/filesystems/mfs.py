"""MFS, of the first Macs: one folder of files, and a map of the chains of their blocks.

The folders that the Finder showed on such a floppy are its own, and not told. Of names, times and
forks, what is said in :mod:`imprint.filesystems.hfs.tree` holds.

Source: Inside Macintosh, volume II, chapter 4, "Data Organization on Volumes".
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import div_up
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.contents import held, in_a_row, mapped
from imprint.filesystems.hfs.names import finder_info, name_of, times_of
from imprint.filesystems.probes.apple import HFS_OFFSET, SECTOR, MfsMasterBlock
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

_IN_USE: Final = 0x80
_FIRST_BLOCK: Final = 2
_LAST: Final = 1
"""In the map: no block follows."""


class FileEntry(Structure, size=51, endian=">"):
    """A file in the directory. Its name follows."""

    flags: int = uint(1, at=0, doc="bit 7: it is one")
    finder: bytes = raw(16, at=2, doc="type, creator, flags, place in a window")
    number: int = uint(4, at=18, doc="of the file")
    data_first: int = uint(2, at=22, doc="block; 0: none")
    data_size: int = uint(4, at=24, doc="of the data fork, in bytes")
    resource_first: int = uint(2, at=32, doc="block; 0: none")
    resource_size: int = uint(4, at=34, doc="of the resource fork, in bytes")
    created_s: int = uint(4, at=42, doc="since 1904, local time; 0: not known")
    modified_s: int = uint(4, at=46, doc="the same")
    name_length: int = uint(1, at=50, doc="of the name, in bytes")


class _Fork(NamedTuple):
    """One of the contents of a file: its size, and where it lies, ``None`` if that is not known."""

    size: int
    places: list[tuple[int, int]] | None


class _File(NamedTuple):
    entry: Entry
    finder: bytes
    data: _Fork
    resource: _Fork


class MfsTree(OwnTree):
    """See :class:`~imprint.filesystems.tree.FileTree`. All is read at once: it is small."""

    folds_case = True

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            ReadError: if it cannot be read.
        """
        super().__init__(volume)
        reader = VolumeReader(volume)
        block = MfsMasterBlock.unpack(reader.read(HFS_OFFSET, MfsMasterBlock.SIZE, "master block"))
        block.require("mark", block.is_sound, "an MFS", where=volume.name, at=HFS_OFFSET)
        self._unit, self._base = block.block_size, block.first_block * SECTOR
        self._map = _map_of(reader, block.block_count)
        self._taken = bytearray(block.block_count)
        self._begin_at(Entry("/", 0, Type.DIRECTORY, 0))
        start, length = block.directory_start * SECTOR, block.directory_length * SECTOR
        directory = bytes(reader.read(start, length, "directory"))
        files = [self._file(item, name) for item, name in _entries(directory)]
        self._files = {file.entry: file for file in files}
        if len(files) != block.file_count:
            found = f"expected {block.file_count} files, found {len(files)}"
            self.notes.append(note_of("/", found))

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """All files; names that were deleted are not kept."""
        del folder, deleted
        yield from self._files

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None and stream not in entry.streams:
            raise no_stream(stream, name)
        if entry.type is Type.DIRECTORY:
            return held(name, b"")
        file = self._found(entry)
        size, places = file.data if stream is None else file.resource
        if places is None:
            raise CorruptImageError(f"expected a chain of blocks for {size} bytes", name=name)
        return mapped(self._volume, in_a_row(places, size), size, name=name)

    def _attributes(self, entry: Entry) -> Iterable[Attribute]:
        return () if entry.type is Type.DIRECTORY else finder_info(self._found(entry).finder)

    def _found(self, entry: Entry) -> _File:
        found = self._files.get(entry)
        if found is None:
            raise CorruptImageError("expected a file of this volume", name=self._volume.name)
        return found

    def _file(self, item: FileEntry, name: bytes) -> _File:
        data = self._fork(item.data_size, item.data_first)
        resource = self._fork(item.resource_size, item.resource_first)
        end = self._volume.size
        places = [*(data.places or ()), *(resource.places or ())]
        entry = Entry(
            path_in(self._root, name_of(name)),
            item.number,
            Type.FILE,
            item.data_size,
            times_of(item.modified_s, item.created_s),
            extents=tuple((at, min(length, end - at)) for at, length in places if at < end),
            streams=(RESOURCE_FORK,) if item.resource_size else (),
            is_plain=data.places is not None and all(sum(place) <= end for place in data.places),
        )
        return _File(entry, item.finder, data, resource)

    def _fork(self, size: int, first: int) -> _Fork:
        """Where a fork lies. No block is in two of them, so that all chains together end."""
        found: list[tuple[int, int]] = []
        number = first if size else _LAST
        for _ in range(div_up(size, self._unit)):
            index = number - _FIRST_BLOCK
            if not 0 <= index < len(self._map) or self._taken[index]:
                return _Fork(size, None)
            self._taken[index] = 1
            place = self._base + index * self._unit
            if found and sum(found[-1]) == place:
                found[-1] = (found[-1][0], found[-1][1] + self._unit)
            else:
                found.append((place, self._unit))
            number = self._map[index]
        return _Fork(size, found)


def _map_of(reader: VolumeReader, count: int) -> array[int]:
    """What follows each block, from the first one on: 12 bits for each."""
    start = HFS_OFFSET + MfsMasterBlock.SIZE
    packed = reader.read(start, div_up(count * 3, 2), "map of blocks")
    number = int.from_bytes(packed) >> (count % 2 * 4)
    return array("H", (number >> 12 * at & 0xFFF for at in range(count - 1, -1, -1)))


def _entries(directory: bytes) -> Iterator[tuple[FileEntry, bytes]]:
    """All files, with their names. None crosses the border of a sector."""
    for start in range(0, len(directory), SECTOR):
        at, end = start, start + SECTOR
        while at + FileEntry.SIZE < end and directory[at] & _IN_USE:
            item = FileEntry.unpack(directory[at : at + FileEntry.SIZE])
            at += FileEntry.SIZE + item.name_length
            if at > end:
                break
            yield item, directory[at - item.name_length : at]
            at += at % 2


def open_tree(volume: Source, _kind: str) -> MfsTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    return MfsTree(volume)
