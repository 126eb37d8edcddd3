"""The headers and B-trees of an allocation group."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.geometry import has_checksum, numbers
from imprint.filesystems.xfs.layout import (
    BASIC_BLOCK,
    FreeListHeader,
    FreeSpaceHeader,
    InodeHeader,
    TreeBlock,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.xfs.geometry import Geometry, Reader

_LEVELS_MAX: Final = 16
_POINTER_BYTES: Final = 4


@dataclass(frozen=True)
class Kind:
    """A kind of tree inside of a group.

    Attributes:
        name: for errors.
        magics: of a block, in version 4 and version 5.
        record_bytes: of a record in a leaf.
        key_bytes: of a key in a node.
    """

    name: str
    magics: tuple[bytes, bytes]
    record_bytes: int
    key_bytes: int


BY_PLACE: Final = Kind("bnobt", (b"ABTB", b"AB3B"), 8, 8)
BY_LENGTH: Final = Kind("cntbt", (b"ABTC", b"AB3C"), 8, 8)
OWNERS: Final = Kind("rmapbt", (b"", b"RMB3"), 24, 40)
SHARED: Final = Kind("refcountbt", (b"", b"R3FC"), 12, 4)
INODES: Final = Kind("inobt", (b"IABT", b"IAB3"), 16, 4)
FREE_INODES: Final = Kind("finobt", (b"", b"FIB3"), 16, 4)


class Group:
    """One allocation group.

    Attributes:
        number: of the group.
        free: its AGF.
        inodes: its AGI.
        free_list: the blocks that AGFL keeps for its trees.
        newest: the largest sequence number (LSN) of what was read so far.
    """

    def __init__(self, reader: Reader, geometry: Geometry, number: int) -> None:
        """Read and check its headers.

        Raises:
            CorruptImageError: if they contradict themselves.
            ReadError: if they cannot be read.
        """
        self._reader = reader
        self._geometry = geometry
        self.number = number
        sector = geometry.superblock.sector_size
        data = memoryview(reader.read(self.offset(0), 4 * sector, f"headers of group {number}"))
        self.free = FreeSpaceHeader.unpack(data[sector : 2 * sector])
        self.inodes = InodeHeader.unpack(data[2 * sector : 3 * sector])
        self._check_headers(data, sector)
        self.newest = max(self.free.lsn, self.inodes.lsn) if geometry.is_v5 else 0
        self.free_list = self._read_free_list(data[3 * sector :])

    @property
    def length(self) -> int:
        """In blocks."""
        return self._geometry.group_length(self.number)

    def offset(self, block: int) -> int:
        """In bytes of the volume."""
        return self._geometry.offset(self.number, block)

    def tree(
        self, kind: Kind, root: int, levels: int, *, forgive: bool = False
    ) -> Iterator[tuple[int, TreeBlock, memoryview]]:
        """All blocks of a tree, from the root down, each level from left to right.

        Gives the block's number, its header, and its records if it is a leaf: ``count`` of them.
        With ``forgive``, blocks that are not what they have to be are left out.

        Raises:
            CorruptImageError: if they contradict themselves, or are not a tree.
            ReadError: if they cannot be read.
        """
        if not 0 < levels <= _LEVELS_MAX:
            raise self.error(kind.name, f"expected 1 to {_LEVELS_MAX} levels, found {levels}")
        row, seen = array("I", [root]), {root}
        for level in reversed(range(levels)):
            below = array("I")
            for number in row:
                try:
                    header, records = self._read_block(kind, number, level)
                except CorruptImageError:
                    if forgive:
                        continue
                    raise
                yield number, header, records
                if level:
                    below.extend(records)
            unique = set(below)
            if len(unique) < len(below) or not seen.isdisjoint(unique):
                raise self.error(kind.name, "expected a tree, found blocks with two parents")
            seen |= unique
            row = below

    def _read_block(self, kind: Kind, number: int, level: int) -> tuple[TreeBlock, memoryview]:
        """A block's header, and its records, or its pointers in our byte order."""
        geometry, size = self._geometry, self._geometry.block_size
        what = f"{kind.name} block {number}"
        if not geometry.header_blocks <= number < self.length:
            raise self.error(what, "expected a place inside the group")
        offset = self.offset(number)
        data = self._reader.read(offset, size, what)
        header = TreeBlock.unpack(data)
        if header.magic != kind.magics[geometry.is_v5] or header.level != level:
            raise self.error(
                what, f"expected level {level}, found {header.magic!r} of level {header.level}"
            )
        if geometry.is_v5:
            if header.place != offset // BASIC_BLOCK or header.owner != self.number:
                raise self.error(what, "expected a block that says it belongs here")
            self._check_seal(data, offset, layout.TREE_CRC_AT, header.uuid, what)
            self.newest = max(self.newest, header.lsn)
        start = TreeBlock.SIZE if geometry.is_v5 else layout.TREE_HEADER_V4
        room = size - start
        width = kind.key_bytes + _POINTER_BYTES if level else kind.record_bytes
        if header.count > room // width:
            raise self.error(what, f"expected up to {room // width} records")
        if not level:
            return header, memoryview(data)[start : start + header.count * width]
        if header.count == 0:
            raise self.error(what, "expected pointers, found none")
        start += room // width * kind.key_bytes
        return header, memoryview(numbers("I", data[start : start + header.count * _POINTER_BYTES]))

    def _check_headers(self, data: memoryview, sector: int) -> None:
        number, length = self.number, self.length
        for header, magic in ((self.free, layout.AGF_MAGIC), (self.inodes, layout.AGI_MAGIC)):
            found = header.magic, header.version, header.number, header.length
            if found != (magic, 1, number, length):
                raise self.error(type(header).__name__, "expected the header of this group")
        if not self._geometry.is_v5:
            return
        listed = FreeListHeader.unpack(data[3 * sector :])
        if (listed.magic, listed.number) != (layout.AGFL_MAGIC, number):
            raise self.error("FreeListHeader", "expected the header of this group")
        seals = (
            (1, layout.AGF_CRC_AT, self.free.uuid, "FreeSpaceHeader"),
            (2, layout.AGI_CRC_AT, self.inodes.uuid, "InodeHeader"),
            (3, layout.AGFL_CRC_AT, listed.uuid, "FreeListHeader"),
        )
        for index, at, uuid, what in seals:
            part = data[index * sector : (index + 1) * sector]
            self._check_seal(part, self.offset(0) + index * sector, at, uuid, what)

    def _check_seal(
        self, data: bytearray | memoryview, offset: int, at: int, uuid: bytes, what: str
    ) -> None:
        """Whose a structure of version 5 is, and whether it is whole."""
        if uuid != self._geometry.uuid:
            raise self.error(what, "expected the identity of this file system")
        if not self._reader.is_changed(offset, len(data)) and not has_checksum(data, at):
            raise self.error(what, "the checksum does not match")

    def _read_free_list(self, data: memoryview) -> list[int]:
        """Blocks of the list, which is a ring."""
        room = numbers("I", data[FreeListHeader.SIZE if self._geometry.is_v5 else 0 :])
        free = self.free
        if free.list_count == 0:
            return []
        if max(free.list_first, free.list_last, free.list_count - 1) >= len(room):
            raise self.error("FreeSpaceHeader", "expected a free list inside of its sector")
        if (free.list_last - free.list_first) % len(room) + 1 != free.list_count:
            raise self.error("FreeSpaceHeader", "expected as many blocks in the free list")
        found = [room[(free.list_first + i) % len(room)] for i in range(free.list_count)]
        if not all(self._geometry.header_blocks <= block < self.length for block in found):
            raise self.error("free list", "expected places inside the group")
        return found

    def error(self, what: str, problem: str) -> CorruptImageError:
        """What to raise if ``what`` of this group is not as it has to be."""
        return CorruptImageError(
            f"{what} of group {self.number}: {problem}",
            name=self._reader.name,
            offset=self.offset(0),
        )
