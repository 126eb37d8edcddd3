"""HFS+, classic HFS, MFS and APFS.

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
MFS_MARK: Final = b"\xd2\xd7"
APFS_MAGIC: Final = b"NXSB"

SECTOR: Final = 512
MAC_ROMAN: Final = "mac_roman"
"""Python knows what each of the 256 means."""

MFS_BLOCKS_MAX: Final = 4094
"""Their numbers have 12 bits, and begin with 2."""

MFS_DIRECTORY_MAX: Final = 4096
"""Sectors: a floppy has 12. So much is held at once."""

_ROOT_PARENT: Final = 1
_LEAF_NODE: Final = 0xFF
_NODE_BYTES_MAX: Final = 32 * KIB
_NAMESPACE: Final = uuid.UUID("b3e20f39-f292-11d6-97a4-00306543ecac")


class HfsMasterBlock(Structure, size=162, endian=">"):
    """Of a volume of classic HFS, which may be a wrapper around HFS+.

    Source: Inside Macintosh: Files, chapter 2, "Master Directory Blocks".
    """

    mark: bytes = raw(2, at=0, doc="HFS_MARK")
    attributes: int = uint(2, at=10, doc="whether it was unmounted …")
    bitmap_block: int = uint(2, at=14, doc="sector where the volume bitmap begins")
    block_count: int = uint(2, at=18, doc="allocation blocks of the volume")
    block_size: int = uint(4, at=20, doc="of an allocation block, a multiple of 512")
    first_block: int = uint(2, at=28, doc="sector of allocation block 0")
    free_blocks: int = uint(2, at=34, doc="of the allocation blocks")
    name_length: int = uint(1, at=36, doc="1 to 27")
    name: bytes = raw(27, at=37, doc="of the volume")
    identity: bytes = raw(8, at=116, doc="the end of the Finder's information")
    embedded_mark: bytes = raw(2, at=124, doc="one of HFS_PLUS_MARKS")
    embedded_start: int = uint(2, at=126, doc="allocation block of the volume inside")
    embedded_count: int = uint(2, at=128, doc="allocation blocks of it")
    extents_size: int = uint(4, at=130, doc="of the tree of further extents, in bytes")
    extents_extents: bytes = raw(12, at=134, doc="three pairs of start and count, in blocks")
    catalog_size: int = uint(4, at=146, doc="of the tree of files and folders, in bytes")
    catalog_extents: bytes = raw(12, at=150, doc="three pairs")

    @property
    def end(self) -> int:
        """Where the allocation blocks end, in bytes."""
        return self.first_block * SECTOR + self.block_count * self.block_size

    @property
    def embedded(self) -> tuple[int, int] | None:
        """Offset and length of the HFS+ in it, in bytes; ``None`` if it is no wrapper."""
        if self.mark != HFS_MARK or self.embedded_mark not in HFS_PLUS_MARKS:
            return None
        start = self.first_block * SECTOR + self.embedded_start * self.block_size
        return start, self.embedded_count * self.block_size


class MfsMasterBlock(Structure, size=64, endian=">"):
    """Of a volume of MFS. Behind it is the map of its blocks.

    Source: Inside Macintosh, volume II, "Data Organization on Volumes".
    """

    mark: bytes = raw(2, at=0, doc="MFS_MARK")
    attributes: int = uint(2, at=10, doc="whether it is locked …")
    file_count: int = uint(2, at=12, doc="in the directory")
    directory_start: int = uint(2, at=14, doc="sector")
    directory_length: int = uint(2, at=16, doc="in sectors")
    block_count: int = uint(2, at=18, doc="allocation blocks of the volume")
    block_size: int = uint(4, at=20, doc="of an allocation block, a multiple of 512")
    first_block: int = uint(2, at=28, doc="sector of the first allocation block, number 2")
    free_blocks: int = uint(2, at=34, doc="of the allocation blocks")
    name_length: int = uint(1, at=36, doc="1 to 27")
    name: bytes = raw(27, at=37, doc="of the volume")

    @property
    def is_sound(self) -> bool:
        """Whether it is one; two letters are not much of a mark."""
        return (
            self.mark == MFS_MARK
            and self.block_size > 0
            and self.block_size % SECTOR == 0
            and 0 < self.block_count <= MFS_BLOCKS_MAX
            and 0 < self.directory_length <= MFS_DIRECTORY_MAX
            and self.directory_start * SECTOR > HFS_OFFSET
        )


class HfsPlusHeader(Structure, size=512, endian=">"):
    """The volume header of HFS+ and HFSX."""

    mark: bytes = raw(2, at=0, doc="one of HFS_PLUS_MARKS")
    block_size: int = uint(4, at=40, doc="a power of two, at least 512")
    block_count: int = uint(4, at=44, doc="of the volume")
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
    block_count: int = uint(8, at=40, doc="of the container")
    uuid: bytes = raw(16, at=72, doc="of the container")


def hfs_plus(peek: Peek) -> FileSystem | None:
    """HFS+ or HFSX, alone or inside an HFS volume."""
    block = HfsMasterBlock.unpack(peek.read(HFS_OFFSET, HfsMasterBlock.SIZE))
    base = 0 if block.embedded is None else block.embedded[0]
    header = HfsPlusHeader.unpack(peek.read(base + HFS_OFFSET, HfsPlusHeader.SIZE))
    if (
        header.mark not in HFS_PLUS_MARKS
        or header.block_size < 512
        or header.block_size.bit_count() != 1
    ):
        return None
    label, size = _hfs_label(peek, header, base), base + header.block_count * header.block_size
    return FileSystem("hfsplus", label, _hfs_uuid(header.identity), size=size)


def hfs(peek: Peek) -> FileSystem | None:
    """Classic HFS, which Apple calls Mac OS Standard, without HFS+ in it."""
    block = HfsMasterBlock.unpack(peek.read(HFS_OFFSET, HfsMasterBlock.SIZE))
    if (
        block.mark != HFS_MARK
        or block.embedded is not None
        or block.block_size == 0
        or block.block_size % SECTOR
        or not 0 < block.name_length <= len(block.name)
    ):
        return None
    label = block.name[: block.name_length].decode(MAC_ROMAN)
    return FileSystem("hfs", label, _hfs_uuid(block.identity), size=block.end)


def mfs(peek: Peek) -> FileSystem | None:
    """MFS, of the first Macs: floppies of 400 KiB."""
    block = MfsMasterBlock.unpack(peek.read(HFS_OFFSET, MfsMasterBlock.SIZE))
    if not block.is_sound or not 0 < block.name_length <= len(block.name):
        return None
    size = block.first_block * SECTOR + block.block_count * block.block_size
    return FileSystem("mfs", block.name[: block.name_length].decode(MAC_ROMAN), size=size)


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
    size = block.block_count * block.block_size
    return FileSystem("apfs", uuid=uuid_text(block.uuid), size=size)
