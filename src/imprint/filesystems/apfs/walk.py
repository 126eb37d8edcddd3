"""Walking a container: object maps, and the trees of volumes with the extents they name.

Trees of files are not followed from node to node. All of their nodes are in the volume's object
map, those of snapshots too, so each newest one is read from there, in the order of the map.

Source: "Apple File System Reference", "Object Maps", "Volumes", "File-System Objects", "Data
Streams", "Snapshot Metadata", "Sealed Volumes".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.areas import fixed
from imprint.filesystems.apfs.layout import Extent, Node, ObjectHeader, ObjectMap, VolumeSuperblock
from imprint.filesystems.apfs.trees import records, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.apfs.checkpoints import Container
    from imprint.filesystems.apfs.objects import Blocks
    from imprint.filesystems.apfs.trees import Record

_ADDRESS_BYTES: Final = 8
_OBJECT_BYTES_MAX: Final = 1 << 20


class Mapping(NamedTuple):
    """Where a version of a virtual object is.

    Attributes:
        oid: of the object.
        flags: DELETED …
        size: in bytes.
        block: the first.
    """

    oid: int
    flags: int
    size: int
    block: int


class Tree(NamedTuple):
    """A tree of physical nodes.

    Attributes:
        root: its block.
        kind: what is in it: REFERENCE_TREE …
    """

    root: int
    kind: int


@dataclass(frozen=True)
class Volume:
    """A volume of the container.

    Attributes:
        block: of its superblock.
        superblock: of it.
    """

    block: int
    superblock: VolumeSuperblock

    @property
    def name(self) -> str:
        """As its user knows it."""
        return repr(self.superblock.name.split(b"\0")[0].decode("utf-8", "replace"))

    @property
    def is_encrypted(self) -> bool:
        """Whether its trees of files cannot be read."""
        return not self.superblock.flags & layout.UNENCRYPTED


def volumes(container: Container) -> list[Volume]:
    """The volumes of the newest checkpoint.

    Raises:
        CorruptImageError: if one of them cannot be found.
    """
    block = container.newest.superblock
    room = block.volumes[: block.volumes_max * _ADDRESS_BYTES]
    wanted = {
        int.from_bytes(room[at : at + _ADDRESS_BYTES], "little")
        for at in range(0, len(room), _ADDRESS_BYTES)
    } - {0}
    places = {}
    for _, mappings in _object_map(container.blocks, block.object_map):
        places.update({item.oid: item.block for item in mappings if item.oid in wanted})
    found = []
    for oid in sorted(wanted):
        if oid not in places:
            raise CorruptImageError(
                f"volume {oid}: expected it in the object map", name=container.blocks.reader.name
            )
        found.append(Volume(places[oid], _volume(container.blocks, oid, places[oid])))
    return found


def reached(container: Container) -> Iterator[Extent]:
    """All that can be reached, in blocks.

    Raises:
        CorruptImageError: if a tree cannot be followed.
    """
    blocks = container.blocks
    yield from fixed(container)
    for _, extent in _mapped(blocks, container.newest.superblock.object_map):
        yield extent
    for volume in volumes(container):
        yield Extent(volume.block, 1)
        block = volume.superblock
        trees = []
        for root, kind, tree in (
            (block.root_tree, block.root_tree_type, layout.FILE_TREE),
            (block.reference_tree, block.reference_tree_type, layout.REFERENCE_TREE),
            (block.snapshot_tree, block.snapshot_tree_type, layout.SNAPSHOT_TREE),
            (block.extent_tree, block.extent_tree_type, layout.EXTENT_TREE),
        ):
            if root and kind & layout.STORAGE_MASK == layout.PHYSICAL:
                trees.append(Tree(root, tree))
        yield from _virtual(blocks, block.object_map, trees)
        yield from _physical(blocks, trees)


def _volume(blocks: Blocks, oid: int, place: int) -> VolumeSuperblock:
    content = blocks.read(place, 1, "volume")
    superblock = VolumeSuperblock.unpack(content)
    if (
        superblock.magic != layout.VOLUME_MAGIC
        or superblock.type & layout.TYPE_MASK != layout.VOLUME
        or superblock.oid != oid
    ):
        raise CorruptImageError(
            f"volume {oid}: expected its superblock at block {place}", name=blocks.reader.name
        )
    blocks.verify(content, place, "volume")
    return superblock


def _nodes(blocks: Blocks, tree: Tree) -> Iterator[tuple[int, list[Record]]]:
    """The nodes of a physical tree: the block of each, and its records if it is a leaf."""
    what = f"tree of type 0x{tree.kind:x}"

    def load(block: int) -> bytes:
        kind = layout.TREE_ROOT if block == tree.root else layout.TREE_NODE
        content = blocks.physical(block, kind, what)
        found = ObjectHeader.unpack(content).subtype
        if found != tree.kind:
            raise CorruptImageError(
                f"{what}: expected a node of it at block {block}, found type 0x{found:x}",
                name=blocks.reader.name,
            )
        return content

    return walk(tree.root, load, what, blocks.reader.name)


def _object_map(blocks: Blocks, block: int) -> Iterator[tuple[int, list[Mapping]]]:
    """The nodes of an object map: the block of each, and what it maps, in order."""
    found = ObjectMap.unpack(blocks.physical(block, layout.OBJECT_MAP, "object map"))
    for node, leaf in _nodes(blocks, Tree(found.tree, layout.OBJECT_MAP)):
        yield (
            node,
            [
                Mapping(
                    int.from_bytes(key[:8], "little"),
                    int.from_bytes(value[:4], "little"),
                    int.from_bytes(value[4:8], "little"),
                    int.from_bytes(value[8:16], "little"),
                )
                for key, value in leaf
            ],
        )


def _mapped(blocks: Blocks, block: int) -> Iterator[tuple[Mapping | None, Extent]]:
    """An object map's own blocks, and all objects in it."""
    yield None, Extent(block, 1)
    found = ObjectMap.unpack(blocks.physical(block, layout.OBJECT_MAP, "object map"))
    if found.snapshot_tree:
        for node, _ in _nodes(blocks, Tree(found.snapshot_tree, layout.OBJECT_MAP_SNAPSHOTS)):
            yield None, Extent(node, 1)
    for node, mappings in _object_map(blocks, block):
        yield None, Extent(node, 1)
        for item in mappings:
            if item.flags & layout.DELETED:
                continue
            if item.size > _OBJECT_BYTES_MAX or item.size % blocks.size:
                raise CorruptImageError(
                    f"object {item.oid}: expected whole blocks, found {item.size} bytes",
                    name=blocks.reader.name,
                )
            yield item, blocks.check(Extent(item.block, item.size // blocks.size), "object")


def _virtual(blocks: Blocks, block: int, trees: list[Tree]) -> Iterator[Extent]:
    """The objects of a volume, and what the newest version of each names."""
    before: Mapping | None = None
    for item, extent in _mapped(blocks, block):
        yield extent
        if item is None:
            continue
        if before is not None and before.oid != item.oid:
            yield from _named_by(blocks, before, trees)
        before = item
    if before is not None:
        yield from _named_by(blocks, before, trees)


def _named_by(blocks: Blocks, item: Mapping, trees: list[Tree]) -> Iterator[Extent]:
    """The extents in a node, if the object is one that can be read."""
    # Nodes without a header are those of sealed volumes, whose extents are in another tree.
    if item.flags & (layout.ENCRYPTED | layout.HEADERLESS):
        return
    content = blocks.read(item.block, item.size // blocks.size, "object")
    header = ObjectHeader.unpack(content)
    if header.oid != item.oid:
        raise CorruptImageError(
            f"object {item.oid}: expected it at block {item.block}, found {header.oid}",
            name=blocks.reader.name,
        )
    blocks.verify(content, item.block, "object")
    if header.type & layout.TYPE_MASK not in (layout.TREE_ROOT, layout.TREE_NODE):
        return
    if Node.unpack(content).flags & layout.NODE_IS_LEAF:
        leaf = records(content, f"node {item.oid}", blocks.reader.name)
        yield from _extents(blocks, header.subtype, leaf, trees)


def _physical(blocks: Blocks, trees: list[Tree]) -> Iterator[Extent]:
    """The nodes of trees, and what they name; others may turn up on the way."""
    seen = set()
    while trees:
        tree = trees.pop()
        if tree.root in seen:
            continue
        seen.add(tree.root)
        for node, leaf in _nodes(blocks, tree):
            yield Extent(node, 1)
            yield from _extents(blocks, tree.kind, leaf, trees)


def _extents(blocks: Blocks, kind: int, leaf: list[Record], trees: list[Tree]) -> Iterator[Extent]:
    """What the records of a leaf name; trees that turn up are added to ``trees``."""
    for key, value in leaf:
        first = int.from_bytes(key[:8], "little")
        words = [int.from_bytes(value[at : at + 8], "little") for at in (0, 8)]
        record, number = first >> layout.KIND_SHIFT, first & layout.ID_MASK
        if kind == layout.EXTENT_TREE or (
            kind == layout.FILE_TREE and record == layout.FILE_EXTENT
        ):
            length = words[0] & layout.FILE_LENGTH_MASK
            if words[1]:  # others are holes
                extent = Extent(words[1], -(-length // blocks.size))
                yield blocks.check(extent, "extent of a file")
        elif kind == layout.REFERENCE_TREE and record == layout.PHYSICAL_EXTENT:
            if words[0] >> layout.KIND_SHIFT == layout.EXTENT_IS_NEW:
                yield blocks.check(Extent(number, words[0] & layout.ID_MASK), "extent")
        elif kind == layout.SNAPSHOT_TREE and record == layout.SNAPSHOT_RECORD:
            yield blocks.check(Extent(words[1], 1), "superblock of a snapshot")
            if words[0]:
                trees.append(Tree(words[0], layout.REFERENCE_TREE))
