"""Names in folders of XFS: within an inode, or in blocks.

Source: "XFS Algorithms & Data Structures", chapter 19 (directories); Linux ``xfs_da_format.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA_END: Final = 1 << 35
"""In a folder: what is behind has no names, but tells where names are."""

_HEADS: Final = {b"XD2B": 16, b"XD2D": 16, b"XDB3": 64, b"XDD3": 64}
"""What a block of names begins with, and how long that is."""

_WITH_TAIL: Final = frozenset({b"XD2B", b"XDB3"})
"""A folder of a single block has what tells where names are at its end."""

_UNUSED: Final = b"\xff\xff"
_ENTRY: Final = struct.Struct(">QB")
_UNUSED_LENGTH: Final = struct.Struct(">2xH")
_COUNT: Final = struct.Struct(">I4x")


def names_in_inode(fork: memoryview, *, has_types: bool) -> Iterator[tuple[bytes, int]]:
    """Name and inode of all that is in a small folder.

    Args:
        fork: the data of the inode.
        has_types: whether the type of each stands beside its name.

    Raises:
        CorruptImageError: if they do not end inside of it.
    """
    if len(fork) < 6:
        raise CorruptImageError("expected names in an inode, found none")
    count, wide = fork[0], fork[1]
    width = 8 if wide else 4
    at = 2 + width
    for _ in range(wide or count):
        if at + 3 > len(fork):
            raise CorruptImageError("expected names inside of an inode")
        length = fork[at]
        start = at + 3
        number = start + length + has_types
        at = number + width
        if at > len(fork):
            raise CorruptImageError("expected names inside of an inode")
        yield bytes(fork[start : start + length]), int.from_bytes(fork[number:at], "big")


def names_in_block(data: bytes, *, has_types: bool) -> Iterator[tuple[bytes, int]]:
    """The same of a block.

    Raises:
        CorruptImageError: if it is none, or they do not end inside of it.
    """
    mark = data[:4]
    at = _HEADS.get(mark)
    if at is None:
        raise CorruptImageError(f"expected a block of names, found 0x{mark.hex()}")
    end = len(data)
    if mark in _WITH_TAIL:
        end -= _COUNT.size + 8 * _COUNT.unpack_from(data, end - _COUNT.size)[0]
    while at + 8 <= end:
        if data[at : at + 2] == _UNUSED:
            (length,) = _UNUSED_LENGTH.unpack_from(data, at)
        else:
            number, count = _ENTRY.unpack_from(data, at)
            name = data[at + 9 : at + 9 + count]
            length = (9 + count + has_types + 2 + 7) & ~7
            if count == 0 or at + length > end:
                raise CorruptImageError("expected names inside of a block")
            yield name, number
        if length < 8 or length % 8:
            raise CorruptImageError("expected names one behind the other")
        at += length
