"""What lies within an inode of ext: a small file, or a small folder.

Source: Linux ``Documentation/filesystems/ext4/inlinedata.rst`` and ``attributes.rst``.
"""

from __future__ import annotations

import struct
from typing import Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.ext.layout import Inode

ATTRIBUTES_MARK: Final = (0xEA020000).to_bytes(4, "little")
ATTRIBUTE: Final = struct.Struct("<BBHIII")
"""Length of the name, number of its namespace, place of the value, inode that holds it, its length,
hash. The name follows."""

_SYSTEM: Final = 7
_DATA: Final = b"data"


def inline_content(raw: memoryview) -> bytes:
    """The 60 bytes in place of block numbers, and what of the attribute for it follows.

    Args:
        raw: all of the inode.

    Raises:
        CorruptImageError: if the attribute's value is outside of it.
    """
    return Inode.unpack(raw).block + _rest(raw)


def _rest(raw: memoryview) -> bytes:
    reach = int.from_bytes(raw[Inode.SIZE : Inode.SIZE + 2], "little")
    start = Inode.SIZE + reach + len(ATTRIBUTES_MARK)
    if len(raw) <= Inode.SIZE or raw[start - 4 : start] != ATTRIBUTES_MARK:
        return b""
    at = start
    while at + ATTRIBUTE.size <= len(raw) and raw[at : at + 4] != bytes(4):
        count, index, place, holder, length, _ = ATTRIBUTE.unpack_from(raw, at)
        at += ATTRIBUTE.size
        if index == _SYSTEM and bytes(raw[at : at + count]) == _DATA and not holder:
            if start + place + length > len(raw):
                raise CorruptImageError("expected a content inside of its inode")
            return bytes(raw[start + place : start + place + length])
        at += count + 3 & ~3
    return b""
