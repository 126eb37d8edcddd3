"""The tree of a snapshot: leaves say what a part of a disk is made of, branches where leaves are.

Nodes are chunks, named by their content, so trees of similar disks share them.
Source: ``docs/repository-format.md``, Nodes.
"""

from __future__ import annotations

import enum
import struct
import sys
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RepositoryError
from imprint.repository.columns import little

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME_BYTES: Final = 32
CHILDREN_MAX: Final = 1024
ENTRIES_MAX: Final = 8192
DEPTH_MAX: Final = 8
SIZE_MAX: Final = 1 << 63
"""Of a disk: far more than any, and sums of offsets stay inside of 64 bits."""

_NODES_KEPT: Final = 1024
"""Of a tree that is being read: some megabytes, and more than random reads come back to."""

_HEAD: Final = struct.Struct("<B3xI")
_U64: Final = struct.Struct("<Q")
_LEAF: Final = 1
_BRANCH: Final = 2


class Piece(enum.IntEnum):
    """What an entry of a leaf is. All but ``DATA`` read as zeros."""

    DATA = 0
    """A chunk."""
    ZERO = 1
    """Was read, and was zeros."""
    HOLE = 2
    """Was not read: the source said that nothing is there."""
    UNUSED = 3
    """Was not read: no file system uses it."""
    BAD = 4
    """Could not be read."""


@dataclass(frozen=True)
class Leaf:
    """What a stretch of the disk is made of.

    Attributes:
        start: offset of the disk at which it begins.
        kinds: a :class:`Piece` for each entry.
        lengths: of each entry, in bytes.
        names: of the chunks of the ``DATA`` entries, 32 bytes each.
    """

    start: int
    kinds: bytes
    lengths: array[int]
    names: bytes

    @cached_property
    def borders(self) -> list[int]:
        """Offsets of the disk at which entries begin, and the end of the last."""
        return list(accumulate(self.lengths, initial=self.start))

    @property
    def end(self) -> int:
        """The first byte of the disk behind the leaf."""
        return self.borders[-1]

    def entry_at(self, offset: int) -> int:
        """The number of the entry that holds a byte of the leaf."""
        return bisect_right(self.borders, offset) - 1

    def name_of(self, entry: int) -> bytes:
        """The chunk of a ``DATA`` entry."""
        at = self.kinds.count(Piece.DATA, 0, entry) * NAME_BYTES
        return self.names[at : at + NAME_BYTES]

    def encode(self) -> bytes:
        """As a node's bytes."""
        return b"".join(
            (
                _HEAD.pack(_LEAF, len(self.kinds)),
                _U64.pack(self.start),
                self.kinds,
                little(self.lengths),
                self.names,
            )
        )


@dataclass(frozen=True)
class Branch:
    """Where the nodes below are.

    Attributes:
        starts: offsets of the disk at which the children begin.
        end: the offset at which the last of them ends.
        names: of the children, 32 bytes each.
    """

    starts: array[int]
    end: int
    names: bytes

    @property
    def start(self) -> int:
        """Offset of the disk at which it begins."""
        return self.starts[0]

    def child_at(self, offset: int) -> int:
        """The number of the child that holds a byte of the branch."""
        return bisect_right(self.starts, offset) - 1

    def name_of(self, child: int) -> bytes:
        """The name of a child."""
        return self.names[child * NAME_BYTES : (child + 1) * NAME_BYTES]

    def end_of(self, child: int) -> int:
        """The offset at which a child ends."""
        return self.starts[child + 1] if child + 1 < len(self.starts) else self.end

    def encode(self) -> bytes:
        """As a node's bytes."""
        head = _HEAD.pack(_BRANCH, len(self.starts))
        return b"".join((head, little(self.starts), _U64.pack(self.end), self.names))


