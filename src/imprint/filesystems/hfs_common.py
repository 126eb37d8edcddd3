"""What HFS and HFS+ have in common: B-trees, and how a volume says that it is sound.

Source: Inside Macintosh: Files, chapter 2, "B*-Trees"; Apple Technical Note TN1150, "B-Trees".
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, uint
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.filesystems.allocation import VolumeReader

FORK_BYTES_MAX: Final = 1024 * MIB
"""Of a bitmap or a tree: the bitmap of 32 TiB in blocks of 4 KiB has as much."""

UNMOUNTED: Final = 1 << 8
INCONSISTENT: Final = 1 << 11
"""Attributes of a volume."""

INDEX: Final = 0
LEAF: Final = 0xFF

_NODE_SIZES: Final = tuple(512 << shift for shift in range(7))


class NodeDescriptor(Structure, size=14, endian=">"):
    """The head of each node of a tree."""

    next_node: int = uint(4, at=0, doc="of the same kind; 0: none")
    kind: int = uint(1, at=8, doc="0xff leaf, 0 index, 1 header, 2 map")
    record_count: int = uint(2, at=10, doc="their offsets stand at the node's end")


class TreeHeader(Structure, size=106, endian=">"):
    """The first record of a tree's first node."""

    root: int = uint(4, at=2, doc="node number; 0: the tree is empty")
    first_leaf: int = uint(4, at=10, doc="node number; 0: the tree is empty")
    node_size: int = uint(2, at=18, doc="512 to 32768; 512 in HFS")
    node_count: int = uint(4, at=22, doc="in the file")


class SpecialFile:
    """The bitmap, or a file with a tree, read piece by piece.

    Attributes:
        size: in bytes.
        reader: of the volume.
        what: it is, for errors.
    """

    def __init__(
        self,
        reader: VolumeReader,
        unit: int,
        extents: Iterable[tuple[int, int]],
        size: int,
        what: str,
        *,
        base: int = 0,
    ) -> None:
        """``unit`` is a block's size, ``extents`` are first blocks and counts.

        ``base`` is where block 0 is, in bytes of the volume. What the volume does not have, since
        it was cut short, is an error when it is read.

        Raises:
            CorruptImageError: if it is too large, or its extents are not all there, or lie over
                each other.
        """
        self.reader, self.size, self.what = reader, size, what
        if size > FORK_BYTES_MAX:
            raise CorruptImageError(
                f"{what}: expected at most {FORK_BYTES_MAX} bytes, found {size}", name=reader.name
            )
        pairs = [(base + start * unit, count * unit) for start, count in extents]
        self._places = [place for place, _ in pairs]
        self._ends = list(itertools.accumulate(length for _, length in pairs))
        total = self._ends[-1] if pairs else 0
        if any(sum(first) > second[0] for first, second in itertools.pairwise(sorted(pairs))):
            raise CorruptImageError(f"{what}: expected extents beside each other", name=reader.name)
        if total < size:
            raise CorruptImageError(
                f"{what}: expected extents for {size - total} more bytes", name=reader.name
            )

    def read(self, offset: int, length: int) -> bytes:
        """Some bytes of it, which have to be inside of it.

        Raises:
            CorruptImageError: if they are not inside the volume, or it has asked for too much.
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


class Leaf(NamedTuple):
    """A node with records.

    Attributes:
        number: of the node.
        records: in it, keys and data; see :meth:`Tree.records`.
    """

    number: int
    records: Iterator[bytes]


class Tree:
    """A tree in a file.

    Attributes:
        header: of it.
    """

    def __init__(self, file: SpecialFile) -> None:
        """Read the header.

        Raises:
            CorruptImageError: if it is none.
            ReadError: if it cannot be read.
        """
        self._file = file
        self._name = file.reader.name
        head = file.read(0, min(file.size, NodeDescriptor.SIZE + TreeHeader.SIZE))
        self.header = TreeHeader.unpack(head[NodeDescriptor.SIZE :], where=self._name)
        size = self.header.node_size
        if size not in _NODE_SIZES:
            raise CorruptImageError(
                f"{file.what}: expected a size of nodes, found {size}", name=self._name
            )
        self._count = file.size // size

    def node(self, number: int) -> tuple[NodeDescriptor, bytes]:
        """A node, and how it begins.

        Raises:
            CorruptImageError: if the file does not have it.
            ReadError: if it cannot be read.
        """
        if number >= self._count:
            raise self.odd(f"one of {self._count} nodes", number)
        size = self.header.node_size
        content = self._file.read(number * size, size)
        return NodeDescriptor.unpack(content), content

    def leaves(self, first: int | None = None) -> Iterator[Leaf]:
        """The records of each leaf, from the first one on, or from another; in the tree's order.

        Raises:
            CorruptImageError: if the chain cannot be followed.
            ReadError: if a leaf cannot be read.
        """
        number = self.header.first_leaf if first is None else first
        seen = bytearray(self._count)
        while number:
            descriptor, content = self.node(number)
            if seen[number]:
                raise self.odd("a chain of leaves", number)
            seen[number] = 1
            if descriptor.kind != LEAF:
                raise self.odd("a leaf", number)
            yield Leaf(number, self.records(number, descriptor, content))
            number = descriptor.next_node

    def records(self, number: int, descriptor: NodeDescriptor, content: bytes) -> Iterator[bytes]:
        """What is in a node. Offsets stand at its end, in reverse; one more ends the last record.

        Raises:
            CorruptImageError: behind those that are there, if others are not.
        """
        size = len(content)
        count = min(descriptor.record_count, size // 2 - 7)
        is_whole = count == descriptor.record_count
        offsets = [
            int.from_bytes(content[size - 2 * index - 2 : size - 2 * index])
            for index in range(count + 1)
        ]
        for start, end in itertools.pairwise(offsets):
            if NodeDescriptor.SIZE <= start < end <= size:
                yield content[start:end]
            else:
                is_whole = False
        if not is_whole:
            raise self.odd("records one behind the other", number)

    def odd(self, expected: str, number: int) -> CorruptImageError:
        """The error of a node that is not what it should be."""
        return CorruptImageError(
            f"{self._file.what}: expected {expected}, found node {number}", name=self._name
        )


def doubts(attributes: int, expected: int, found: int) -> Iterator[str]:
    """Why a map may be behind the times: attributes of the volume, and counts of free blocks."""
    if found != expected:
        yield f"expected {expected} free blocks, found {found}"
    if attributes & INCONSISTENT:
        yield "it was not unmounted, or needs to be checked"
    elif not attributes & UNMOUNTED:
        yield "it was not unmounted"
