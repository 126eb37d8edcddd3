"""Inodes of ext by their numbers, and what they say of their files."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.core.units import KIB
from imprint.filesystems.ext.groups import read_group
from imprint.filesystems.ext.layout import Inode
from imprint.filesystems.tree import Times

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry

_PIECE_BYTES: Final = 32 * KIB
_PIECES_KEPT: Final = 64
_TABLES_KEPT: Final = 4096

_HALF: Final = struct.Struct("<H")
_OWNER_AT: Final = 2
_GROUP_AT: Final = 24
_UPPER: Final = struct.Struct("<HH")
_UPPER_AT: Final = 120
_TIMES: Final = struct.Struct("<iii")
_TIMES_AT: Final = 8
_EXTRA: Final = struct.Struct("<H2xIIIiI")
"""How far the further fields reach; what is added to change, modification and access; creation, and
what is added to that."""
_EXTRA_AT: Final = 128
_ACCESSED_END: Final = 16
_CREATED_END: Final = 24
_NS: Final = 1_000_000_000


class Facts(NamedTuple):
    """What an inode says.

    Attributes:
        raw: all of it.
        inode: the part that all have.
        owner: its number.
        group: its number.
        size: in bytes.
        times: of the file.
    """

    raw: memoryview
    inode: Inode
    owner: int
    group: int
    size: int
    times: Times


class Inodes:
    """Reads inodes; those beside one are kept for a while. For one thread."""

    def __init__(self, reader: VolumeReader, geometry: Geometry) -> None:
        """Nothing is read."""
        self._reader = reader
        self._geometry = geometry
        self._tables: dict[int, int] = {}
        self._pieces: dict[int, memoryview] = {}

    def raw(self, number: int) -> memoryview:
        """All of an inode.

        Raises:
            CorruptImageError: if there is none of that number.
            ReadError: if it cannot be read.
        """
        block = self._geometry.superblock
        if not 0 < number <= block.inode_count:
            raise CorruptImageError(f"expected one of {block.inode_count} inodes, found {number}")
        group, index = divmod(number - 1, block.inodes_per_group)
        table = self._tables.get(group)
        if table is None:
            found = read_group(self._reader, self._geometry, group)
            table = found.inode_table * self._geometry.block_size
            if len(self._tables) >= _TABLES_KEPT:
                self._tables.clear()
            self._tables[group] = table
        size, each = block.inode_size, _PIECE_BYTES // min(block.inode_size, _PIECE_BYTES)
        first = index - index % each
        place = table + first * size
        piece = self._pieces.get(place)
        if piece is None:
            count = min(each, block.inodes_per_group - first)
            try:
                piece = memoryview(self._reader.read(place, count * size, "inodes"))
            except (FormatError, ReadError):  # another one of them may be bad, or cut off
                return memoryview(self._reader.read(table + index * size, size, "inode"))
            if len(self._pieces) >= _PIECES_KEPT:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[place] = piece
        return piece[(index - first) * size :][:size]

    def facts(self, number: int) -> Facts:
        """What an inode says of its file.

        Raises:
            CorruptImageError: if there is none of that number.
            ReadError: if it cannot be read.
        """
        raw = self.raw(number)
        inode = Inode.unpack(raw)
        accessed, changed, modified = _TIMES.unpack_from(raw, _TIMES_AT)
        owner, group = _HALF.unpack_from(raw, _OWNER_AT)[0], _HALF.unpack_from(raw, _GROUP_AT)[0]
        owner_high, group_high = _UPPER.unpack_from(raw, _UPPER_AT)
        return Facts(
            raw,
            inode,
            owner | owner_high << 16,
            group | group_high << 16,
            inode.size_low | inode.size_high << 32,
            _times(raw, modified, accessed, changed),
        )


def _times(raw: memoryview, modified: int, accessed: int, changed: int) -> Times:
    """With what further fields say, as far as the inode has them.

    Source: Linux ``Documentation/filesystems/ext4/inodes.rst``, "Inode Timestamps".
    """
    reach = 0
    if len(raw) >= _EXTRA_AT + _EXTRA.size:
        reach, of_change, of_modification, of_access, created, of_creation = _EXTRA.unpack_from(
            raw, _EXTRA_AT
        )
    if reach < _ACCESSED_END:
        return Times(modified * _NS, accessed * _NS, changed * _NS)
    return Times(
        _time(modified, of_modification),
        _time(accessed, of_access),
        _time(changed, of_change),
        _time(created, of_creation) if reach >= _CREATED_END else None,
    )


def _time(seconds: int, more: int) -> int:
    """Two bits go on upwards, thirty are nanoseconds."""
    return (seconds + ((more & 3) << 32)) * _NS + (more >> 2)
