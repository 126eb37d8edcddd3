"""Extended attributes of F2FS.

Source: Linux ``fs/f2fs/xattr.h`` and ``fs/f2fs/xattr.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.attributes import indexed
from imprint.filesystems.f2fs import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.tree import Attribute

_ENTRY: Final = struct.Struct("<BBH")
"""Number of the namespace, length of the name, of the value; both follow."""


def attributes(data: bytes) -> Iterator[Attribute]:
    """Those of an inode, of all that it has of them.

    Raises:
        CorruptImageError: if they cannot be.
    """
    if data[:4] != layout.ATTRIBUTES_MARK:
        return  # there never were any
    at = layout.ATTRIBUTES_HEAD
    while at + _ENTRY.size <= len(data) and data[at : at + _ENTRY.size] != bytes(_ENTRY.size):
        index, count, length = _ENTRY.unpack_from(data, at)
        start = at + _ENTRY.size
        end = start + count + length
        if end > len(data):
            raise CorruptImageError("expected attributes that end")
        found = indexed(index, data[start : start + count], data[start + count : end])
        if found is not None:
            yield found
        at = end + 3 & ~3
