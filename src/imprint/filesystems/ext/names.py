"""Names in folders of ext.

Source: Linux ``Documentation/filesystems/ext4/directory.rst``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD: Final = struct.Struct("<IHB")
_OWN: Final = (b"", b".", b"..")


def names_in(data: bytes | memoryview, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Name and inode of all that is in a block of a folder, or in a part of an inode.

    What has no inode is unused, or a node of the tree that finds names.

    Args:
        data: that holds it.
        at: where it begins there.
        end: the first byte behind it.
    """
    while at + 8 <= end:
        inode, length, count = _HEAD.unpack_from(data, at)
        name = bytes(data[at + 8 : min(at + 8 + count, end)])
        if inode and name not in _OWN:
            yield name, inode
        if length < 8 or length % 4:
            return
        at += length