def parse(data: bytes | memoryview, name: bytes) -> Leaf | Branch:
    """A node of its bytes; ``name`` is for errors.

    Raises:
        RepositoryError: if they are none, or contradict themselves.
    """
    try:
        kind, count = _HEAD.unpack_from(data)
        if kind == _LEAF:
            return _leaf(memoryview(data), count)
        if kind == _BRANCH:
            return _branch(memoryview(data), count)
    except (struct.error, _Odd) as failure:
        raise RepositoryError(
            f"expected a node of a snapshot, found {failure}", name=f"node {name.hex()}"
        ) from failure
    raise RepositoryError(
        f"expected a leaf or a branch, found kind {kind}", name=f"node {name.hex()}"
    )


class _Odd(Exception):  # noqa: N818 - it never leaves this module
    """What is wrong with a node."""


def _leaf(data: memoryview, count: int) -> Leaf:
    if count > ENTRIES_MAX:
        raise _Odd(f"{count} entries")
    (start,) = _U64.unpack_from(data, _HEAD.size)
    at = _HEAD.size + 8
    if len(data) < at + 9 * count:
        raise _Odd(f"{len(data)} bytes for {count} entries")
    kinds = bytes(data[at : at + count])
    lengths = _from_bytes(data[at + count : at + 9 * count])
    names = bytes(data[at + 9 * count :])
    if kinds and max(kinds) > max(Piece):
        raise _Odd(f"an entry of kind {max(kinds)}")
    if len(names) != kinds.count(Piece.DATA) * NAME_BYTES:
        raise _Odd(f"{len(names)} bytes of names for {kinds.count(Piece.DATA)} chunks")
    if 0 in lengths or start + sum(lengths) > SIZE_MAX:
        raise _Odd("lengths that cannot be")
    return Leaf(start, kinds, lengths, names)


def _branch(data: memoryview, count: int) -> Branch:
    if not 1 <= count <= CHILDREN_MAX:
        raise _Odd(f"{count} children")
    if len(data) != _HEAD.size + 8 * count + 8 + NAME_BYTES * count:
        raise _Odd(f"{len(data)} bytes for {count} children")
    at = _HEAD.size
    starts = _from_bytes(data[at : at + 8 * count])
    at += 8 * count
    (end,) = _U64.unpack_from(data, at)
    borders = [*starts, end]
    if end > SIZE_MAX or any(a >= b for a, b in pairwise(borders)):
        raise _Odd("children that are not ascending")
    return Branch(starts, end, bytes(data[at + 8 :]))


def _from_bytes(data: memoryview) -> array[int]:
    values = array("Q")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


class TreeBuilder:
    """Puts branches over leaves, which come in the order of the disk."""

    def __init__(self, save: Callable[[bytes], bytes]) -> None:
        """``save`` keeps a node and gives its name."""
        self._save = save
        self._levels: list[list[tuple[int, int, bytes]]] = [[]]

    def add(self, start: int, end: int, name: bytes) -> None:
        """Take in the next leaf, which is saved already."""
        self._put(0, (start, end, name))

    def finish(self) -> bytes:
        """Save what is left; the name of the root.

        Needs at least one leaf.
        """
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            if self._levels[level]:
                self._close(level)
            level += 1
        return self._levels[level][0][2]

    def _put(self, level: int, child: tuple[int, int, bytes]) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(child)
        if len(self._levels[level]) == CHILDREN_MAX:
            self._close(level)

    def _close(self, level: int) -> None:
        children, self._levels[level] = self._levels[level], []
        starts = array("Q", (start for start, _, _ in children))
        end = children[-1][1]
        name = self._save(Branch(starts, end, b"".join(name for _, _, name in children)).encode())
        self._put(level + 1, (starts[0], end, name))


