"""Nodes of F2FS by their numbers: inodes, and what tells where their blocks are.

Source: Linux ``fs/f2fs/node.c`` (``get_node_path``), ``fs/f2fs/f2fs.h`` (``addrs_per_page``).
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.filesystems.contents import Run
from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK, Inode, NodeFooter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.f2fs.state import State

_TABLE_BLOCKS_KEPT: Final = 512
_FOOTER_AT: Final = BLOCK - NodeFooter.SIZE
_OFFSET_SHIFT: Final = 3
_CLUSTER_LOG_MAX: Final = 8


class Tree(NamedTuple):
    """What hangs at one of an inode's five numbers of nodes.

    Attributes:
        offset: of its first node among the nodes of the inode.
        depth: nodes on the way to the one that has addresses.
    """

    offset: int
    depth: int


_TREES: Final = (
    Tree(1, 0),
    Tree(2, 0),
    Tree(3, 1),
    Tree(4 + layout.NODE_ENTRIES, 1),
    Tree(5 + 2 * layout.NODE_ENTRIES, 2),
)


class _File(NamedTuple):
    """An inode whose nodes are followed.

    Attributes:
        number: of it.
        blocks: as far as its size.
        each: addresses of a node that count: whole clusters.
    """

    number: int
    blocks: int
    each: int


class Node(NamedTuple):
    """An inode, as it stands.

    Attributes:
        number: of it.
        inode: its fields.
        content: all of its block.
        start: where its addresses begin, or its content.
        end: where they end.
    """

    number: int
    inode: Inode
    content: bytes
    start: int
    end: int

    @property
    def cluster_blocks(self) -> int:
        """Blocks that are compressed together; 1: nothing is."""
        if self.inode.flags & layout.COMPRESSED and self.inode.inline & layout.EXTRA_ATTRIBUTES:
            return 1 << min(self.inode.cluster_log, _CLUSTER_LOG_MAX)
        return 1


class Cluster(NamedTuple):
    """Blocks of a file that are compressed together. All in bytes.

    Attributes:
        position: in the file.
        length: of what they hold; the file may end before that.
        places: of blocks of the volume, one behind the other; at least one.
    """

    position: int
    length: int
    places: tuple[int, ...]


class Nodes:
    """Reads nodes. For one thread."""

    def __init__(self, reader: VolumeReader, state: State) -> None:
        self._reader = reader
        self._state = state
        self._newer = dict(state.newer_nodes())
        self._table: dict[int, bytes] = {}
        segment = state.segment_blocks
        self._count = state.block.nat_segments // 2 * segment * layout.NAT_ENTRIES
        self._first = state.block.main_block
        self._end = self._first + state.block.main_segments * segment

    def inode(self, number: int) -> Node:
        """An inode.

        Raises:
            CorruptImageError: if there is none of that number.
            ReadError: if it cannot be read.
        """
        content = self._node(number, number, 0)
        start, end = self._state.addresses_of_inode(content)
        return Node(number, Inode.unpack(content), content, start, end)

    def attributes(self, node: Node) -> bytes:
        """What an inode has of extended attributes: at its own end, then in a node of their own.

        Raises:
            CorruptImageError: if that is none.
            ReadError: if it cannot be read.
        """
        found = b""
        if node.inode.inline & layout.INLINE_XATTR:
            found = node.content[node.end : layout.NIDS_AT]
        if node.inode.attributes_node:
            further = self._node(node.inode.attributes_node, node.number, layout.ATTRIBUTES_NODE)
            found += further[:_FOOTER_AT]
        return found

    def runs(self, node: Node) -> Iterator[Run | Cluster]:
        """Where the blocks of an inode are, as far as its size, ascending; not what is in it.

        Raises:
            CorruptImageError: if they cannot be followed.
            ReadError: if a node cannot be read.
        """
        blocks = -(-node.inode.size // BLOCK)
        for position, addresses in self.addresses(node):
            index, count = 0, min(len(addresses), blocks - position)
            while index < count:
                address = addresses[index]
                run = 1
                if self._first <= address < self._end:
                    while index + run < count and addresses[index + run] == address + run:
                        run += 1
                    yield Run((position + index) * BLOCK, address * BLOCK, run * BLOCK)
                elif address == layout.COMPRESSED_ADDRESS:
                    run = node.cluster_blocks
                    where = addresses[index + 1 : index + run]
                    yield self._cluster(node, position + index, run, where)
                elif address not in (layout.NULL_ADDRESS, layout.NEW_ADDRESS):
                    raise self._error(node.number, f"expected a block, found {address}")
                index += run

    def _cluster(self, node: Node, position: int, blocks: int, where: array[int]) -> Cluster:
        """Of a compressed cluster the blocks that there are, in front of others that are free."""
        count = 0
        while count < len(where) and self._first <= where[count] < self._end:
            count += 1
        if not count or position % blocks:
            raise self._error(node.number, "expected a compressed cluster with blocks")
        places = tuple(address * BLOCK for address in where[:count])
        return Cluster(position * BLOCK, blocks * BLOCK, places)

    def addresses(self, node: Node) -> Iterator[tuple[int, array[int]]]:
        """Addresses of blocks, with the number of the first one's block in the file.

        Raises:
            CorruptImageError: if they cannot be followed.
            ReadError: if a node cannot be read.
        """
        if node.inode.inline & layout.INLINE_CONTENT:
            return
        cluster = node.cluster_blocks
        own = _numbers(node.content[node.start : node.end])
        position = len(own) // cluster * cluster
        yield 0, own[:position]
        each = layout.NODE_ENTRIES // cluster * cluster
        file = _File(node.number, -(-node.inode.size // BLOCK), each)
        for index, tree in enumerate(_TREES):
            at = layout.NIDS_AT + 4 * index
            nid = int.from_bytes(node.content[at : at + 4], "little")
            if position >= file.blocks:
                return
            if nid:
                yield from self._below(file, nid, tree, position)
            position += each * layout.NODE_ENTRIES**tree.depth

    def _below(
        self, file: _File, nid: int, tree: Tree, position: int
    ) -> Iterator[tuple[int, array[int]]]:
        """What a node below an inode tells. No node can be met twice: each has its offset."""
        content = self._node(nid, file.number, tree.offset)
        entries = _numbers(content[: 4 * layout.NODE_ENTRIES])
        if tree.depth == 0:
            yield position, entries[: file.each]
            return
        step = file.each * layout.NODE_ENTRIES ** (tree.depth - 1)
        nodes = 1 if tree.depth == 1 else 1 + layout.NODE_ENTRIES
        for index, child in enumerate(entries):
            if position >= file.blocks:
                return
            if child:
                below = Tree(tree.offset + 1 + index * nodes, tree.depth - 1)
                yield from self._below(file, child, below, position)
            position += step

    def _node(self, nid: int, ino: int, offset: int) -> bytes:
        address = self._address(nid)
        if not self._first <= address < self._end:
            raise self._error(nid, f"expected a block of the main area, found {address}")
        content = bytes(self._reader.read(address * BLOCK, BLOCK, f"node {nid}"))
        footer = NodeFooter.unpack(content[_FOOTER_AT:])
        found = (footer.nid, footer.ino, footer.flag >> _OFFSET_SHIFT)
        if found != (nid, ino, offset):
            raise self._error(nid, f"expected it to be {(nid, ino, offset)}, found {found}")
        return content

    def _address(self, nid: int) -> int:
        """Of a node, by the table and its journal."""
        newer = self._newer.get(nid)
        if newer is not None:
            return newer
        if not nid < self._count:
            raise self._error(nid, f"expected one of {self._count} nodes")
        number, index = divmod(nid, layout.NAT_ENTRIES)
        block = self._table.get(number)
        if block is None:
            where = self._state.nat_block(number) * BLOCK
            block = bytes(self._reader.read(where, BLOCK, "node table"))
            if len(self._table) >= _TABLE_BLOCKS_KEPT:
                del self._table[next(iter(self._table))]
            self._table[number] = block
        at = index * layout.NAT_ENTRY + 5
        return int.from_bytes(block[at : at + 4], "little")

    def _error(self, nid: int, problem: str) -> CorruptImageError:
        return CorruptImageError(f"node {nid}: {problem}", name=self._reader.name)


def _numbers(data: bytes) -> array[int]:
    found = array("I")
    found.frombytes(data[: len(data) // 4 * 4])
    if sys.byteorder == "big":
        found.byteswap()
    return found
