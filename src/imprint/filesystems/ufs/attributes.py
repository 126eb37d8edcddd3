"""Extended attributes of UFS2.

Source: FreeBSD ``sys/ufs/ufs/extattr.h`` (``struct extattr``).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.tree import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.tree import Attribute

_HEAD_BYTES: Final = 7
_ALIGNMENT: Final = 8
_PREFIXES: Final = {1: "user.", 2: "system."}


def attributes(data: bytes, order: str) -> Iterator[Attribute]:
    """Names and values of what an inode has of them.

    Raises:
        CorruptImageError: if they do not end inside of it.
    """
    head = struct.Struct(f"{order}IBBB")
    at = 0
    while at + _HEAD_BYTES <= len(data):
        length, space, padding, count = head.unpack_from(data, at)
        if not length:
            return
        start = at + _HEAD_BYTES + count
        start += -start % _ALIGNMENT
        end = at + length - padding
        if length % _ALIGNMENT or at + length > len(data) or start > end:
            raise CorruptImageError("expected attributes one behind the other")
        name = data[at + _HEAD_BYTES : at + _HEAD_BYTES + count]
        prefix = _PREFIXES.get(space)
        if prefix is not None:
            yield prefix + text_of(name), data[start:end]
        at += length
