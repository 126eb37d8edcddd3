"""A volume whose superblock, chunks and root tree were read: what all else begins with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.chunks import ChunkMap, parse_array, parse_chunk
from imprint.filesystems.btrfs.geometry import read_geometry
from imprint.filesystems.btrfs.layout import FileExtent, RootItem, Superblock
from imprint.filesystems.btrfs.trees import Item, Node, Pointer, Trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.btrfs.geometry import Geometry


@dataclass(frozen=True)
class State:
    """What a file system begins with.

    Attributes:
        geometry: what the superblock says.
        chunks: all of them.
        trees: reads nodes at any address.
        name: of the volume, for errors.
        size: of the volume, in bytes.
    """

    geometry: Geometry
    chunks: ChunkMap
    trees: Trees
    name: str
    size: int

    @property
    def superblock(self) -> Superblock:
        """The first."""
        return self.geometry.superblock

    @property
    def root(self) -> Pointer:
        """Of the root tree."""
        block = self.superblock
        return Pointer(block.root, block.generation, block.root_level)

    @property
    def chunk_root(self) -> Pointer:
        """Of the chunk tree."""
        return _chunk_root(self.superblock)

    @property
    def log_root(self) -> Pointer | None:
        """Of the tree of log trees, which belongs to the commit that did not happen."""
        block = self.superblock
        if block.log_root == 0:
            return None
        return Pointer(block.log_root, block.generation + 1, block.log_root_level)

    def tree(self, identity: int) -> Iterator[Node]:
        """All nodes of a tree that there is one of.

        Raises:
            CorruptImageError: if there is none, or it is not a sound one.
            ReadError: if it cannot be read.
        """
        item = self._roots.get(identity)
        if item is None:
            raise CorruptImageError(f"tree {identity}: expected one, found none", name=self.name)
        return self.trees.whole(self.tree_of(item)[0])

    def tree_of(self, item: Item) -> tuple[Pointer, RootItem]:
        """Where the tree of a root item is, and the item.

        Raises:
            CorruptImageError: if it cannot be.
        """
        root = RootItem.unpack(item.data, where=self.name)
        root.require("level", root.level <= layout.LEVEL_MAX, "7 or less", where=self.name)
        return Pointer(root.address, root.generation, root.level), root

    @cached_property
    def _roots(self) -> dict[int, Item]:
        """Root items by the identity of their trees, of which snapshots have the same."""
        return {
            item.owner: item
            for node in self.trees.whole(self.root)
            if node.level == 0
            for item in node.items(layout.ROOT_ITEM)
            if item.owner <= layout.BLOCK_GROUP_TREE
        }

    def file_extents(self, leaf: Node) -> Iterator[tuple[int, int]]:
        """Address and length of the extents that files have by a leaf, but for holes.

        Raises:
            CorruptImageError: if an item is too short.
        """
        for item in leaf.items(layout.EXTENT_DATA):
            is_inline = item.data[20:21].tolist() == [layout.FILE_EXTENT_INLINE]
            if is_inline:
                continue
            extent = FileExtent.unpack(item.data, where=self.name)
            if extent.address:
                yield extent.address, extent.length


def read_state(volume: Source, *, budget: int) -> State:
    """Read the superblock and all chunks; ``budget`` bounds what all is read together.

    Raises:
        CorruptImageError: if they contradict themselves.
        UnsupportedFeatureError: if there is a feature that is not known, or a second device.
        ReadError: if they cannot be read.
    """
    reader = VolumeReader(volume, budget=budget)
    name = reader.name
    geometry = read_geometry(reader)
    block = geometry.superblock
    listed = parse_array(block, name)
    chunks = []
    trees = Trees(reader, geometry, ChunkMap(listed, name))
    for node in trees.whole(_chunk_root(block)):
        if node.level == 0:
            for item in node.items(layout.CHUNK, layout.DEVICE):
                if item.kind == layout.CHUNK:
                    chunks.append(parse_chunk(item.data, item.offset, block, name))
                elif item.offset != block.device:
                    raise UnsupportedFeatureError(
                        f"Btrfs: expected one device, found another, {item.offset}", name=name
                    )
    if not set(listed) <= set(chunks):
        raise CorruptImageError(
            "superblock: expected chunks that the chunk tree has as well", name=name
        )
    found = ChunkMap(chunks, name)
    repaired = trees.repaired
    trees = Trees(reader, geometry, found)
    trees.repaired = repaired
    return State(geometry, found, trees, name, reader.size)


def _chunk_root(block: Superblock) -> Pointer:
    return Pointer(block.chunk_root, block.chunk_root_generation, block.chunk_root_level)
