"""B-trees: their nodes, each verified against what points to it, in the order of their keys."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.units import MIB
from imprint.filesystems.btrfs.geometry import is_sealed
from imprint.filesystems.btrfs.layout import NodeHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.btrfs.chunks import ChunkMap
    from imprint.filesystems.btrfs.geometry import Geometry

    Key = tuple[int, int, int]

_KEY: Final = struct.Struct("<QBQ")
_ITEM: Final = struct.Struct("<QBQII")
_POINTER: Final = struct.Struct("<QBQQQ")
_PIECE_BYTES: Final = MIB
"""What is read of a tree at once: its nodes are near each other, but not in order."""


class Item(NamedTuple):
    """What stands in a leaf. Object, kind and offset are its key.

    Attributes:
        owner: the object that it belongs to: an inode, an address, the identity of a tree.
        kind: see ``layout``.
        offset: what it means depends on the kind.
        data: the item itself.
    """

    owner: int
    kind: int
    offset: int
    data: memoryview


class Pointer(NamedTuple):
    """A reference to a node, and what the node has to be.

    Attributes:
        address: logical, of the node.
        generation: when it was written.
        level: 0 for a leaf.
        key: its first key; ``None`` for a root, of which nobody knows.
    """

    address: int
    generation: int
    level: int
    key: Key | None = None


class Node(NamedTuple):
    """A verified node.

    Attributes:
        address: logical.
        level: 0 for a leaf.
        item_count: or of pointers, if it is not a leaf.
        data: all of it.
    """

    address: int
    level: int
    item_count: int
    data: memoryview

    def keyed(self, since: Key | None = None) -> Iterator[tuple[int, int, int, int, int]]:
        """Of a leaf: key, and where and how long the data is, not yet verified.

        With ``since``, but for those whose keys come before, if they are in order.
        """
        first = 0 if since is None else self._place(bisect_left, since, _ITEM.size)
        start, end = (NodeHeader.SIZE + at * _ITEM.size for at in (first, self.item_count))
        return _ITEM.iter_unpack(self.data[start:end])

    def items(self, *kinds: int, since: Key | None = None) -> Iterator[Item]:
        """Of a leaf: those of some kinds, or all; their data is not longer than the leaf."""
        for owner, kind, offset, start, size in self.keyed(since):
            if not kinds or kind in kinds:
                at = start + NodeHeader.SIZE
                yield Item(owner, kind, offset, self.data[at : at + size])

    def pointers(self, since: Key | None = None, until: Key | None = None) -> list[Pointer]:
        """To the nodes below, but for those with keys before ``since`` only.

        With ``until``, no more than the first one whose keys all come behind that.
        """
        size = _POINTER.size
        first, last = 0, self.item_count
        if since is not None:
            first = max(self._place(bisect_right, since, size) - 1, 0)
        if until is not None:
            last = min(self._place(bisect_right, until, size) + 1, last)
        start, end = NodeHeader.SIZE + first * size, NodeHeader.SIZE + last * size
        level = self.level - 1
        return [
            Pointer(address, generation, level, (owner, kind, offset))
            for owner, kind, offset, address, generation in _POINTER.iter_unpack(
                self.data[start : max(start, end)]
            )
        ]

    def _place(self, bisect: Callable[..., int], key: Key, width: int) -> int:
        """Where a key belongs among those of the node."""
        data, start = self.data, NodeHeader.SIZE
        found: int = bisect(
            range(self.item_count),
            key,
            key=lambda index: _KEY.unpack_from(data, start + index * width),
        )
        return found


class Trees:
    """Reads nodes of a volume. For one thread.

    Attributes:
        repaired: how many nodes were damaged in one copy, and sound in another.
    """

    def __init__(self, reader: VolumeReader, geometry: Geometry, chunks: ChunkMap) -> None:
        """Take all chunks that nodes may be in."""
        self.repaired = 0
        self._reader = reader
        self._geometry = geometry
        self._chunks = chunks

    def walk(
        self,
        root: Pointer,
        enter: Callable[[int], bool],
        *,
        since: Key | None = None,
        forgive: bool = False,
    ) -> Iterator[Node]:
        """All nodes of a tree, each before those below it, leaves in the order of their keys.

        Args:
            root: of the tree.
            enter: is asked for every node, by its address; ``False`` leaves out all of it.
            since: leave out what has keys before this one only.
            forgive: leave out as well what does not verify.

        Raises:
            CorruptImageError: if a node is not what its pointer says.
            ReadError: if no copy of a node can be read.
        """
        return self._walk([root], enter, since, forgive=forgive)

    def node(self, pointer: Pointer) -> Node:
        """What a pointer leads to.

        Raises:
            CorruptImageError: if it is not what the pointer says.
            ReadError: if no copy of it can be read.
        """
        (found,) = self._load([pointer], forgive=False)
        return found

    def whole(self, root: Pointer) -> Iterator[Node]:
        """All nodes of a tree, in which none may be met twice.

        Raises:
            CorruptImageError: if one is, or as :meth:`walk`.
            ReadError: as :meth:`walk`.
        """
        seen: set[int] = set()

        def enter(address: int) -> bool:
            if address in seen:
                raise CorruptImageError(
                    f"node {address}: expected a tree, found a loop", name=self._reader.name
                )
            seen.add(address)
            return True

        return self.walk(root, enter)

    def _walk(
        self,
        pointers: list[Pointer],
        enter: Callable[[int], bool],
        since: Key | None,
        *,
        forgive: bool,
    ) -> Iterator[Node]:
        step = _PIECE_BYTES // self._geometry.node_size
        for at in range(0, len(pointers), step):
            piece = [pointer for pointer in pointers[at : at + step] if enter(pointer.address)]
            for node in self._load(piece, forgive=forgive):
                yield node
                if node.level:
                    below = node.pointers(since)
                    yield from self._walk(below, enter, since, forgive=forgive)

    def _load(self, pointers: list[Pointer], *, forgive: bool) -> list[Node]:
        """Nodes in the order of their pointers, read in the order of their places."""
        size = self._geometry.node_size
        places: dict[int, list[int]] = {}
        for pointer in pointers:
            try:
                places[pointer.address] = self._chunks.places(pointer.address, size)
            except CorruptImageError:
                if not forgive:
                    raise
        raw = self._read_adjacent(sorted(copies[0] for copies in places.values()))
        found = []
        for pointer in pointers:
            if pointer.address not in places:
                continue
            try:
                found.append(self._node(pointer, places[pointer.address], raw))
            except (CorruptImageError, ReadError):
                if not forgive:
                    raise
        return found

    def _read_adjacent(self, places: list[int]) -> dict[int, memoryview]:
        """Nodes by their places, ascending; what cannot be read is missing."""
        size = self._geometry.node_size
        found: dict[int, memoryview] = {}
        first = 0
        for index in range(1, len(places) + 1):
            if index < len(places) and places[index] == places[index - 1] + size:
                continue
            try:
                data = memoryview(
                    self._reader.read(places[first], (index - first) * size, "tree nodes")
                )
            except ReadError:
                data = memoryview(b"")  # each is tried on its own, in all its copies
            for at in range(0, len(data), size):
                found[places[first] + at] = data[at : at + size]
            first = index
        return found

    def _node(self, pointer: Pointer, places: list[int], raw: dict[int, memoryview]) -> Node:
        """A node, from the first of its copies that is sound."""
        failure: CorruptImageError | ReadError | None = None
        for place in places:
            try:
                data = raw.get(place)
                if data is None:
                    size = self._geometry.node_size
                    data = memoryview(self._reader.read(place, size, "tree node"))
                node = self._verified(pointer, data)
            except (CorruptImageError, ReadError) as error:
                failure = failure or error
                continue
            self.repaired += failure is not None
            return node
        assert failure is not None
        raise failure

    def _verified(self, pointer: Pointer, data: memoryview) -> Node:
        if not is_sealed(self._geometry.checksum, data):
            raise self._error(pointer, "the checksum does not match")
        header = NodeHeader.unpack(data)
        if header.uuid != self._geometry.uuid:
            raise self._error(pointer, "expected the identity of this file system")
        expected = pointer.address, pointer.level, pointer.generation
        found = header.own_address, header.level, header.generation
        if found != expected:
            raise self._error(
                pointer, f"expected address, level, generation {expected}, found {found}"
            )
        width = _POINTER.size if header.level else _ITEM.size
        if header.count * width > len(data) - NodeHeader.SIZE:
            raise self._error(pointer, f"expected fewer items, found {header.count}")
        is_root = pointer.key is None
        if header.count == 0 and not (is_root and header.level == 0):
            raise self._error(pointer, "expected items, found none")
        if not is_root and _KEY.unpack_from(data, NodeHeader.SIZE) != pointer.key:
            raise self._error(pointer, "expected another first key")
        return Node(header.own_address, header.level, header.count, data)

    def _error(self, pointer: Pointer, problem: str) -> CorruptImageError:
        return CorruptImageError(f"node {pointer.address}: {problem}", name=self._reader.name)