class Tree:
    """The tree of one disk, read as far as is needed. Thread-safe if ``load`` is."""

    def __init__(self, root: bytes, size: int, load: Callable[[bytes], bytes]) -> None:
        """``load`` gives the bytes of a node by its name."""
        self._root = root
        self._size = size
        self._load = lru_cache(maxsize=_NODES_KEPT)(lambda name: parse(load(name), name))

    def check_root(self) -> None:
        """Make sure that anything of the tree can be read at all.

        Raises:
            RepositoryError: if nothing can.
        """
        self._node(self._root, 0, self._size)

    def leaf_at(self, offset: int) -> Leaf:
        """The leaf that holds a byte of the disk.

        Raises:
            RepositoryError: if the tree is damaged.
        """
        name, start, end = self._root, 0, self._size
        for _ in range(self._depth):
            branch = _expect_branch(self._node(name, start, end), name)
            child = branch.child_at(offset)
            name, start, end = branch.name_of(child), branch.starts[child], branch.end_of(child)
        return self.leaf(name, start, end)

    def leaf(self, name: bytes, start: int, end: int) -> Leaf:
        """A leaf that :meth:`leaves` has told of.

        Raises:
            RepositoryError: if the tree is damaged.
        """
        return _expect_leaf(self._node(name, start, end), name)

    def leaves(self, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """``(start, end, name)`` of the leaves that hold bytes of a range, in order.

        Reads branches only, but for the root.

        Raises:
            RepositoryError: if the tree is damaged.
        """
        if start < end:
            yield from self._below((0, self._size, self._root), start, end, self._depth)

    def names(self) -> Iterator[tuple[bytes, bool]]:
        """The names of all nodes, and whether it is a leaf; branches before what is below."""
        depth = self._depth
        yield self._root, depth == 0
        if depth:
            yield from self._names_below(self._root, 0, self._size, depth)

    def _names_below(
        self, name: bytes, start: int, end: int, depth: int
    ) -> Iterator[tuple[bytes, bool]]:
        branch = _expect_branch(self._node(name, start, end), name)
        for child, first in enumerate(branch.starts):
            below = branch.name_of(child)
            yield below, depth == 1
            if depth > 1:
                yield from self._names_below(below, first, branch.end_of(child), depth - 1)

    def _below(
        self, node: tuple[int, int, bytes], start: int, end: int, depth: int
    ) -> Iterator[tuple[int, int, bytes]]:
        if depth == 0:
            yield node
            return
        first, last, name = node
        branch = _expect_branch(self._node(name, first, last), name)
        child = branch.child_at(max(start, first))
        while child < len(branch.starts) and branch.starts[child] < end:
            below = (branch.starts[child], branch.end_of(child), branch.name_of(child))
            yield from self._below(below, start, end, depth - 1)
            child += 1

    @cached_property
    def _depth(self) -> int:
        """Branches on each path: found on the leftmost one that can be read."""
        return self._height((0, self._size, self._root), DEPTH_MAX)

    def _height(self, node: tuple[int, int, bytes], limit: int) -> int:
        """Branches below a node, and itself if it is one."""
        start, end, name = node
        branch = self._node(name, start, end)
        if isinstance(branch, Leaf):
            return 0
        if limit == 0:
            raise RepositoryError(
                f"expected at most {DEPTH_MAX} levels, found more", name=f"node {self._root.hex()}"
            )
        first: RepositoryError | None = None
        for child, at in enumerate(branch.starts):
            # Were only the first asked, all of the disk would be lost with its first leaf.
            below = (at, branch.end_of(child), branch.name_of(child))
            try:
                return 1 + self._height(below, limit - 1)
            except RepositoryError as failure:
                first = first or failure
        assert first is not None
        raise first

    def _node(self, name: bytes, start: int, end: int) -> Leaf | Branch:
        node = self._load(name)
        if node.start != start or node.end != end:
            raise RepositoryError(
                f"expected a node from {start} to {end}, found one from {node.start} to {node.end}",
                name=f"node {name.hex()}",
            )
        return node


def _expect_leaf(node: Leaf | Branch, name: bytes) -> Leaf:
    if isinstance(node, Leaf):
        return node
    raise RepositoryError("expected a leaf, found a branch", name=f"node {name.hex()}")


def _expect_branch(node: Leaf | Branch, name: bytes) -> Branch:
    if isinstance(node, Branch):
        return node
    raise RepositoryError("expected a branch, found a leaf", name=f"node {name.hex()}")
