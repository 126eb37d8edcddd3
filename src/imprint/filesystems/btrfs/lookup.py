"""Looking for items by their keys: only the nodes on the way are read, and some are kept."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.btrfs.trees import Item, Key, Node, Pointer, Trees

_END: Final = (1 << 64, 0, 0)
"""Behind all keys."""

_NODES_KEPT: Final = 1024
"""16 MiB, if nodes have the usual size."""


class Lookup:
    """Finds items in trees. For one thread."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._kept: OrderedDict[Pointer, Node] = OrderedDict()
        # By all that a pointer says: another one to the same node may say what it is not.

    def items(self, root: Pointer, first: Key, last: Key) -> Iterator[Item]:
        """Items with keys from ``first`` to ``last``, both included, in their order.

        Raises:
            CorruptImageError: if the tree is not a sound one.
            ReadError: if it cannot be read.
        """
        return self._items(root, first, last, _END)

    def _items(self, pointer: Pointer, first: Key, last: Key, end: Key) -> Iterator[Item]:
        """The same of what is below a pointer, whose keys come before ``end``.

        Nodes may be shared, and a tree of seven levels of them have more ways than anybody can
        go. A node is what its first key says, which Trees verifies; with each key met once, and
        levels that fall by one, no node is entered twice.
        """
        node = self._node(pointer)
        if node.level == 0:
            for item in node.items(since=first):
                key = (item.owner, item.kind, item.offset)
                if key > last or key >= end:
                    return
                if key >= first:
                    yield item
            return
        below = node.pointers(first, last)
        keys = [way.key or _END for way in below]
        for way, key, following in zip(below, keys, [*keys[1:], end], strict=True):
            if key > last:
                return
            if key >= following:
                raise CorruptImageError(f"node {node.address}: expected keys in their order")
            yield from self._items(way, first, last, min(following, end))

    def _node(self, pointer: Pointer) -> Node:
        node = self._kept.get(pointer)
        if node is None:
            node = self._trees.node(pointer)
            self._kept[pointer] = node
            if len(self._kept) > _NODES_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(pointer)
        return node
