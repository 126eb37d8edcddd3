"""Thin volumes: which blocks of their pool they are made of.

The pool's metadata has a B+tree of devices, whose values are roots of B+trees of blocks.

Source: Linux ``drivers/md/dm-thin-metadata.c``, ``drivers/md/persistent-data/dm-btree-internal.h``.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, uint
from imprint.core.limits import VOLUME_PIECES_MAX
from imprint.filters.pieces import Piece
from imprint.volumes.members import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source

MAGIC: Final = 27022010
BLOCK_BYTES: Final = 4096
SECTOR_BYTES: Final = 512
_DEPTH_MAX: Final = 10
_LEAF: Final = 2
_INTERNAL: Final = 1
_NEEDS_CHECK: Final = 1
SUPERBLOCK_XOR: Final = 160774
NODE_XOR: Final = 121107
_TIME_BITS: Final = 24


class Superblock(Structure, size=344, endian="<"):
    """The first block of the metadata."""

    checksum: int = uint(4, at=0, doc="of the rest of the block")
    flags: int = uint(4, at=4, doc="bit 0: it has to be checked first")
    magic: int = uint(8, at=32, doc="MAGIC")
    version: int = uint(4, at=40, doc="1 or 2")
    mapping_root: int = uint(8, at=320, doc="block of the tree of devices")
    data_block_sectors: int = uint(4, at=336, doc="of a block of the pool")
    metadata_block_sectors: int = uint(4, at=340, doc="8")


class Node(Structure, size=32, endian="<"):
    """The head of a block of a tree; keys follow, then values, room for all of each."""

    checksum: int = uint(4, at=0, doc="of the rest of the block")
    kind: int = uint(4, at=4, doc="1: internal, 2: leaf")
    block: int = uint(8, at=8, doc="its own number")
    count: int = uint(4, at=16, doc="of entries")
    room: int = uint(4, at=20, doc="for entries")
    value_size: int = uint(4, at=24, doc="8 here")


def pieces_of(
    metadata: Source, data_size: int, device: int, size: int, count: Callable[[int], None]
) -> list[Piece]:
    """Where the bytes of a thin volume are in the data of its pool, which is member 0.

    Args:
        metadata: of the pool.
        data_size: of the pool, in bytes.
        device: number of the volume in the pool.
        size: of the volume, in bytes.
        count: told of each block of the metadata that is read; raises if they are too many.

    Raises:
        CorruptImageError: if the trees contradict themselves.
        UnsupportedFeatureError: if the pool needs a check, or the pieces are too many.
        ReadError: if the metadata cannot be read.
    """
    trees = _Trees(metadata, count)
    unit = trees.block_bytes
    root = next((value for key, value in trees.entries(trees.root) if key == device), None)
    if root is None:
        raise CorruptImageError(f"expected thin device {device} in the pool, found none")
    pieces: list[Piece] = []
    position = 0
    for key, value in trees.entries(root):
        start, place = key * unit, (value >> _TIME_BITS) * unit
        if start >= size:
            break
        length = min(unit, size - start)
        if place + length > data_size:
            raise CorruptImageError(f"expected blocks inside the pool, found 0x{place:x}")
        if start > position:
            pieces.append(Piece(position, start - position, None))
        last = pieces[-1] if pieces else None
        if last and last.member == 0 and last.member_offset + last.length == place:
            pieces[-1] = last._replace(length=last.length + length)
        else:
            pieces.append(Piece(start, length, 0, place))
        position = start + length
        if len(pieces) > VOLUME_PIECES_MAX:
            raise UnsupportedFeatureError(f"is in more than {VOLUME_PIECES_MAX} pieces")
    if position < size:
        pieces.append(Piece(position, size - position, None))
    return pieces


class _Trees:
    """Reads the trees of a pool, each block once."""

    def __init__(self, metadata: Source, count: Callable[[int], None]) -> None:
        self._metadata = metadata
        self._count = count
        self._seen: set[int] = set()
        data = self._block(0, SUPERBLOCK_XOR)
        block = Superblock.unpack(data)
        where = metadata.name
        block.require("magic", block.magic == MAGIC, f"0x{MAGIC:x}", where=where)
        if block.flags & _NEEDS_CHECK or block.version not in (1, 2):
            raise UnsupportedFeatureError("the thin pool has to be checked, or is of a new kind")
        sectors = block.metadata_block_sectors
        holds = sectors * SECTOR_BYTES == BLOCK_BYTES
        block.require("metadata_block_sectors", holds, "8", where=where)
        holds = 0 < block.data_block_sectors <= 1 << 21
        block.require("data_block_sectors", holds, "1 to 0x200000", where=where)
        self.root = block.mapping_root
        self.block_bytes = block.data_block_sectors * SECTOR_BYTES

    def entries(self, root: int) -> Iterator[tuple[int, int]]:
        """Keys and values of a tree, ascending."""
        before = -1
        for key, value in self._walk(root, 0):
            if key <= before:
                raise CorruptImageError("thin pool: expected ascending keys, found others")
            before = key
            yield key, value

    def _walk(self, number: int, depth: int) -> Iterator[tuple[int, int]]:
        if depth == _DEPTH_MAX or number in self._seen:
            raise CorruptImageError("thin pool: expected a tree, found a circle or no end of it")
        self._count(1)
        self._seen.add(number)
        data = self._block(number, NODE_XOR)
        node = Node.unpack(data)
        fits = Node.SIZE + node.room * 16 <= BLOCK_BYTES and node.count <= node.room
        is_node = node.kind in (_LEAF, _INTERNAL) and node.block == number
        if not is_node or not fits or node.value_size != 8:
            raise CorruptImageError(f"thin pool: expected a node in block {number}, found none")
        numbers = array("Q", data[Node.SIZE : Node.SIZE + node.room * 16])
        if sys.byteorder != "little":
            numbers.byteswap()
        found = zip(numbers[: node.count], numbers[node.room :], strict=False)
        if node.kind == _LEAF:
            yield from found
            return
        for _, child in found:
            yield from self._walk(child, depth + 1)

    def _block(self, number: int, mark: int) -> bytes:
        """A block of the metadata that matches its checksum."""
        data = read_bytes(self._metadata, number * BLOCK_BYTES, BLOCK_BYTES)
        expected = int.from_bytes(data[:4], "little")
        if crc32c(data[4:]) ^ 0xFFFFFFFF ^ mark != expected:
            raise CorruptImageError(
                f"thin pool: block {number} does not match its checksum", name=self._metadata.name
            )
        return data
