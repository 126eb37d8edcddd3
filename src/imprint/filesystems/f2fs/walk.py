"""Walking F2FS: from the node address table to every node, and from these to the data.

Source: Linux ``include/linux/f2fs_fs.h``.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK, NAT_ENTRIES, NAT_ENTRY, NodeFooter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.f2fs.state import State

_UNUSED: Final = bytes(BLOCK)
_FOOTER_AT: Final = BLOCK - NodeFooter.SIZE

# Of a node that belongs to an inode, by its offset among them: which ones hold node numbers.
_XATTR_OFFSET: Final = (1 << 29) - 1


def reached(reader: VolumeReader, state: State) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of all that nodes are and name, in bytes of the volume.

    Raises:
        CorruptImageError: if a node is not where the table says.
    """
    yield 0, state.block.main_block * BLOCK
    first, end = state.block.main_block, state.block.main_block
    end += state.block.main_segments * state.segment_blocks
    for nid, address in _nodes(reader, state):
        if not first <= address < end:
            raise CorruptImageError(
                f"node {nid}: expected a block of the main area, found {address}", name=reader.name
            )
        yield address * BLOCK, BLOCK
        content = bytes(reader.read(address * BLOCK, BLOCK, f"node {nid}"))
        footer = NodeFooter.unpack(content[_FOOTER_AT:])
        if footer.nid != nid:
            raise CorruptImageError(
                f"node {nid}: expected its number, found {footer.nid}", name=reader.name
            )
        for start, length in Runs.of(
            (value, 1) for value in _addresses(state, content, footer) if first <= value < end
        ):
            yield start * BLOCK, length * BLOCK


def _nodes(reader: VolumeReader, state: State) -> Iterator[tuple[int, int]]:
    """``(nid, block)`` of every node there is; the journal is newer than the table."""
    newer = dict(state.newer_nodes())
    yield from ((nid, address) for nid, address in newer.items() if _is_node(nid, address))
    blocks = state.block.nat_segments // 2 * state.segment_blocks
    reader.expect(blocks * BLOCK, "node table")
    for number in range(blocks):
        content = reader.read(state.nat_block(number) * BLOCK, BLOCK, "node table")
        if content == _UNUSED:
            continue
        for index in range(NAT_ENTRIES):
            nid = number * NAT_ENTRIES + index
            at = index * NAT_ENTRY + 5
            address = int.from_bytes(content[at : at + 4], "little")
            if nid not in newer and _is_node(nid, address):
                yield nid, address


def _is_node(nid: int, address: int) -> bool:
    """Whether there is one. Nodes 1 and 2 are the table itself and the metadata: no nodes."""
    is_there = address not in (layout.NULL_ADDRESS, 1) and address <= layout.ADDRESS_MAX
    return is_there and nid > 2


def _addresses(state: State, content: bytes, footer: NodeFooter) -> array[int]:
    """Blocks of data that a node names; numbers of nodes come from the table."""
    numbers = array("I")
    offset = footer.flag >> 3
    if footer.nid == footer.ino:
        start, end = _inode_addresses(state, content)
    elif offset == _XATTR_OFFSET or _holds_nids(offset):
        return numbers
    else:
        start, end = 0, 4 * layout.NODE_ENTRIES
    numbers.frombytes(content[start:end])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _inode_addresses(state: State, content: bytes) -> tuple[int, int]:
    if content[layout.INLINE_AT] & layout.INLINE_CONTENT:
        return 0, 0
    return state.addresses_of_inode(content)


def _holds_nids(offset: int) -> bool:
    """Whether a node is an indirect one, by its place in the order that nodes have.

    1 and 2 are direct, 3 and 4 + 1018 indirect with their direct ones behind each, then comes
    the double indirect one, with indirect ones at every 1019th place behind it.
    """
    second = 4 + layout.NODE_ENTRIES
    double = second + layout.NODE_ENTRIES + 1
    if offset in (3, second, double):
        return True
    return offset > double and (offset - double - 1) % (layout.NODE_ENTRIES + 1) == 0
