"""UFS, the file system of the BSDs.

Source: FreeBSD ``sys/ufs/ffs/fs.h``; the form of the UUID is that of libblkid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, uint
from imprint.filesystems.facts import FileSystem, text

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

UFS_OFFSETS: Final = (8192, 65536)
"""Of the superblock: within what is read at once; 0 and 256 KiB are not used in practice."""

_VERSIONS: Final = {0x011954: "1", 0x19540119: "2"}


class UfsSuperblock(Structure, size=1376, endian="<"):
    """What a superblock says of itself; in the byte order of who made it."""

    old_size: bytes = raw(4, at=36, doc="in fragments, of UFS1")
    fragment: bytes = raw(4, at=52, doc="in bytes")
    identity: bytes = raw(8, at=144, doc="two numbers")
    volume_name: bytes = raw(32, at=680, doc="of UFS2")
    size: bytes = raw(8, at=1080, doc="in fragments, of UFS2")
    magic: bytes = raw(4, at=1372, doc="tells the version")
    block_fragments: int = uint(4, at=56, doc="1 to 8, in either order not 0")


def ufs(peek: Peek) -> FileSystem | None:
    """UFS1 or UFS2."""
    for offset in UFS_OFFSETS:
        block = UfsSuperblock.unpack(peek.read(offset, UfsSuperblock.SIZE))
        for order in ("little", "big"):
            version = _VERSIONS.get(int.from_bytes(block.magic, order))
            if version is None or not block.block_fragments:
                continue
            first, second = (int.from_bytes(block.identity[at : at + 4], order) for at in (0, 4))
            identity = f"{first:08x}{second:08x}" if first or second else None
            label = text(block.volume_name) if version == "2" else None
            count = int.from_bytes(block.size if version == "2" else block.old_size, order)
            size = count * int.from_bytes(block.fragment, order)
            return FileSystem("ufs", label, identity, version, size)
    return None
