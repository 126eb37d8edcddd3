"""All that can be reached from the superblock, by the trees and not by what counts extents."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.extra import walk_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.btrfs.layout import RootItem
    from imprint.filesystems.btrfs.state import State
    from imprint.filesystems.btrfs.trees import Item, Key

_KEY: Final = struct.Struct("<QBQ")


def walk(state: State) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` in the volume, every copy of it.

    Raises:
        CorruptImageError: if a tree cannot be followed.
        ReadError: if a part of it cannot be read.
    """
    for offset in layout.SUPERBLOCKS_AT:
        if offset + layout.SUPERBLOCK_BYTES <= state.superblock.device_bytes:
            yield offset, layout.SUPERBLOCK_BYTES
    for address, length in _addresses(state):
        for place in state.chunks.places(address, length):
            yield place, length


def _addresses(state: State) -> Iterator[tuple[int, int]]:
    size = state.geometry.node_size
    for node in state.trees.whole(state.chunk_root):
        yield node.address, size
    roots: list[Item] = []
    for node in state.trees.whole(state.root):
        yield node.address, size
        if node.level == 0:
            roots.extend(node.items(layout.ROOT_ITEM))
            yield from state.file_extents(node)  # of the caches of free space
    yield from _trees(state, roots)
    yield from walk_log(state)


def _trees(state: State, roots: list[Item]) -> Iterator[tuple[int, int]]:
    """Nodes and extents of all trees; what snapshots share is met once."""
    size, seen = state.geometry.node_size, set[int]()

    def enter(address: int) -> bool:
        is_new = address not in seen
        seen.add(address)
        return is_new

    for item in roots:
        pointer, root = state.tree_of(item)
        if pointer.address == 0:
            continue
        for node in state.trees.walk(pointer, enter, since=_since(root)):
            yield node.address, size
            if node.level == 0:
                yield from state.file_extents(node)


def _since(root: RootItem) -> Key | None:
    """Of a tree that is being deleted: the key before which it is gone."""
    if root.reference_count or not any(root.dropped):
        return None
    owner, kind, offset = _KEY.unpack(root.dropped)
    return owner, kind, offset
