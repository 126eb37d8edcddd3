"""Going through the trees of many snapshots, each node once, however many have it in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from imprint.core.errors import RepositoryError
from imprint.repository.nodes import DEPTH_MAX, Leaf, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.repository.nodes import Branch
    from imprint.repository.snapshots import Snapshot

T = TypeVar("T")

_ANY_HEIGHT: Final = -1
"""Of what cannot be read."""


class Fold(Generic[T]):
    """Computes something of trees from the leaves up; what was computed of a node is kept.

    Args:
        load: gives the bytes of a node.
        leaf: the value of a leaf, by its name.
        branch: the value of a branch, by its name and the values of its children.
        broken: the value of a stretch ``(start, end)`` whose node cannot be read; without it,
            the error is raised.
    """

    def __init__(
        self,
        load: Callable[[bytes], bytes | memoryview],
        leaf: Callable[[bytes, Leaf], T],
        branch: Callable[[bytes, Branch, list[T]], T],
        broken: Callable[[int, int, RepositoryError], T] | None = None,
    ) -> None:
        self._load = load
        self._leaf = leaf
        self._branch = branch
        self._broken = broken
        self._known: dict[bytes, tuple[int, T]] = {}

    def __len__(self) -> int:
        """How many nodes were read."""
        return len(self._known)

    def of(self, snapshot: Snapshot) -> T:
        """The value of the disk of a snapshot.

        Raises:
            RepositoryError: if a node is damaged or missing, unless ``broken`` is there.
        """
        manifest = snapshot.manifest
        return self._value(bytes.fromhex(manifest.root), 0, manifest.size, DEPTH_MAX)[1]

    def _value(self, name: bytes, start: int, end: int, depth: int) -> tuple[int, T]:
        """Levels below a node, and its value. A node says where it is, so that is kept as well."""
        known = self._known.get(name)
        if known is not None:
            return known
        try:
            node = parse(self._load(name), name)
            if node.start != start or node.end != end:
                raise RepositoryError(
                    f"expected a node from {start} to {end}, found one from {node.start} to "
                    f"{node.end}",
                    name=f"node {name.hex()}",
                )
            if isinstance(node, Leaf):
                found = 0, self._leaf(name, node)
            else:
                found = self._of_branch(name, node, depth)
        except RepositoryError as failure:
            if self._broken is None:
                raise
            # Not kept: the node may be right in another place.
            return _ANY_HEIGHT, self._broken(start, end, failure)
        self._known[name] = found
        return found

    def _of_branch(self, name: bytes, node: Branch, depth: int) -> tuple[int, T]:
        if depth == 0:
            raise RepositoryError(
                f"expected at most {DEPTH_MAX} levels, found more", name=f"node {name.hex()}"
            )
        below = [
            self._value(node.name_of(child), first, node.end_of(child), depth - 1)
            for child, first in enumerate(node.starts)
        ]
        heights = {height for height, _ in below} - {_ANY_HEIGHT}
        if len(heights) > 1:
            raise RepositoryError(
                "expected leaves of the same depth, found others", name=f"node {name.hex()}"
            )
        height = 1 + heights.pop() if heights else _ANY_HEIGHT
        return height, self._branch(name, node, [value for _, value in below])
