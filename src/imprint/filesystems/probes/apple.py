"""HFS+ and APFS.

Source: Apple Technical Note TN1150 "HFS Plus Volume Format"; "Apple File System Reference"
2020-06-22.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB
from imprint.filesystems.facts import FileSystem, text, uuid_text

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

HFS_OFFSET: Final = 1024
HFS_MARK: Final = b"BD"
HFS_PLUS_MARKS: Final = (b"H+", b"HX")
APFS_MAGIC: Final = b"NXSB"

_ROOT_PARENT: Final = 1
_LEAF_NODE: Final = 0xFF
_NODE_BYTES_MAX: Final = 32 * KIB
_NAMESPACE: Final = uuid.UUID("b3e20f39-f292-11d6-97a4-00306543ecac")


class HfsMasterBlock(Structure, size=162, endian=">"):
    """Of a classic HFS volume: a wrapper around HFS+ in its early years."""

    mark: bytes = raw(2, at=0, doc="HFS_MARK")
    block_size: int = uint(4, at=20, doc="of an allocation block")
    first_block: int = uint(2, at=28, doc="sector of allocation block 0")
    embedded_mark: bytes = raw(2, at=124, doc="one of HFS_PLUS_MARKS")
    embedded_start: int = uint(2, at=126, doc="allocation block of the volume inside")


class HfsPlusHeader(Structure, size=512, endian=">"):
    """The volume header of HFS+ and HFSX."""

    mark: bytes = raw(2, at=0, doc="one of HFS_PLUS_MARKS")
    block_size: int = uint(4, at=40, doc="a power of two, at least 512")
    identity: bytes = raw(8, at=104, doc="the end of the Finder's information")
    catalog_extents: bytes = raw(64, at=288, doc="eight pairs of start and count, in blocks")


class BTreeHeader(Structure, size=34, endian=">"):
    """The header node of a B-tree."""

    first_leaf: int = uint(4, at=24, doc="number of the first leaf node")
    node_size: int = uint(2, at=32, doc="512 to 32768")


class CatalogRecord(Structure, size=22, endian=">"):
    """A leaf node, and the key of the first record in it."""

    node_kind: int = uint(1, at=8, doc="_LEAF_NODE")
    record_count: int = uint(2, at=10, doc="at least 1")
    parent: int = uint(4, at=16, doc="of the folder that the key names")
    name_length: int = uint(2, at=20, doc="in characters; the name follows, in UTF-16")


class ApfsSuperblock(Structure, size=88, endian="<"):
    """The container's superblock."""

    type: int = uint(2, at=24, doc="1: a container's superblock")
    subtype: int = uint(2, at=28, doc="0")
    magic: bytes = raw(4, at=32, doc="APFS_MAGIC")
    block_size: int = uint(4, at=36, doc="4096 to 65536")
    uuid: bytes = raw(16, at=72, doc="of the container")


def hfs_plus(peek: Peek) -> FileSystem | None:
    """HFS+ or HFSX, alone or inside an HFS volume."""
    base = _embedded_offset(peek)
    header = HfsPlusHeader.unpack(peek.read(base + HFS_OFFSET, HfsPlusHeader.SIZE))
    if (
        header.mark not in HFS_PLUS_MARKS
        or header.block_size < 512
        or header.block_size.bit_count() != 1
    ):
        return None
    return FileSystem("hfsplus", _hfs_label(peek, header, base), _hfs_uuid(header.identity))


def _embedded_offset(peek: Peek) -> int:
    """Where the HFS+ volume begins: 0 if there is no wrapper."""
    block = HfsMasterBlock.unpack(peek.read(HFS_OFFSET, HfsMasterBlock.SIZE))
    if block.mark != HFS_MARK or block.embedded_mark not in HFS_PLUS_MARKS:
        return 0
    return block.first_block * 512 + block.embedded_start * block.block_size


def _hfs_uuid(identity: bytes) -> str | None:
    """As macOS and Linux derive it from the eight bytes that the volume has."""
    if not any(identity):
        return None
    import hashlib  # OpenSSL costs 3 ms

    digest = hashlib.md5(_NAMESPACE.bytes + identity, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest, version=3))


def _hfs_label(peek: Peek, header: HfsPlusHeader, base: int) -> str | None:
    """The name of the root folder, which is the first record of the catalog."""
    extents = memoryview(header.catalog_extents)
    pairs = [
        (int.from_bytes(extents[at : at + 4]), int.from_bytes(extents[at + 4 : at + 8]))
        for at in range(0, len(extents), 8)
    ]
    tree_offset = base + pairs[0][0] * header.block_size
    tree = BTreeHeader.unpack(peek.read(tree_offset, BTreeHeader.SIZE))
    if not 512 <= tree.node_size <= _NODE_BYTES_MAX:
        return None
    block, within = divmod(tree.first_leaf * tree.node_size, header.block_size)
    for start, count in pairs:
        if block < count:
            offset = base + (start + block) * header.block_size + within
            return _root_name(peek.read(offset, tree.node_size))
        block -= count
    return None


def _root_name(node: bytes) -> str | None:
    record = CatalogRecord.unpack(node)
    if (
        record.node_kind != _LEAF_NODE
        or record.record_count == 0
        or record.parent != _ROOT_PARENT
        or record.name_length > 255
    ):
        return None
    start = CatalogRecord.SIZE
    return text(node[start : start + 2 * record.name_length], "utf-16-be")


def apfs(peek: Peek) -> FileSystem | None:
    """An APFS container; its volumes have the names."""
    block = ApfsSuperblock.unpack(peek.read(0, ApfsSuperblock.SIZE))
    if (
        block.magic != APFS_MAGIC
        or (block.type, block.subtype) != (1, 0)
        or not 4096 <= block.block_size <= 65536
        or block.block_size.bit_count() != 1
    ):
        return None
    return FileSystem("apfs", uuid=uuid_text(block.uuid))
