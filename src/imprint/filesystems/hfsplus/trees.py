"""The B-trees of HFS+, from leaf to leaf, and forks with more than eight extents.

Source: TN1150, "B-Trees" and "Extents Overflow File".
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import MIB
from imprint.filesystems.hfsplus import layout
from imprint.filesystems.hfsplus.layout import (
    Fork,
    NodeDescriptor,
    TreeHeader,
    VolumeHeader,
    extents_of,
    fork_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

FORK_BYTES_MAX: Final = 1024 * MIB
"""Of a bitmap or a tree: the bitmap of 32 TiB in blocks of 4 KiB has as much."""

_LEAF: Final = 0xFF
_NODE_SIZES: Final = tuple(512 << shift for shift in range(7))
_EXTENT_KEY_BYTES: Final = 10


class Volume:
    """A volume whose header was read.

    Attributes:
        header: of it.
        reader: of the volume, counted from its own start.
        overflow: further extents by file and fork: ``(file, fork)`` to blocks and counts.
    """

    def __init__(self, reader: VolumeReader) -> None:
        """Read the header and the tree of further extents.

        Raises:
            CorruptImageError: if they make no sense.
        """
        self.reader = reader
        self.header = _header(reader)
        self.overflow: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for record in self.leaves(fork_of(self.header.extents_fork), "extents tree"):
            if len(record) >= 2 + _EXTENT_KEY_BYTES + layout.EXTENTS_BYTES:
                key = (int.from_bytes(record[4:8]), record[2])
                self.overflow.setdefault(key, []).extend(extents_of(record[12:76]))

    def content(self, fork: Fork, number: int, what: str) -> bytes:
        """All of a special file; ``number`` is that of the file.

        Raises:
            CorruptImageError: if it is too large, or its extents are not all there.
        """
        if fork.size > min(FORK_BYTES_MAX, self.reader.size):
            raise CorruptImageError(
                f"{what}: expected at most {FORK_BYTES_MAX} bytes, found {fork.size}",
                name=self.reader.name,
            )
        unit, parts, left = self.header.block_size, [], fork.size
        for start, count in (*fork.extents, *self.overflow.get((number, 0), ())):
            length = min(left, count * unit)
            parts.append(bytes(self.reader.read(start * unit, length, what)))
            left -= length
        if left:
            raise CorruptImageError(
                f"{what}: expected extents for {left} more bytes", name=self.reader.name
            )
        return b"".join(parts)

    def leaves(self, fork: Fork, what: str, number: int = layout.EXTENTS_FILE) -> Iterator[bytes]:
        """The records of all leaves of a tree, in its order. None if the file is empty.

        Raises:
            CorruptImageError: if the tree cannot be followed.
        """
        if fork.size == 0:
            return
        tree = self.content(fork, number, what)
        header = TreeHeader.unpack(tree[NodeDescriptor.SIZE :], where=self.reader.name)
        size = header.node_size
        if size not in _NODE_SIZES:
            raise CorruptImageError(
                f"{what}: expected a size of nodes, found {size}", name=self.reader.name
            )
        node, seen = header.first_leaf, 0
        while node:
            seen += 1
            if (node + 1) * size > len(tree) or seen > len(tree) // size:
                raise CorruptImageError(
                    f"{what}: expected a chain of leaves, found node {node}",
                    name=self.reader.name,
                )
            content = tree[node * size : (node + 1) * size]
            descriptor = NodeDescriptor.unpack(content)
            if descriptor.kind != _LEAF:
                raise CorruptImageError(
                    f"{what}: expected node {node} to be a leaf", name=self.reader.name
                )
            yield from _records(content, min(descriptor.record_count, size // 2 - 7))
            node = descriptor.next_node


def _records(node: bytes, count: int) -> Iterator[bytes]:
    """Their offsets stand at the end of the node, in reverse; one more ends the last."""
    size = len(node)
    offsets = [
        int.from_bytes(node[size - 2 * index - 2 : size - 2 * index]) for index in range(count + 1)
    ]
    for start, end in itertools.pairwise(offsets):
        if NodeDescriptor.SIZE <= start < end <= size:
            yield node[start:end]


def _header(reader: VolumeReader) -> VolumeHeader:
    header = VolumeHeader.unpack(
        reader.read(layout.HEADER_OFFSET, VolumeHeader.SIZE, "volume header")
    )
    size = header.block_size
    expected = layout.VERSIONS.get(header.signature)
    need = [
        ("signature", expected is not None, "H+ or HX"),
        ("version", header.version == expected, str(expected)),
        ("block_size", size >= 512 and size.bit_count() == 1, "a power of two"),
        ("total_blocks", 0 < header.total_blocks * size <= reader.size, "blocks of the volume"),
    ]
    for field, holds, what in need:
        header.require(field, holds, what, where=reader.name, at=layout.HEADER_OFFSET)
    return header
