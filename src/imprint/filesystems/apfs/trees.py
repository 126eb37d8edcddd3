"""The B-trees of APFS: nodes, their records, and the way from a root to its leaves.

Source: "Apple File System Reference", "B-Trees".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.layout import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Record = tuple[memoryview, memoryview]

_FIXED: Final = struct.Struct("<HH")
_VARIABLE: Final = struct.Struct("<HHHH")
_LEVELS_MAX: Final = 16


def records(content: bytes, what: str, name: str) -> list[Record]:
    """Keys and values of a node; what has a fixed size goes on to the end of its room.

    A record that has no value has an empty one.

    Raises:
        CorruptImageError: if one of them is not inside the node.
    """
    node = Node.unpack(content, where=name)
    view = memoryview(content)
    is_fixed = bool(node.flags & layout.NODE_IS_FIXED)
    entry = _FIXED if is_fixed else _VARIABLE
    table = Node.SIZE + node.table_at
    keys = table + node.table_bytes
    end = len(content)
    if node.flags & layout.NODE_IS_ROOT:
        end -= layout.TREE_INFO_BYTES
    if node.count * entry.size > node.table_bytes or keys > end:
        raise CorruptImageError(f"{what}: expected a table inside the node", name=name)
    found = []
    for place in entry.iter_unpack(view[table : table + node.count * entry.size]):
        key_at, value_at = (place[0], place[1]) if is_fixed else (place[0], place[2])
        key_end = end if is_fixed else keys + key_at + place[1]
        key = view[keys + key_at : key_end]
        value = view[end:end]
        if value_at != layout.NO_VALUE:
            start = end - value_at
            if start < keys:
                raise CorruptImageError(f"{what}: expected a value inside the node", name=name)
            value = view[start : end if is_fixed else start + place[3]]
        if key_end > end:
            raise CorruptImageError(f"{what}: expected a key inside the node", name=name)
        found.append((key, value))
    return found


def walk(
    root: int, load: Callable[[int], bytes], what: str, name: str
) -> Iterator[tuple[int, list[Record]]]:
    """All nodes of a tree, each once: what points to it, and its records if it is a leaf.

    Args:
        root: what points to the root, for ``load``.
        load: gives a node; has verified it.
        what: the tree is.
        name: of the volume.

    Raises:
        CorruptImageError: if the tree is none: levels that do not descend, a node twice.
    """
    seen = {root}
    pending = [(root, -1)]
    while pending:
        pointer, level = pending.pop()
        content = load(pointer)
        node = Node.unpack(content, where=name)
        is_leaf = bool(node.flags & layout.NODE_IS_LEAF)
        if node.level > _LEVELS_MAX or level not in (-1, node.level) or is_leaf == bool(node.level):
            raise CorruptImageError(
                f"{what}: expected a node of level {level}, found {node.level}", name=name
            )
        found = records(content, what, name)
        if is_leaf:
            yield pointer, found
            continue
        yield pointer, []
        for _, value in reversed(found):
            child = int.from_bytes(value[:8], "little")
            if child in seen:
                raise CorruptImageError(
                    f"{what}: expected a tree, found node {child} in it twice", name=name
                )
            seen.add(child)
            pending.append((child, node.level - 1))
