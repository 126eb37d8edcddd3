"""Names in folders of ext.

Source: Linux ``Documentation/filesystems/ext4/directory.rst``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD: Final = struct.Struct("<IHB")
_NAME_AT: Final = 8
_LARGEST: Final = 64 * KIB
_WHOLE: Final = (0, 0xFFFF)
"""How 16 bits say the length of an entry that is all of the largest block."""

_OWN: Final = (b"", b".", b"..")


def names_in(data: bytes | memoryview, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Name and inode of all that is in a block of a folder, or in a part of an inode.

    What has no inode is unused, or a node of the tree that finds names.

    Args:
        data: that holds it.
        at: where it begins there.
        end: the first byte behind it.

    Raises:
        CorruptImageError: behind those that can be told, if there are, or may be, others.
    """
    unnamed = 0
    while at + _NAME_AT <= end:
        inode, length, count = _HEAD.unpack_from(data, at)
        if length in _WHOLE and end - at == _LARGEST:
            length = _LARGEST
        is_last = length < _NAME_AT or length % 4 != 0 or at + length > end
        if count > (end - at if is_last else length) - _NAME_AT:
            unnamed = unnamed or inode
        elif inode:
            name = bytes(data[at + _NAME_AT : at + _NAME_AT + count])
            if name not in _OWN:
                yield name, inode
        if is_last:
            raise CorruptImageError("a damaged entry: the names behind it are lost")
        at += length
    if unnamed:
        raise CorruptImageError(f"inode {unnamed}: its name is longer than its entry")
