"""Inodes in the log of an XFS: as the machine had them in memory, and put back to the disk.

Source: Linux ``xfs_log_format.h`` (``xfs_inode_log_format``, ``xfs_log_dinode``),
``xfs_inode_item_recover.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.layout import BASIC_BLOCK, Inode, InodeItem, MapBlock
from imprint.filesystems.xfs.log import LogError

if TYPE_CHECKING:
    from imprint.filesystems.xfs.geometry import Geometry
    from imprint.filesystems.xfs.replay import Changes

_HEAD: Final = "HHbb2sIIIHH"
_COUNTS: Final = {2: "6sH", 3: "Q"}
"""By the version: the count of flushes, or the wide one of extents."""

_REST: Final = "QQIIHBbIHHI"
_V3: Final = "QQQI12s"
_OWN: Final = "Q16s"
_TIMES: Final = {False: "II", True: "Q"}
"""Seconds and ns, or ns since 1901 in one number."""

_END: Final = 96
"""Of what all versions have; the list of unlinked inodes follows, which is logged with blocks."""

_FLAGS2_AT: Final = 120
_V3_AT: Final = 104
_LSN_AT: Final = 112
_PLACE_AT: Final = 82
_NEVER: Final = 0xFFFF_FFFF_FFFF_FFFF
_ROOT_HEAD: Final = 4
_KEY: Final = 8


def inode_item(regions: list[bytearray]) -> InodeItem:
    """What an item says of the inode that it changes.

    Raises:
        LogError: if it is not whole.
    """
    first = bytearray(regions[0])
    if len(first) == layout.INODE_ITEM_SHORT:
        first[layout.INODE_ITEM_PADDING] = bytes(InodeItem.SIZE - layout.INODE_ITEM_SHORT)
    if len(first) != InodeItem.SIZE:
        raise LogError("it has an inode that is not whole")
    item = InodeItem.unpack(first)
    if item.regions != len(regions) or len(regions) < 2:
        raise LogError("it has an inode that is not whole")
    return item


def apply_inode(
    changes: Changes, geometry: Geometry, item: InodeItem, regions: list[bytearray], lsn: int
) -> int:
    """Put an inode to its place, unless the disk has a newer one; gives that, in bytes.

    Its checksum is not made: it may be changed again.

    Raises:
        LogError: if it contradicts itself, or is outside of the file system.
        ReadError: if the disk has to be read for it, and cannot be.
    """
    size = geometry.superblock.inode_size
    is_outside = not 0 <= item.offset <= item.length * BASIC_BLOCK - size
    if item.place < 0 or is_outside or item.offset % size:
        raise LogError(f"inode {item.number} is in no place for one")
    place = item.place * BASIC_BLOCK + item.offset
    first, within = divmod(place, BASIC_BLOCK)
    data = changes.get(first, -(-(within + size) // BASIC_BLOCK))
    inode = data[within : within + size]
    written = _written(inode, geometry, item.number)
    if written > lsn:
        changes.newest = max(changes.newest, written)
    else:
        _set_core(inode, geometry, item, regions[1], lsn)
        _set_forks(inode, geometry, item, regions[2:])
        data[within : within + size] = inode
        changes.put(first, data)
    return place


def _written(inode: bytearray, geometry: Geometry, number: int) -> int:
    """When an inode was written to its place: from then on, it may have times that no log has."""
    found = Inode.unpack(inode.ljust(Inode.SIZE, b"\0"))
    expected = (layout.INODE_MAGIC, 3, number, geometry.uuid)
    if not geometry.is_v5 or (found.magic, found.version, found.number, found.uuid) != expected:
        return 0
    return known_lsn(inode, _LSN_AT)


def known_lsn(data: bytes | bytearray, at: int) -> int:
    """When something was written; 0 if that is not known."""
    written = int.from_bytes(data[at : at + 8], "big")
    return 0 if written == _NEVER else written


def _set_core(
    inode: bytearray, geometry: Geometry, item: InodeItem, core: bytearray, lsn: int
) -> None:
    """All but the forks: numbers are in the order of the machine, and on the disk in the other."""
    version = 3 if geometry.is_v5 else 2
    if len(core) < (Inode.SIZE if geometry.is_v5 else _END):
        raise LogError(f"inode {item.number} is not whole")
    magic, found = int.from_bytes(core[:2], "little"), core[4]
    if magic != layout.INODE_MAGIC or (found == 3) != geometry.is_v5:
        raise LogError(f"inode {item.number} is none")
    flags2 = int.from_bytes(core[_FLAGS2_AT : _FLAGS2_AT + 8], "little") if geometry.is_v5 else 0
    times = _TIMES[bool(flags2 & layout.INODE_BIG_TIME)]
    _swap(inode, core, 0, _HEAD + _COUNTS[version] + 3 * times + _REST)
    if geometry.is_v5:
        _swap(inode, core, _V3_AT, _V3 + times + _OWN)
        inode[_LSN_AT : _LSN_AT + 8] = lsn.to_bytes(8, "big")


def _swap(target: bytearray, source: bytearray, at: int, form: str) -> None:
    values = struct.unpack_from(f"<{form}", source, at)
    struct.pack_into(f">{form}", target, at, *values)


def _set_forks(
    inode: bytearray, geometry: Geometry, item: InodeItem, regions: list[bytearray]
) -> None:
    head = Inode.SIZE if geometry.is_v5 else layout.INODE_CORE_V4
    place = inode[_PLACE_AT] * 8
    end = head + place if place else len(inode)
    if end > len(inode):
        raise LogError(f"inode {item.number} has attributes outside of it")
    if item.fields & layout.ILOG_DEVICE:
        inode[head : head + 4] = item.device.to_bytes(4, "big")
    forks = (
        (layout.ILOG_DATA | layout.ILOG_EXTENTS, layout.ILOG_TREE, head, end),
        (layout.ILOG_ATTR_DATA | layout.ILOG_ATTR_EXTENTS, layout.ILOG_ATTR_TREE, end, len(inode)),
    )
    left = list(regions)
    for plain, tree, start, stop in forks:
        if not item.fields & (plain | tree):
            continue
        if not left:
            raise LogError(f"inode {item.number} is not whole")
        content = left.pop(0)
        if item.fields & tree:
            content = _root(content, geometry, stop - start, item.number)
        if len(content) > stop - start:
            raise LogError(f"inode {item.number} has more in it than it has room for")
        inode[start : start + len(content)] = content


def _root(block: bytearray, geometry: Geometry, room: int, number: int) -> bytearray:
    """The root of a tree of extents, which in memory has the form of a block, as an inode has it.

    Source: Linux ``xfs_bmbt_to_bmdr``.
    """
    head = MapBlock.SIZE if geometry.is_v5 else layout.MAP_HEADER_V4
    header = MapBlock.unpack(block.ljust(MapBlock.SIZE, b"\0"))
    before, width = (len(block) - head) // (2 * _KEY), (room - _ROOT_HEAD) // (2 * _KEY)
    count = header.count
    if header.level == 0 or not 0 < count <= min(before, width):
        raise LogError(f"inode {number} has a tree that is none")
    root = bytearray(_ROOT_HEAD + 2 * _KEY * width)
    struct.pack_into(">HH", root, 0, header.level, count)
    keys, pointers = head, head + before * _KEY
    root[_ROOT_HEAD : _ROOT_HEAD + count * _KEY] = block[keys : keys + count * _KEY]
    start = _ROOT_HEAD + width * _KEY
    root[start : start + count * _KEY] = block[pointers : pointers + count * _KEY]
    return root
