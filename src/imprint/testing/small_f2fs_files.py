"""The same small F2FS, with files: one in each way that blocks and names are found.

::

    3  the root, with its names within       5  file, with all kinds of nodes below it: 6 to 11
    13 folder, which holds 3 and 5 again     12 link, its target within

Source: Linux ``include/linux/f2fs_fs.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK
from imprint.testing import small_f2fs
from imprint.testing.small_f2fs import MAIN, NAT, node

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST: Final = MAIN + 16
_EACH: Final = layout.NODE_ENTRIES
OWN_ADDRESSES: Final = 923
"""Of an inode without anything else in it."""

BLOCKS_AT: Final = {
    "inode": 0,
    "direct": OWN_ADDRESSES,
    "indirect": OWN_ADDRESSES + 2 * _EACH,
    "double": OWN_ADDRESSES + 2 * _EACH + 2 * _EACH * _EACH,
}
"""Which blocks of the file there are, by what tells their place; all others are holes."""

FILE_BYTES: Final = (BLOCKS_AT["double"] + 1) * BLOCK - 100
TARGET: Final = b"../where/it/leads"
ATTRIBUTES: Final = {"user.one": b"value", "security.more": b"", "trusted.t": bytes(range(9))}
"""Of the link."""

_NAMES_AREA: Final = 4 * (OWN_ADDRESSES - 50 - 1)
"""Of an inode with names: 50 addresses are kept for attributes, and one for nothing."""

_WITHIN: Final = layout.INLINE_DATA | layout.INLINE_XATTR
_DATA: Final = _FIRST + 16
PLACES: Final = (*small_f2fs.PLACES, *range(_FIRST, _FIRST + 10), *range(_DATA, _DATA + 5))
"""Numbers of the blocks that are given; all others are zeros."""


def content_of(where: str) -> bytes:
    """Of the block that is found there."""
    return where.encode().ljust(BLOCK, b".")


def small_f2fs_files() -> bytes:
    """The blocks of :data:`PLACES`."""
    given = small_f2fs.small_f2fs()
    parts = [given[at : at + BLOCK] for at in range(0, len(given), BLOCK)]
    blocks = dict(zip(small_f2fs.PLACES, parts, strict=True))
    numbers = {3: MAIN} | {nid: _FIRST + nid - 5 for nid in range(5, 14)}
    blocks[NAT] = b"".join(
        struct.pack("<BII", 0, nid, numbers.get(nid, 0)) for nid in range(14)
    ).ljust(BLOCK, b"\0")
    below = [(b"file", 5), (b"link", 12), (b"a folder of a longer name", 13)]
    root = bytes(4) + _names(below, (_NAMES_AREA * 8) // (19 * 8 + 1), _NAMES_AREA)
    blocks[MAIN] = node(3, 0, _inode(0o40755, BLOCK, layout.INLINE_NAMES, root))
    own = struct.pack("<I", _DATA).ljust(4 * OWN_ADDRESSES, b"\0")
    ways = struct.pack("<5I", 6, 0, 7, 0, 8)
    double = 5 + 2 * _EACH
    blocks |= {
        numbers[5]: node(5, 0, _inode(0o100640, FILE_BYTES, 0, own + ways), ino=5),
        numbers[6]: node(6, 1, struct.pack("<I", _DATA + 1), ino=5),
        numbers[7]: node(7, 3, struct.pack("<I", 9), ino=5),
        numbers[8]: node(8, double, struct.pack("<I", 10), ino=5),
        numbers[9]: node(9, 4, struct.pack("<I", _DATA + 2), ino=5),
        numbers[10]: node(10, double + 1, struct.pack("<I", 11), ino=5),
        numbers[11]: node(11, double + 2, struct.pack("<I", _DATA + 3), ino=5),
        numbers[12]: node(12, 0, _inode(0o120777, len(TARGET), _WITHIN, _link()), ino=12),
        numbers[13]: node(13, 0, _inode(0o40700, BLOCK, 0, struct.pack("<I", _DATA + 4)), ino=13),
        _FIRST + 9: bytes(BLOCK),
        _DATA + 4: _names([(b".", 13), (b"..", 3), (b"again", 3), (b"file", 5)], 214, BLOCK),
    }
    for at, where in enumerate(BLOCKS_AT):
        blocks[_DATA + at] = content_of(where)
    return b"".join(blocks[place] for place in PLACES)


def _link() -> bytes:
    """Its target, and at the end of the inode its attributes."""
    found = layout.ATTRIBUTES_MARK.ljust(layout.ATTRIBUTES_HEAD, b"\0")
    numbers = {"user": 1, "trusted": 4, "security": 6}
    for whole, value in ATTRIBUTES.items():
        space, name = whole.split(".")
        head = struct.pack("<BBH", numbers[space], len(name), len(value))
        entry = head + name.encode() + value
        found += entry.ljust(-(-len(entry) // 4) * 4, b"\0")
    room = 4 * OWN_ADDRESSES - layout.INLINE_XATTR_BYTES
    return (bytes(4) + TARGET).ljust(room, b"\0") + found


def _inode(mode: int, size: int, inline: int, content: bytes) -> bytes:
    head = layout.Inode(
        mode=mode, size=size, inline=inline, links=1, modified_s=1_000_000_000, modified_ns=5
    )
    return head.pack()[: layout.ADDRESSES_AT] + content


def _names(names: Sequence[tuple[bytes, int]], slots: int, size: int) -> bytes:
    """A bitmap, entries, and names in slots of 8 bytes; what is left over is behind the bitmap."""
    bitmap, entries, texts = 0, b"", b""
    for name, number in names:
        taken = -(-len(name) // 8)
        bitmap |= ((1 << taken) - 1) << len(entries) // 11
        entries += struct.pack("<IIHB", 7, number, len(name), 0).ljust(11 * taken, b"\0")
        texts += name.ljust(8 * taken, b"\0")
    room = size - 19 * slots
    return (
        bitmap.to_bytes(room, "little")
        + entries.ljust(11 * slots, b"\0")
        + texts.ljust(8 * slots, b"\0")
    )
