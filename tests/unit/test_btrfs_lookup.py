"""Looking for items in trees whose nodes are shared, which no Btrfs has that the kernel made."""

from __future__ import annotations

import struct
from itertools import islice

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.lookup import Lookup
from imprint.filesystems.btrfs.state import read_state
from imprint.filesystems.btrfs.trees import Pointer
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.btrfs_volumes import (
    ADDRESS,
    GENERATION,
    METADATA,
    NODE,
    UUID,
    seal,
    volume_by_hand,
)

COPIES = (1064 * KIB, 1128 * KIB)
"""Where the chunk of metadata lies."""

KEY = (257, layout.EXTENT_DATA, 0)
FREE_NODES = [METADATA + slot * NODE for slot in range(9, 16)]


def put_node(content: bytearray, address: int, level: int, below: list[tuple[int, int]]) -> None:
    """A node of pointers: to the address of each, by the offset of its key."""
    head = layout.NodeHeader(
        uuid=UUID, own_address=address, generation=GENERATION, count=len(below), level=level
    ).pack()
    owner, kind, _ = KEY
    pointers = [struct.pack("<QBQQQ", owner, kind, at, to, GENERATION) for at, to in below]
    node = (head + b"".join(pointers)).ljust(NODE, b"\0")
    for start in COPIES:
        content[start + address - METADATA : start + address - METADATA + NODE] = node


def items_found(content: bytearray, root: Pointer) -> int:
    seal(content)
    volume = MemoryStorage(bytes(content), name="volume")
    lookup = Lookup(read_state(volume, budget=1 << 40).trees)
    found = lookup.items(root, (0, 0, 0), (*KEY[:2], (1 << 64) - 1))
    return len(list(islice(found, 10_000)))


def test_items_are_found_below_several_levels() -> None:
    """Fails if a sound tree is taken for one that is not."""
    content = bytearray(volume_by_hand())
    below = ADDRESS["LEAF"]
    for level, address in enumerate(FREE_NODES, 1):
        put_node(content, address, level, [(0, below)])
        below = address
    assert items_found(content, Pointer(below, GENERATION, len(FREE_NODES))) == 1


def test_a_tree_of_the_same_node_again_and_again_is_one_error() -> None:
    """Fails if whoever shares nodes keeps the program busy for ever: there are 120 ** 7 ways."""
    content = bytearray(volume_by_hand())
    below = ADDRESS["LEAF"]
    for level, address in enumerate(FREE_NODES, 1):
        put_node(content, address, level, [(0, below)] * 120)
        below = address
    with pytest.raises(CorruptImageError, match="keys in their order"):
        items_found(content, Pointer(below, GENERATION, len(FREE_NODES)))


def test_a_node_that_two_others_have_is_one_error() -> None:
    """Fails if keys that are in order in each node, but not in the tree, are followed."""
    content = bytearray(volume_by_hand())
    first, second, shared, top = FREE_NODES[:4]
    put_node(content, shared, 1, [(0, ADDRESS["LEAF"])])
    put_node(content, first, 2, [(0, shared), (7, shared)])
    put_node(content, second, 2, [(5, shared)])
    put_node(content, top, 3, [(0, first), (5, second)])
    with pytest.raises(CorruptImageError, match="keys in their order"):
        items_found(content, Pointer(top, GENERATION, 3))


def test_a_node_that_is_not_what_its_pointer_says_is_one_error() -> None:
    """Fails if a node that was met before is taken for another one."""
    content = bytearray(volume_by_hand())
    top = FREE_NODES[0]
    put_node(content, top, 1, [(0, ADDRESS["LEAF"]), (5, ADDRESS["LEAF"])])
    with pytest.raises(CorruptImageError, match="another first key"):
        items_found(content, Pointer(top, GENERATION, 1))
