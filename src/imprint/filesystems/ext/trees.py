"""Which blocks an inode has: by its extent tree, or by its map of 15 block numbers."""

from __future__ import annotations

import struct
from itertools import islice, pairwise
from operator import sub
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.filesystems.ext.layout import (
    EXTENT_DEPTH_MAX,
    EXTENT_LENGTH_MAX,
    EXTENT_MAGIC,
    HAS_INLINE_DATA,
    TYPE_MASK,
    USES_EXTENTS,
    ExtentHeader,
    Inode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry

NODE: Final = -1
"""In place of a file's block: the piece is a block of the tree."""

_LINK: Final = 0xA000
_WITH_BLOCKS: Final = (0x8000, 0x4000, _LINK)
_DIRECT: Final = 12
_NUMBER_BYTES: Final = 4


class Piece(NamedTuple):
    """A run of blocks.

    Attributes:
        position: which block of the file is the first, or ``NODE``.
        block: where it is in the volume.
        length: how many follow each other in both.
    """

    position: int
    block: int
    length: int


class Trees:
    """Follows the trees of inodes. Each block of a tree may be met once: there are no loops."""

    def __init__(self, reader: VolumeReader, geometry: Geometry) -> None:
        self._reader = reader
        self._geometry = geometry
        self._seen: set[int] = set()

    def pieces(self, inode: Inode, number: int) -> Iterator[Piece]:
        """Blocks of an inode and of its tree; ``number`` is for errors.

        Raises:
            CorruptImageError: if they cannot be, or were met before.
            ReadError: if a block of the tree cannot be read.
        """
        if inode.flags & HAS_INLINE_DATA:
            return
        where = f"inode {number}"
        if inode.flags & USES_EXTENTS:
            yield from self._extents(inode.block, where, None)
        else:
            yield from self._mapped(inode.block, where)

    def extent(self, raw: bytes, where: str) -> Piece:
        """An entry of a leaf.

        Raises:
            CorruptImageError: if it is outside of the file system.
        """
        position, length, high, low = struct.unpack("<IHHI", raw)
        if length > EXTENT_LENGTH_MAX:
            length -= EXTENT_LENGTH_MAX
        return self._checked(Piece(position, low | high << 32, length), where)

    def _extents(self, node: bytes | memoryview, where: str, depth: int | None) -> Iterator[Piece]:
        header = ExtentHeader.unpack(node)
        is_valid = (
            header.magic == EXTENT_MAGIC
            and header.entry_count * ExtentHeader.SIZE <= len(node) - ExtentHeader.SIZE
            and (header.depth <= EXTENT_DEPTH_MAX if depth is None else header.depth == depth)
        )
        if not is_valid:
            raise self._corrupt(f"{where}: expected a node of an extent tree, found {header}")
        for index in range(1, header.entry_count + 1):
            entry = bytes(node[index * ExtentHeader.SIZE : (index + 1) * ExtentHeader.SIZE])
            if header.depth == 0:
                yield self.extent(entry, where)
                continue
            low, high = struct.unpack("<4xIH2x", entry)
            block = low | high << 32
            yield Piece(NODE, block, 1)
            yield from self._extents(self._node(block, where), where, header.depth - 1)

    def _mapped(self, raw: bytes, where: str) -> Iterator[Piece]:
        numbers = struct.unpack("<15I", raw)
        yield from self._data(numbers[:_DIRECT], 0, where)
        position, per_block = _DIRECT, self._geometry.block_size // _NUMBER_BYTES
        for level in range(3):
            yield from self._indirect(numbers[_DIRECT + level], level, position, where)
            position += per_block ** (level + 1)

    def _indirect(self, block: int, level: int, position: int, where: str) -> Iterator[Piece]:
        if block == 0:
            return
        yield Piece(NODE, block, 1)
        node = self._node(block, where)
        numbers = struct.unpack(f"<{len(node) // _NUMBER_BYTES}I", node)
        if level == 0:
            yield from self._data(numbers, position, where)
            return
        step = len(numbers) ** level
        for index, number in enumerate(numbers):
            yield from self._indirect(number, level - 1, position + index * step, where)

    def _data(self, numbers: Sequence[int], position: int, where: str) -> Iterator[Piece]:
        """Blocks that follow each other as one; 0 is a hole."""
        if not any(numbers):
            return
        steps = enumerate(map(sub, islice(numbers, 1, None), numbers), start=1)
        cuts = [0, *(index for index, step in steps if step != 1), len(numbers)]
        for start, end in pairwise(cuts):
            first = start if numbers[start] else start + 1
            if first < end:
                piece = Piece(position + first, numbers[first], end - first)
                yield self._checked(piece, where)

    def _node(self, block: int, where: str) -> memoryview:
        self._checked(Piece(NODE, block, 1), where)
        if block in self._seen:
            raise self._corrupt(f"{where}: expected a tree, found its block {block} twice")
        self._seen.add(block)
        size = self._geometry.block_size
        return memoryview(self._reader.read(block * size, size, f"tree of {where}"))

    def _checked(self, piece: Piece, where: str) -> Piece:
        if not 0 < piece.block <= self._geometry.block_count - piece.length:
            raise self._corrupt(
                f"{where}: expected blocks below {self._geometry.block_count}, "
                f"found {piece.block} + {piece.length}"
            )
        return piece

    def _corrupt(self, message: str) -> CorruptImageError:
        return CorruptImageError(message, name=self._geometry.where)


def has_blocks(inode: Inode) -> bool:
    """Whether ``block`` of an inode says where its blocks are: not for devices and short links."""
    kind = inode.mode & TYPE_MASK
    if kind == _LINK and inode.size_low < len(inode.block) and not inode.flags & USES_EXTENTS:
        return False
    return kind in _WITH_BLOCKS
