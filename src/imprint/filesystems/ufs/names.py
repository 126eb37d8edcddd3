"""Names in folders of UFS, and those that are left of what was deleted.

A name that is deleted is not overwritten: the record before it becomes longer, or its inode
becomes 0 if it is the first of its 512 bytes (with Linux and Solaris, of any).

Source: FreeBSD ``sys/ufs/ufs/dir.h``; before 4.4BSD: Linux ``fs/ufs/ufs_fs.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 512
"""No record goes on behind its end; on some systems, behind that of two."""

_HEAD_BYTES: Final = 8
_TYPES: Final = frozenset({0, 1, 2, 4, 6, 8, 10, 12, 14})


class Name(NamedTuple):
    """A name.

    Attributes:
        name: without its zero.
        inode: its number.
        type: the upper four bits of a mode; ``0`` where that is not told.
        is_deleted: it was given up.
    """

    name: bytes
    inode: int
    type: int
    is_deleted: bool = False


class Names:
    """How a file system has names in its folders."""

    def __init__(self, order: str, *, has_types: bool, inode_count: int) -> None:
        """``has_types``: as since 4.4BSD, a byte says what it is."""
        self._head = struct.Struct(f"{order}IHBB" if has_types else f"{order}IHH")
        self._has_types = has_types
        self._inode_count = inode_count

    def names(self, data: bytes, *, deleted: bool) -> Iterator[Name | None]:
        """What is in a part of a folder that begins and ends with whole records.

        ``None`` for what is no record; what follows it is looked for 512 bytes further.

        Args:
            data: of the folder.
            deleted: tell deleted names as well.
        """
        at = 0
        while at < len(data):
            number, length, kind, count = self._record(data, at)
            needed = _needed(count)
            is_sound = length >= _HEAD_BYTES and length % 4 == 0 and at + length <= len(data)
            if not is_sound or (number and not 0 < count <= length - _HEAD_BYTES):
                yield None
                at += CHUNK - at % CHUNK
                continue
            end = at + length
            if number:
                yield Name(data[at + _HEAD_BYTES : at + _HEAD_BYTES + count], number, kind)
            if deleted:
                yield from self._left(data, at + needed if number else at, end)
            at = end

    def all_deleted(self, data: bytes) -> Iterator[Name]:
        """What is in a part of a folder that was deleted itself."""
        return self._left(data, 0, len(data))

    def _left(self, data: bytes, at: int, end: int) -> Iterator[Name]:
        """What is left of names, between records."""
        limit = max(end, (at | CHUNK - 1) + 1)
        while at + _needed(1) <= end:
            number, length, kind, count = self._record(data, at)
            needed = _needed(count)
            name = data[at + _HEAD_BYTES : at + _HEAD_BYTES + count]
            if (
                number < self._inode_count
                and count > 0
                and at + needed <= end
                and length % 4 == 0
                and needed <= length <= limit - at
                and kind in _TYPES
                and not data[at + _HEAD_BYTES + count]
                and b"\0" not in name
                and b"/" not in name
            ):
                yield Name(name, number, kind, is_deleted=True)
                at += needed
            else:
                at += 4

    def _record(self, data: bytes, at: int) -> tuple[int, int, int, int]:
        """Inode, length of the record, type, and length of the name; zeros if it is cut off."""
        if at + _HEAD_BYTES > len(data):
            return 0, 0, 0, 0
        if self._has_types:
            number, length, kind, count = self._head.unpack_from(data, at)
            return number, length, kind, count
        number, length, count = self._head.unpack_from(data, at)
        return number, length, 0, count if count < 256 else 0


def _needed(count: int) -> int:
    """Bytes of a record with a name of so many, with a zero behind it."""
    return _HEAD_BYTES + (count + 4 & ~3)
