"""The B-trees of HFS+, from leaf to leaf, and forks with more than eight extents.

Source: TN1150, "B-Trees" and "Extents Overflow File".
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
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


class SpecialFile:
    """The bitmap, or a file with a tree, read piece by piece.

    Attributes:
        size: in bytes.
        reader: of the volume.
        what: it is, for errors.
    """

    def __init__(
        self, reader: VolumeReader, unit: int, extents: list[tuple[int, int]], size: int, what: str
    ) -> None:
        """``unit`` is a block's size in bytes, ``extents`` are first blocks and counts.

        Raises:
            CorruptImageError: if it is too large, or its extents are not all there, not inside
                the volume, or lie over each other.
        """
        self.reader, self.size, self.what = reader, size, what
        if size > min(FORK_BYTES_MAX, reader.size):
            raise CorruptImageError(
                f"{what}: expected at most {FORK_BYTES_MAX} bytes, found {size}", name=reader.name
            )
        self._places = [start * unit for start, _ in extents]
        lengths = [count * unit for _, count in extents]
        self._ends = list(itertools.accumulate(lengths))
        for place, length in zip(self._places, lengths, strict=True):
            reader.check(place, length, what)
        total = sum(lengths)
        if Runs.of(zip(self._places, lengths, strict=True)).total != total:
            raise CorruptImageError(f"{what}: expected extents beside each other", name=reader.name)
        if total < size:
            raise CorruptImageError(
                f"{what}: expected extents for {size - total} more bytes", name=reader.name
            )

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes of it, which have to be inside of it.

        Raises:
            CorruptImageError: if the volume has asked for too much.
            ReadError: if they cannot be read.
        """
        index, parts = bisect_right(self._ends, offset), []
        while length:
            count = min(length, self._ends[index] - offset)
            start = self._ends[index - 1] if index else 0
            place = self._places[index] + offset - start
            parts.append(bytes(self.reader.read(place, count, self.what)))
            offset, length, index = offset + count, length - count, index + 1
        return b"".join(parts)


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

    def file(self, fork: Fork, number: int, what: str) -> SpecialFile:
        """A special file; ``number`` is that of the file.

        Raises:
            CorruptImageError: if it is too large, or its extents are not all there.
        """
        extents = [*fork.extents, *self.overflow.get((number, 0), ())]
        return SpecialFile(self.reader, self.header.block_size, extents, fork.size, what)

    def leaves(self, fork: Fork, what: str, number: int = layout.EXTENTS_FILE) -> Iterator[bytes]:
        """The records of all leaves of a tree, in its order. None if the file is empty.

        Raises:
            CorruptImageError: if the tree cannot be followed.
        """
        if fork.size == 0:
            return
        tree = self.file(fork, number, what)
        head = tree.read(0, min(tree.size, NodeDescriptor.SIZE + TreeHeader.SIZE))
        header = TreeHeader.unpack(head[NodeDescriptor.SIZE :], where=self.reader.name)
        size = header.node_size
        if size not in _NODE_SIZES:
            raise CorruptImageError(
                f"{what}: expected a size of nodes, found {size}", name=self.reader.name
            )
        node, seen = header.first_leaf, bytearray(tree.size // size)
        while node:
            if node >= len(seen) or seen[node]:
                raise CorruptImageError(
                    f"{what}: expected a chain of leaves, found node {node}",
                    name=self.reader.name,
                )
            seen[node] = 1
            content = tree.read(node * size, size)
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
