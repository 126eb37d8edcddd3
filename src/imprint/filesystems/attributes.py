"""Extended attributes, as several file systems of Linux write them, and as Linux tells them.

Source: Linux ``include/uapi/linux/posix_acl_xattr.h``, ``fs/ext4/acl.h``, ``fs/xfs/xfs_acl.c``.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.tree import VALUE_BYTES_MAX, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imprint.filesystems.tree import Attribute

ACCESS_LIST: Final = "system.posix_acl_access"
DEFAULT_LIST: Final = "system.posix_acl_default"
"""Of a folder: what files get that are made in it."""

_LISTS: Final = {2: ACCESS_LIST, 3: DEFAULT_LIST}
_PREFIXES: Final = {1: "user.", 4: "trusted.", 6: "security."}
"""By the number that ext and F2FS have for it."""

_VERSION: Final = 2
_STORED_VERSION: Final = 1
_NAMED: Final = frozenset({0x02, 0x08})
"""Tags of entries that name a user, or a group."""

_UNNAMED: Final = frozenset({0x01, 0x04, 0x10, 0x20})
_GROUP: Final = 0x04
_NOBODY: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
"""Tag, permissions, number of the user or group."""

_SHORT: Final = struct.Struct("<HH")
_XFS_HEAD: Final = struct.Struct(">I")
_XFS_ENTRY: Final = struct.Struct(">IIH2x")
_FLAGS: Final = ((4, "r"), (2, "w"), (1, "x"))
_WHO: Final = {0x01: "user", 0x02: "user", 0x04: "group", 0x08: "group", 0x10: "mask"}


def check_length(length: int) -> None:
    """Refuse a value before it is read.

    Raises:
        CorruptImageError: if it is longer than :data:`VALUE_BYTES_MAX`.
    """
    if length > VALUE_BYTES_MAX:
        raise CorruptImageError(f"expected at most {VALUE_BYTES_MAX} bytes, found {length}")


def indexed(index: int, name: bytes, value: bytes | Callable[[], bytes]) -> Attribute | None:
    """An attribute of ext or F2FS, whose namespace is a number.

    ``None``: one that Linux does not tell, as it is the file system's own.
    """
    acl = _LISTS.get(index)
    if acl is not None:
        return acl, partial(_list_of, value)
    prefix = _PREFIXES.get(index)
    return None if prefix is None else (prefix + text_of(name), value)


def _list_of(value: bytes | Callable[[], bytes]) -> bytes:
    """An access control list of ext or F2FS as Linux tells it."""
    data = value if isinstance(value, bytes) else value()
    if len(data) < _HEAD.size or _HEAD.unpack_from(data)[0] != _STORED_VERSION:
        raise CorruptImageError("expected an access control list")
    rows, at = [], _HEAD.size
    while at < len(data):
        tag = int.from_bytes(data[at : at + 2], "little")
        form = _ENTRY if tag in _NAMED else _SHORT
        if at + form.size > len(data):
            raise CorruptImageError("expected an access control list that ends")
        _, permissions, *who = form.unpack_from(data, at)
        rows.append((tag, permissions, *(who or [_NOBODY])))
        at += form.size
    return _told(rows)


def list_of_xfs(data: bytes) -> bytes:
    """An access control list of XFS as Linux tells it.

    Raises:
        CorruptImageError: if it is none.
    """
    count = _XFS_HEAD.unpack_from(data)[0] if len(data) >= _XFS_HEAD.size else -1
    rest = data[_XFS_HEAD.size :]
    if len(rest) != count * _XFS_ENTRY.size:
        raise CorruptImageError("expected an access control list")
    return _told(
        (tag, permissions, who if tag in _NAMED else _NOBODY)
        for tag, who, permissions in _XFS_ENTRY.iter_unpack(rest)
    )


def _told(rows: Iterable[tuple[int, ...]]) -> bytes:
    found = [_HEAD.pack(_VERSION)]
    for tag, permissions, who in rows:
        if tag not in _NAMED and tag not in _UNNAMED:
            raise CorruptImageError(f"expected entries of a known kind, found 0x{tag:x}")
        found.append(_ENTRY.pack(tag, permissions, who))
    return b"".join(found)


def list_in_words(value: bytes) -> str | None:
    """An access control list, as Linux tells it, in the words of ``getfacl``.

    ``None``: it is none.
    """
    rest = value[_HEAD.size :]
    if value[: _HEAD.size] != _HEAD.pack(_VERSION) or len(rest) % _ENTRY.size:
        return None
    found = []
    for tag, permissions, who in _ENTRY.iter_unpack(rest):
        flags = "".join(flag if permissions & bit else "-" for bit, flag in _FLAGS)
        found.append(f"{_WHO.get(tag, 'other')}:{who if tag in _NAMED else ''}:{flags}")
    return ",".join(found)


def group_rights(value: bytes) -> int:
    """What an access control list, as Linux tells it, permits the group of a file.

    The mode of the file has there what it permits anybody whom it names.
    """
    rest = value[_HEAD.size :]
    rows = () if list_in_words(value) is None else _ENTRY.iter_unpack(rest)
    return next((permissions & 0o7 for tag, permissions, _ in rows if tag == _GROUP), 0)
