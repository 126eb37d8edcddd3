"""What is used, by the extent tree, which is compared with all that tells the same."""

from __future__ import annotations

from array import array
from itertools import compress
from operator import ge, gt, ne
from typing import TYPE_CHECKING, NamedTuple

from imprint.core.bitmap import runs_of_bits
from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.layout import BlockGroupItem, DeviceExtent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.btrfs.state import State
    from imprint.filesystems.btrfs.trees import Item, Node


class Space(NamedTuple):
    """What the committed file system uses.

    Attributes:
        used: addresses of all extents.
        doubts: what does not fit them.
    """

    used: Runs
    doubts: list[str]


class _Group(NamedTuple):
    """A block group: a chunk, as the allocator sees it."""

    start: int
    length: int
    kind: int
    used: int


class _Extents:
    """Extents in ascending order; those that touch become one run."""

    def __init__(self, name: str) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        self._name = name

    def add(self, starts: list[int], ends: list[int], end_max: int) -> None:
        """Those of a leaf, which are behind all before them.

        Raises:
            CorruptImageError: if they are not, or overlap, or end behind ``end_max``.
        """
        if not starts:
            return
        following = starts[1:]
        before = self._ends[-1] if self._ends else 0
        is_wrong = (
            starts[0] < before
            or ends[-1] > end_max
            or any(map(gt, ends, following))
            or any(map(ge, starts, ends))
        )
        if is_wrong:
            raise CorruptImageError(
                f"extent tree: expected ascending extents behind {before}", name=self._name
            )
        if self._ends and before == starts[0]:
            self._ends.pop()
        else:
            self._starts.append(starts[0])
        is_gap = list(map(ne, ends, following))
        self._starts.extend(compress(following, is_gap))
        self._ends.extend(compress(ends, is_gap))
        self._ends.append(ends[-1])

    def runs(self) -> Runs:
        """All of them."""
        return Runs(self._starts, self._ends)


def read_space(state: State) -> Space:
    """Read the extent tree, and what is told elsewhere.

    Raises:
        CorruptImageError: if a tree is not sound, or if extents overlap or are in no chunk.
        ReadError: if a tree cannot be read.
    """
    has_own_tree = state.geometry.has(layout.RO_BLOCK_GROUP_TREE)
    used, groups = _read_extents(state, with_groups=not has_own_tree)
    if has_own_tree:
        for node in state.tree(layout.BLOCK_GROUP_TREE):
            if node.level == 0:
                groups.extend(_groups(state, node))
    if len(used - state.chunks.logical):
        raise CorruptImageError("extent tree: expected extents in chunks", name=state.name)
    doubts = _check_groups(state, used, groups)
    if _read_device_extents(state) != state.chunks.physical:
        doubts.append("the extents of the device are not those of the chunks")
    is_told_twice = layout.RO_FREE_SPACE_TREE | layout.RO_FREE_SPACE_TREE_VALID
    if state.geometry.has(is_told_twice) and not _is_free(state, state.chunks.logical - used):
        doubts.append("the free-space tree and the extent tree contradict each other")
    return Space(used, doubts)


def data_extents(state: State) -> Iterator[tuple[int, int]]:
    """Address and length of the extents that files have, by the extent tree.

    Raises:
        CorruptImageError: if it is not sound.
        ReadError: if it cannot be read.
    """
    for node in state.tree(layout.EXTENT_TREE):
        if node.level == 0:
            for item in node.items(layout.EXTENT_ITEM):
                flags = bytes(item.data[layout.EXTENT_FLAGS_AT : layout.EXTENT_FLAGS_AT + 8])
                if int.from_bytes(flags, "little") & layout.EXTENT_IS_DATA:
                    yield item.owner, item.offset


def _read_extents(state: State, *, with_groups: bool) -> tuple[Runs, list[_Group]]:
    extents, groups = _Extents(state.name), list[_Group]()
    size, end = state.geometry.node_size, state.chunks.logical.end
    data, node_item = layout.EXTENT_ITEM, layout.METADATA_ITEM
    for node in state.tree(layout.EXTENT_TREE):
        if node.level:
            continue
        pairs = [
            (start, start + (length if kind == data else size))
            for start, kind, length, _, _ in node.keyed()
            if kind in (data, node_item)
        ]
        extents.add([pair[0] for pair in pairs], [pair[1] for pair in pairs], end)
        if with_groups:
            groups.extend(_groups(state, node))
    return extents.runs(), groups


def _groups(state: State, leaf: Node) -> Iterator[_Group]:
    for item in leaf.items(layout.BLOCK_GROUP):
        group = BlockGroupItem.unpack(item.data, where=state.name)
        yield _Group(item.owner, item.offset, group.kind, group.used)


def _check_groups(state: State, used: Runs, groups: list[_Group]) -> list[str]:
    """What is wrong with block groups, and the sums that they and the superblock have."""
    doubts = []
    if state.superblock.bytes_used != used.total:
        doubts.append(
            f"the superblock counts {state.superblock.bytes_used} bytes in use, "
            f"and the extent tree has {used.total}"
        )
    groups.sort()
    if [group[:3] for group in groups] != [chunk[:3] for chunk in state.chunks.chunks]:
        return [*doubts, "the block groups are not the chunks"]
    for group in groups:
        found = used.clip(group.start, group.start + group.length).total
        if found != group.used:
            doubts.append(
                f"block group {group.start} counts {group.used} bytes in use, "
                f"and the extent tree has {found}"
            )
            break
    return doubts


def _read_device_extents(state: State) -> Runs:
    """What the device tree says is allocated; as it is in the volume."""
    found = []
    for node in state.tree(layout.DEVICE_TREE):
        if node.level == 0:
            for item in node.items(layout.DEVICE_EXTENT):
                extent = DeviceExtent.unpack(item.data, where=state.name)
                found.append((item.offset, _length(state, item, extent.length)))
    return Runs.of(found)


def _is_free(state: State, free: Runs) -> bool:
    """Whether the free-space tree has these addresses, and no other that is in a chunk.

    mkfs leaves some of chunks that are gone.
    """
    found: list[tuple[int, int]] = []
    sector, item_count = state.geometry.sector_size, 0
    for node in state.tree(layout.FREE_SPACE_TREE):
        if node.level:
            continue
        for item in node.items(layout.FREE_SPACE_EXTENT, layout.FREE_SPACE_BITMAP):
            item_count += 1
            length = _length(state, item, item.offset)
            if item.kind == layout.FREE_SPACE_EXTENT:
                found.append((item.owner, length))
            elif length // sector > len(item.data) * 8:
                raise CorruptImageError(
                    f"free-space tree: expected a bitmap of {length} bytes at {item.owner}",
                    name=state.name,
                )
            else:
                found.extend(
                    (item.owner + start * sector, count * sector)
                    for start, count in runs_of_bits(item.data, 0, length // sector)
                )
            if len(found) > len(free) + item_count:
                return False  # a run is cut at most where an item ends
    return Runs.of(found) & state.chunks.logical == free


def _length(state: State, item: Item, length: int) -> int:
    """A length that leads not too far.

    Raises:
        CorruptImageError: if it does.
    """
    end = max(item.owner, item.offset) + length
    if end > 1 << 63:
        raise CorruptImageError(
            f"item {item.owner}: expected a length, found {length}", name=state.name
        )
    return length
