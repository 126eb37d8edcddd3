"""Where the disks of two snapshots differ, found by their trees: what is equal is not even read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.repository.nodes import Leaf, Piece, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

_ZEROS = b""
"""Stands for what reads as zeros, whatever kind of entry it is."""


class _Item(NamedTuple):
    """A node that was not looked into yet, or an entry of a leaf.

    ``name`` is of the node or the chunk; ``None`` means part of a chunk.
    """

    start: int
    end: int
    name: bytes | None
    is_node: bool


def changed_ranges(
    repository: Repository, older: Snapshot, newer: Snapshot
) -> Iterator[tuple[int, int]]:
    """Ranges of the disk, ``(offset, length)``, that differ between two snapshots; ascending.

    Ranges are as long as the chunks that differ, so that equal bytes may be inside; all that
    differs is. Of disks of different sizes, what only one has differs. Holes, zeros and what could
    not be read are the same.

    Raises:
        RepositoryError: if a tree is damaged.
    """
    start, end = 0, 0
    for low, high in _changes(repository.chunks.read, older, newer):
        if low > end:
            if end > start:
                yield start, end - start
            start = low
        end = high
    if end > start:
        yield start, end - start


def _changes(
    load: Callable[[bytes], memoryview], older: Snapshot, newer: Snapshot
) -> Iterator[tuple[int, int]]:
    """Start and end of what differs; neighbours are not joined."""
    left, right = (_Cursor(load, snapshot) for snapshot in (older, newer))
    while left.items and right.items:
        one, other = left.items[-1], right.items[-1]
        if one == other and one.name is not None:
            left.items.pop()
            right.items.pop()
        elif one.is_node and (not other.is_node or one.end >= other.end):
            left.expand()
        elif other.is_node:
            right.expand()
        else:
            end = min(one.end, other.end)
            if one.name != _ZEROS or other.name != _ZEROS:
                yield one.start, end
            left.take(end)
            right.take(end)
    for item in reversed(left.items or right.items):
        yield item.start, item.end


class _Cursor:
    """Goes through a tree in the order of the disk, as far down as it is told to.

    Attributes:
        items: what is still to come; the next is the last.
    """

    def __init__(self, load: Callable[[bytes], memoryview], snapshot: Snapshot) -> None:
        self._load = load
        manifest = snapshot.manifest
        self.items = [_Item(0, manifest.size, bytes.fromhex(manifest.root), is_node=True)]

    def expand(self) -> None:
        """Put what is in the next node into its place."""
        item = self.items.pop()
        assert item.name is not None
        node = parse(self._load(item.name), item.name)
        if (node.start, node.end) != item[:2]:
            raise RepositoryError(
                f"expected a node from {item.start} to {item.end}, "
                f"found one from {node.start} to {node.end}",
                name=f"node {item.name.hex()}",
            )
        if isinstance(node, Leaf):
            self.items += reversed(_entries(node))
            return
        self.items += [
            _Item(node.starts[child], node.end_of(child), node.name_of(child), is_node=True)
            for child in reversed(range(len(node.starts)))
        ]

    def take(self, end: int) -> None:
        """Go on to ``end``, which is not behind the next entry."""
        item = self.items.pop()
        if end < item.end:
            name = _ZEROS if item.name == _ZEROS else None
            self.items.append(_Item(end, item.end, name, is_node=False))


def _entries(leaf: Leaf) -> list[_Item]:
    borders = leaf.borders
    return [
        _Item(
            borders[entry],
            borders[entry + 1],
            leaf.name_of(entry) if kind == Piece.DATA else _ZEROS,
            is_node=False,
        )
        for entry, kind in enumerate(leaf.kinds)
    ]
