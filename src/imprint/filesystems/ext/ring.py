"""The journal as a file: where its blocks are, and what its superblock says of them."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import KIB
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext import layout
from imprint.filesystems.ext.checksums import checksum
from imprint.filesystems.ext.groups import read_group
from imprint.filesystems.ext.layout import Inode, JournalSuperblock
from imprint.filesystems.ext.trees import NODE, Piece, Trees

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.filesystems.ext.geometry import Geometry

BLOCK_COUNT_MAX: Final = 1 << 20
"""4 GiB at 4 KiB a block, four times what ``mke2fs`` makes."""

_PIECE_COUNT_MAX: Final = 1 << 16
_LOG_BLOCKS_MIN: Final = 1024
"""A log is not made shorter than this by fast commits: Linux ``JBD2_MIN_JOURNAL_BLOCKS``."""

_CHECKSUM_AT: Final = JournalSuperblock.FIELDS["checksum"].at


class Ring:
    """Blocks of a journal, counted from its start.

    Attributes:
        superblock: of the journal; one of version 1 has no features.
        where: the volume's name, for errors.
        first: block of the log.
        end: block behind the log; what follows are fast commits.
        count: of blocks in all.
    """

    def __init__(self, volume: Source, geometry: Geometry) -> None:
        """Find the journal's blocks, and check its superblock.

        Raises:
            CorruptImageError: if they contradict themselves.
            UnsupportedFeatureError: if it has features that are not known.
            ReadError: if they cannot be read.
        """
        reader = VolumeReader(volume)
        self.where = volume.name
        self._block_size = geometry.block_size
        self._volume_size = volume.size
        self._pieces = _pieces(reader, geometry)
        self._positions = [piece.position for piece in self._pieces]
        # What the log can make us read: itself, with its tables and data apart.
        budget = 2 * sum(piece.length for piece in self._pieces) * self._block_size
        self._reader = VolumeReader(volume, budget=budget + KIB)
        data = self._reader.read(self.offset(0), JournalSuperblock.SIZE, "superblock of journal")
        self.superblock = self._checked(data)
        self.first = self.superblock.first
        self.end = self.count = self.superblock.block_count
        if self.superblock.incompat & layout.JOURNAL_FAST_COMMIT:
            fast = self.superblock.fast_commit_blocks or layout.FAST_COMMIT_BLOCKS
            if self.count - fast >= _LOG_BLOCKS_MIN:
                self.end = self.count - fast
        start = self.superblock.start
        is_valid = start == 0 or self.first <= start < self.end
        self._require("start", is_valid, "0 or a block of the log")

    def offset(self, position: int) -> int:
        """Where a block is in the volume, in bytes.

        Raises:
            CorruptImageError: if the journal has no such block.
        """
        index = bisect_right(self._positions, position) - 1
        if index >= 0:
            piece = self._pieces[index]
            if position < piece.position + piece.length:
                return (piece.block + position - piece.position) * self._block_size
        raise CorruptImageError(
            f"journal: expected its block {position} in the volume, found a hole", name=self.where
        )

    def read(self, position: int, count: int) -> memoryview:
        """Blocks that follow each other, in one piece of the journal."""
        length = count * self._block_size
        return memoryview(self._reader.read(self.offset(position), length, "journal"))

    def wrapped(self, position: int) -> int:
        """The block of the log that a number means which went beyond its end."""
        return position if position < self.end else position - self.end + self.first

    def check(self, block: int) -> None:
        """Refuse a block of the volume that is outside of it.

        Raises:
            CorruptImageError: if it is.
        """
        self._reader.check(block * self._block_size, self._block_size, "block in the journal")

    def _checked(self, data: bytearray) -> JournalSuperblock:
        block = JournalSuperblock.unpack(data, where=self.where)
        self.superblock = block
        self._require("magic", block.magic == layout.JOURNAL_MAGIC, f"0x{layout.JOURNAL_MAGIC:x}")
        versions = (layout.SUPERBLOCK_V1, layout.SUPERBLOCK_V2)
        self._require("block_type", block.block_type in versions, "3 or 4")
        size = self._block_size
        self._require("block_size", block.block_size == size, "that of the file system")
        last = self._pieces[-1]
        length = min(last.position + last.length, BLOCK_COUNT_MAX)
        self._require("block_count", block.block_count <= length, f"at most {length}")
        self._require("first", 0 < block.first < block.block_count, "a block of the journal")
        if block.block_type == layout.SUPERBLOCK_V1:
            return block.replace(compat=0, incompat=0, ro_compat=0)
        unknown = (
            block.incompat & ~layout.JOURNAL_INCOMPAT_KNOWN
            | block.ro_compat
            | block.compat & ~layout.JOURNAL_COMPAT_CHECKSUM
        )
        if unknown:
            raise UnsupportedFeatureError(
                f"journal: expected features that are known, found 0x{unknown:x}", name=self.where
            )
        if block.incompat & (layout.JOURNAL_CSUM_V2 | layout.JOURNAL_CSUM_V3):
            head, tail = data[:_CHECKSUM_AT], data[_CHECKSUM_AT + 4 :]
            expected = checksum(head + bytes(4) + tail)
            self._require("checksum", block.checksum == expected, f"0x{expected:x}")
        return block

    def _require(self, field: str, holds: bool, expected: str) -> None:  # noqa: FBT001
        self.superblock.require(field, holds, expected, where=self.where, at=self.offset(0))


def _pieces(reader: VolumeReader, geometry: Geometry) -> list[Piece]:
    """The data of the journal's inode, in order."""
    number = geometry.superblock.journal_inode
    inode = read_inode(reader, geometry, number)
    pieces = []
    for piece in Trees(reader, geometry).pieces(inode, number):
        if piece.position != NODE:
            pieces.append(piece)
        if len(pieces) > _PIECE_COUNT_MAX:
            break
    if not 0 < len(pieces) <= _PIECE_COUNT_MAX:
        raise CorruptImageError(
            f"journal: expected 1 to {_PIECE_COUNT_MAX} runs of blocks, found {len(pieces)}",
            name=reader.name,
        )
    return sorted(pieces)


def read_inode(reader: VolumeReader, geometry: Geometry, number: int) -> Inode:
    """An inode by its number, which counts from 1.

    Raises:
        CorruptImageError: if there is no such inode.
    """
    block = geometry.superblock
    if not 0 < number <= block.inode_count:
        raise CorruptImageError(
            f"expected one of {block.inode_count} inodes, found number {number}", name=reader.name
        )
    group, index = divmod(number - 1, block.inodes_per_group)
    table = read_group(reader, geometry, group).inode_table * geometry.block_size
    return Inode.unpack(reader.read(table + index * block.inode_size, Inode.SIZE, "inode"))
