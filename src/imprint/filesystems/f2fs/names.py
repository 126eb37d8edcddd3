"""Names in folders of F2FS: in blocks, or within an inode.

Source: Linux ``include/linux/f2fs_fs.h`` (``struct f2fs_dentry_block``, ``NR_INLINE_DENTRY``);
names without their key: ``fs/crypto/fname.c`` (``struct fscrypt_nokey_name``).
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENTRY: Final = struct.Struct("<IIHB")
"""Hash of the name, number of the inode, length of the name, type."""

_SLOT: Final = 8
"""Bytes of a name that an entry has; longer names take the slots of the next entries."""

_NAME_BYTES_MAX: Final = 255
_BLOCK_SLOTS: Final = 214
_BLOCK_NAMES_AT: Final = 30
"""Behind the bitmap of a block, and 3 bytes."""

_SHOWN_BYTES: Final = 149
"""Of an encrypted name; the rest is told by its hash."""


def names_in_block(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, number of the inode, and hash, of what a block of a folder has.

    Raises:
        CorruptImageError: if a name goes on behind its end.
    """
    return _names(data, _BLOCK_SLOTS, _BLOCK_NAMES_AT)


def names_in_inode(area: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The same of what an inode has, behind its first address.

    Raises:
        CorruptImageError: if a name goes on behind its end.
    """
    each = _ENTRY.size + _SLOT
    count = len(area) * 8 // (each * 8 + 1)
    return _names(area, count, len(area) - each * count)


def _names(data: bytes, count: int, entries_at: int) -> Iterator[tuple[bytes, int, int]]:
    names_at = entries_at + _ENTRY.size * count
    slot = 0
    while slot < count:
        if not data[slot // 8] >> slot % 8 & 1:
            slot += 1
            continue
        hash_, number, length, _ = _ENTRY.unpack_from(data, entries_at + _ENTRY.size * slot)
        slots = -(-length // _SLOT)
        if not 0 < length <= _NAME_BYTES_MAX or slot + slots > count:
            raise CorruptImageError(f"expected a name of 1 to 255 bytes, found {length}")
        start = names_at + _SLOT * slot
        yield data[start : start + length], number, hash_
        slot += slots


def without_key(name: bytes, hash_: int) -> bytes:
    """What Linux calls a file of which the name is encrypted, as long as it has no key."""
    shown = struct.pack("<II", hash_, 0) + name[:_SHOWN_BYTES]
    if len(name) > _SHOWN_BYTES:
        shown += hashlib.sha256(name[_SHOWN_BYTES:]).digest()
    return base64.urlsafe_b64encode(shown).rstrip(b"=")
