"""Looking for items by their keys: only the nodes on the way are read, and some are kept."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.btrfs.trees import Item, Key, Node, Pointer, Trees

_NODES_KEPT: Final = 1024
"""16 MiB, if nodes have the usual size."""


class Lookup:
    """Finds items in trees. For one thread."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._kept: OrderedDict[tuple[int, int], Node] = OrderedDict()

    def items(self, root: Pointer, first: Key, last: Key) -> Iterator[Item]:
        """Items with keys from ``first`` to ``last``, both included, in their order.

        Raises:
            CorruptImageError: if the tree is not a sound one.
            ReadError: if it cannot be read.
        """
        # Levels fall by one from node to node, which Trees verifies: this ends.
        node = self._node(root)
        if node.level == 0:
            for item in node.items():
                key = (item.owner, item.kind, item.offset)
                if key > last:
                    return
                if key >= first:
                    yield item
            return
        for pointer in node.pointers(first):
            if pointer.key is not None and pointer.key > last:
                return
            yield from self.items(pointer, first, last)

    def _node(self, pointer: Pointer) -> Node:
        key = pointer.address, pointer.generation
        node = self._kept.get(key)
        if node is None or node.level != pointer.level:
            node = self._trees.node(pointer)
            self._kept[key] = node
            if len(self._kept) > _NODES_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return node
