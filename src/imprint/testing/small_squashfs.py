"""A SquashFS of a few blocks, made by hand: what ``mksquashfs`` makes is mostly compressed.

Source: Linux ``Documentation/filesystems/squashfs.rst``, ``fs/squashfs/squashfs_fs.h``.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Final

from imprint.codecs import blocks, zstd
from imprint.core.units import KIB
from imprint.filesystems.squashfs import layout
from imprint.filesystems.squashfs.layout import Superblock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK: Final = 4 * KIB
NAMES: Final = ("empty", "file", "folder", "link", "pipe")
_STORED: Final = bytes(range(256)) * 16
_PACKED: Final = b"said again and again\n" * 195 + b"\n"
_END: Final = b"the end of a file"

ATTRIBUTES: Final = {"user.one": b"of its own", "security.far": b"of its own"}
"""Of the file: the second one's value is the first one's."""

CONTENT: Final = _PACKED + _STORED + bytes(BLOCK) + _END
"""Of the file: a block of each kind, and an end in a fragment."""

PACKERS: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: zlib.compress,
    2: lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    4: lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32),
    5: blocks.compress_lz4,
    6: zstd.compress,
}
"""By the number of the compressor."""


def small_squashfs(compressor: int = 1, *, is_plain: bool = False) -> bytes:
    """A root with what :data:`NAMES` says; the folder holds the root again.

    Args:
        compressor: by its number; not LZO.
        is_plain: whether metadata are stored as they are.
    """
    pack = PACKERS[compressor]

    def metadata(data: bytes) -> bytes:
        packed = data if is_plain else pack(data)
        if is_plain or len(packed) >= len(data):
            return struct.pack("<H", len(data) | layout.METADATA_STORED) + data
        return struct.pack("<H", len(packed)) + packed

    packed, end = pack(_PACKED), pack(_END + b"and of others" * 9)
    data = packed + _STORED + end
    words = (len(packed), BLOCK | layout.DATA_STORED, 0)
    inodes, references = _inodes(words)
    root, folder = _folder(NAMES, references), _folder(["again"], {"again": references["root"]})
    start = Superblock.SIZE
    table = start + len(data)
    inode_block = metadata(inodes)
    folders = table + len(inode_block)
    folder_block = metadata(root + folder)
    fragments = folders + len(folder_block)
    place = start + len(packed) + BLOCK
    fragment_block = metadata(layout.FRAGMENT.pack(place, len(end)))
    ids = fragments + len(fragment_block) + 8
    id_block = metadata(struct.pack("<2I", 0, 70_000))
    values_at = ids + len(id_block) + 8
    value_block, entry_block = metadata(_values()), metadata(layout.ATTRIBUTES_ENTRY.pack(0, 2))
    attributes_at = values_at + len(value_block) + len(entry_block)
    tail = (
        fragment_block
        + struct.pack("<Q", fragments)
        + id_block
        + struct.pack("<Q", fragments + len(fragment_block) + 8)
        + value_block
        + entry_block
        + layout.ATTRIBUTES_HEAD.pack(values_at, 1)
        + struct.pack("<Q", values_at + len(value_block))
    )
    head = Superblock(
        magic=layout.MAGIC,
        inode_count=6,
        block_size=BLOCK,
        fragment_count=1,
        compressor=compressor,
        block_log=12,
        id_count=2,
        version_major=4,
        root_inode=references["root"],
        bytes_used=fragments + len(tail),
        id_table=ids + len(id_block),
        attribute_table=attributes_at,
        inode_table=table,
        folder_table=folders,
        fragment_table=fragments + len(fragment_block),
    ).pack()
    return head + data + inode_block + folder_block + tail


def _inodes(words: Sequence[int]) -> tuple[bytes, dict[str, int]]:
    """All of them in one block, and where each begins."""
    root_bytes = layout.FOLDER_HEAD.size + sum(8 + len(name) for name in NAMES)
    bodies = {
        "root": _head(1, 1) + layout.FOLDER.pack(0, 3, root_bytes + 3, 0, 7),
        "empty": _head(2, 2) + layout.FILE.pack(0, layout.NO_FRAGMENT, 0, 0),
        "file": _head(9, 3)
        + layout.EXTENDED_FILE.pack(Superblock.SIZE, len(CONTENT), BLOCK, 1, 0, 0, 0)
        + struct.pack(f"<{len(words)}I", *words),
        "folder": _head(8, 4)
        + layout.EXTENDED_FOLDER.pack(2, 12 + 8 + 5 + 3, 0, 1, 0, root_bytes, 0xFFFFFFFF),
        "link": _head(3, 5) + layout.LINK.pack(1, 6) + b"folder",
        "pipe": _head(6, 6) + layout.OTHER.pack(1),
    }
    found, references = b"", {}
    for name, body in bodies.items():
        references[name] = len(found)
        found += body
    return found, references


def _values() -> bytes:
    """Names and values of what :data:`ATTRIBUTES` says."""
    (first, value), (second, _) = ATTRIBUTES.items()
    own, far = first.removeprefix("user.").encode(), second.removeprefix("security.").encode()
    name = layout.NAME.pack(0, len(own)) + own
    found = name + layout.VALUE.pack(len(value)) + value
    found += layout.NAME.pack(2 | layout.VALUE_ELSEWHERE, len(far)) + far
    return found + layout.VALUE.pack(8) + layout.ELSEWHERE.pack(len(name))


def _head(kind: int, number: int) -> bytes:
    return layout.INODE.pack(kind, 0o750, 1, 0, 1_000_000_000, number)


def _folder(names: Sequence[str], references: dict[str, int]) -> bytes:
    found = layout.FOLDER_HEAD.pack(len(names) - 1, 0, 1)
    for name in names:
        found += layout.FOLDER_ENTRY.pack(references[name], 0, 1, len(name) - 1) + name.encode()
    return found
