"""File systems of Linux, and its swap.

Source: Linux ``fs/ext4/ext4.h``, ``fs/xfs/libxfs/xfs_format.h``, ``fs/btrfs`` on-disk format,
``include/linux/f2fs_fs.h``, ``fs/squashfs/squashfs_fs.h`` and ``include/linux/swap.h``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB
from imprint.filesystems.facts import FileSystem, text, uuid_text

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

EXT_MAGIC: Final = 0xEF53
EXT_OFFSET: Final = 1024
XFS_MAGIC: Final = b"XFSB"
BTRFS_MAGIC: Final = b"_BHRfS_M"
BTRFS_OFFSET: Final = 64 * KIB
F2FS_MAGIC: Final = 0xF2F52010
F2FS_OFFSET: Final = 1024
SWAP_PAGES: Final = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)

# Features that tell the kinds apart: ext2 has no journal, and ext3 only the features that
# its last kernel driver knew.
_EXT_HAS_JOURNAL: Final = 0x0004
_EXT_JOURNAL_DEVICE: Final = 0x0008
_EXT2_INCOMPAT: Final = 0x0002 | 0x0010  # file types, meta block groups
_EXT3_INCOMPAT: Final = _EXT2_INCOMPAT | 0x0004  # the journal needs recovery
_EXT_64BIT: Final = 0x0080
_EXT3_RO_COMPAT: Final = 0x0001 | 0x0002 | 0x0004  # sparse supers, large files, B-tree dirs

# In place of the mark at the end of the first page, or at its start beside a mark of swap.
_HIBERNATED: Final = (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
_TUX_ON_ICE: Final = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"


class ExtSuperblock(Structure, size=344, endian="<"):
    """The beginning of the superblock of ext2, ext3 and ext4."""

    block_count: int = uint(4, at=4, doc="its low half")
    log_block_size: int = uint(4, at=24, doc="block size is 1024 << this; at most 6")
    magic: int = uint(2, at=56, doc="EXT_MAGIC")
    compat: int = uint(4, at=92, doc="features that may be ignored")
    incompat: int = uint(4, at=96, doc="features without which nothing can be read")
    ro_compat: int = uint(4, at=100, doc="features without which nothing may be written")
    uuid: bytes = raw(16, at=104, doc="of the file system")
    label: bytes = raw(16, at=120, doc="UTF-8")
    block_count_high: int = uint(4, at=336, doc="its high half, of a 64-bit file system")


class XfsSuperblock(Structure, size=128, endian=">"):
    """The beginning of the first allocation group."""

    magic: bytes = raw(4, at=0, doc="XFS_MAGIC")
    block_size: int = uint(4, at=4, doc="512 to 65536")
    block_count: int = uint(8, at=8, doc="of the data section")
    uuid: bytes = raw(16, at=32, doc="of the file system")
    group_count: int = uint(4, at=88, doc="allocation groups; at least 1")
    sector_size: int = uint(2, at=102, doc="512 to 32768")
    label: bytes = raw(12, at=108, doc="sb_fname")
    block_log: int = uint(1, at=120, doc="block size is 1 << this")
    sector_log: int = uint(1, at=121, doc="sector size is 1 << this")


class BtrfsSuperblock(Structure, size=0x22B, endian="<"):
    """The beginning of the first superblock."""

    uuid: bytes = raw(16, at=0x20, doc="of the file system")
    own_offset: int = uint(8, at=0x30, doc="of this superblock")
    magic: bytes = raw(8, at=0x40, doc="BTRFS_MAGIC")
    sector_size: int = uint(4, at=0x90, doc="a power of two")
    device_size: int = uint(8, at=0xD1, doc="bytes, of the device that it is on")
    label: bytes = raw(256, at=0x12B, doc="UTF-8")


class F2fsSuperblock(Structure, size=0x47C, endian="<"):
    """The beginning of the first superblock."""

    magic: int = uint(4, at=0, doc="F2FS_MAGIC")
    log_block_size: int = uint(4, at=0x10, doc="12 to 16")
    block_count: int = uint(8, at=0x24, doc="of the volume")
    uuid: bytes = raw(16, at=0x6C, doc="of the file system")
    label: bytes = raw(1024, at=0x7C, doc="UTF-16")


class SquashfsSuperblock(Structure, size=48, endian="<"):
    """The beginning of a squashfs 4 image; older ones have another layout behind the magic."""

    magic: bytes = raw(4, at=0, doc="hsqs; sqsh in the big-endian ones before version 4")
    block_size: int = uint(4, at=12, doc="4 KiB to 1 MiB")
    block_log: int = uint(2, at=22, doc="block size is 1 << this")
    version_major: int = uint(2, at=28, doc="4")
    version_minor: int = uint(2, at=30, doc="0")
    used_bytes: int = uint(8, at=40, doc="of the image")


class SwapHeader(Structure, size=48, endian="<"):
    """What stands at byte 1024 of a swap area; in the byte order of who made it."""

    version: int = uint(4, at=0, doc="1")
    last_page: int = uint(4, at=4, doc="not 0")
    uuid: bytes = raw(16, at=12, doc="of the area")
    label: bytes = raw(16, at=28, doc="UTF-8")


def ext(peek: Peek) -> FileSystem | None:
    """ext2, ext3, ext4, or ``jbd``, a journal on a device of its own."""
    block = ExtSuperblock.unpack(peek.read(EXT_OFFSET, ExtSuperblock.SIZE))
    if block.magic != EXT_MAGIC or block.log_block_size > 6 or block.block_count == 0:
        return None
    high = block.block_count_high << 32 if block.incompat & _EXT_64BIT else 0
    size = (high + block.block_count) << (10 + block.log_block_size)
    return FileSystem(_ext_kind(block), text(block.label), uuid_text(block.uuid), size=size)


def _ext_kind(block: ExtSuperblock) -> str:
    if block.incompat & _EXT_JOURNAL_DEVICE:
        return "jbd"
    if block.ro_compat & ~_EXT3_RO_COMPAT or block.incompat & ~_EXT3_INCOMPAT:
        return "ext4"
    return "ext3" if block.compat & _EXT_HAS_JOURNAL else "ext2"


def xfs(peek: Peek) -> FileSystem | None:
    """XFS."""
    block = XfsSuperblock.unpack(peek.read(0, XfsSuperblock.SIZE))
    if (
        block.magic != XFS_MAGIC
        or not 9 <= block.block_log <= 16
        or not 9 <= block.sector_log <= 15
        or block.block_size != 1 << block.block_log
        or block.sector_size != 1 << block.sector_log
        or block.group_count == 0
    ):
        return None
    size = block.block_count * block.block_size
    return FileSystem("xfs", text(block.label), uuid_text(block.uuid), size=size)


def btrfs(peek: Peek) -> FileSystem | None:
    """Btrfs."""
    block = BtrfsSuperblock.unpack(peek.read(BTRFS_OFFSET, BtrfsSuperblock.SIZE))
    if (
        block.magic != BTRFS_MAGIC
        or block.own_offset != BTRFS_OFFSET
        or block.sector_size.bit_count() != 1
    ):
        return None
    size = block.device_size
    return FileSystem("btrfs", text(block.label), uuid_text(block.uuid), size=size)


def f2fs(peek: Peek) -> FileSystem | None:
    """F2FS."""
    block = F2fsSuperblock.unpack(peek.read(F2FS_OFFSET, F2fsSuperblock.SIZE))
    if block.magic != F2FS_MAGIC or not 9 <= block.log_block_size <= 16:
        return None
    label = text(block.label, "utf-16-le")
    size = block.block_count << block.log_block_size
    return FileSystem("f2fs", label, uuid_text(block.uuid), size=size)


def squashfs(peek: Peek) -> FileSystem | None:
    """Squashfs 4, or one of the versions before it."""
    block = SquashfsSuperblock.unpack(peek.read(0, SquashfsSuperblock.SIZE))
    if block.magic not in (b"hsqs", b"sqsh"):
        return None
    shift = 0 if block.magic == b"hsqs" else 8  # big-endian numbers below 256, read as little
    major, minor = block.version_major >> shift, block.version_minor >> shift
    version = f"{major}.{minor}"
    if 0 < major < 4:
        return FileSystem("squashfs3", version=version)
    if major != 4 or block.block_log > 20 or block.block_size != 1 << block.block_log:
        return None
    return FileSystem("squashfs", version=version, size=block.used_bytes)


def swap(peek: Peek) -> FileSystem | None:
    """A swap area, or ``swsuspend``, one that a hibernated system is in."""
    header = SwapHeader.unpack(peek.read(1024, SwapHeader.SIZE))
    label, identity = text(header.label), uuid_text(header.uuid)
    if peek.read(0, len(_TUX_ON_ICE)) == _TUX_ON_ICE:
        return FileSystem("swsuspend", label, identity)
    for page in SWAP_PAGES:
        mark = peek.read(page - 10, 10)
        if mark == b"SWAP-SPACE":
            return FileSystem("swap", version="0")
        if mark == b"SWAPSPACE2" and header.version in (1, 1 << 24) and header.last_page:
            return FileSystem("swap", label, identity, "1")
        if mark.startswith(_HIBERNATED):
            return FileSystem("swsuspend", label, identity)
    return None
