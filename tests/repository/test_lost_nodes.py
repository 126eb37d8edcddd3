"""A tree of which nodes are lost can be read everywhere else."""

from __future__ import annotations

from array import array

import pytest
from blake3 import blake3

from imprint.core.errors import RepositoryError
from imprint.repository.nodes import Branch, Leaf, Tree


def test_the_first_leaf_takes_no_other_with_it() -> None:
    """How deep the tree is was asked of the first leaf alone."""
    nodes: dict[bytes, bytes] = {}

    def save(content: bytes) -> bytes:
        name = blake3(content).digest()
        nodes[name] = content
        return name

    leaves = [Leaf(start, b"\x02", array("Q", [10]), b"") for start in (0, 10, 20)]
    names = [save(leaf.encode()) for leaf in leaves]
    root = save(Branch(array("Q", [0, 10, 20]), 30, b"".join(names)).encode())
    del nodes[names[0]]

    def load(name: bytes) -> bytes:
        if name not in nodes:
            raise RepositoryError("is lost")
        return nodes[name]

    tree = Tree(root, 30, load)
    assert tree.leaf_at(15) == leaves[1]
    assert [start for start, _, _ in tree.leaves(0, 30)] == [0, 10, 20]
    with pytest.raises(RepositoryError):
        tree.leaf_at(5)
    del nodes[names[1]], nodes[names[2]]
    with pytest.raises(RepositoryError):
        Tree(root, 30, load).leaf_at(15)
