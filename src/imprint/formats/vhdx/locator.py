"""The parent locator: keys and values that say where the parent is, and which state of it.

Source: [MS-VHDX] section 2.6.2.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import KIB
from imprint.formats.vhdx.header import read
from imprint.formats.vhdx.layout import LocatorEntry, LocatorHeader, guid, guid_text

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

LOCATOR_VHDX: Final = guid("b04aefb7-d19e-4a81-b789-25b8e9445913")
LOCATOR_BYTES_MAX: Final = 256 * KIB
KEYS_MAX: Final = 64
"""A real locator has five: two linkages and three paths."""


def unpack_locator(storage: Storage, offset: int, length: int) -> dict[str, str]:
    """Keys and values of the locator at ``offset`` of the file.

    Raises:
        CorruptImageError: if a key or value lies outside, or is no UTF-16.
        UnsupportedFeatureError: if the parent is of another kind than VHDX.
    """
    name = storage.name

    def text(start: int, size: int) -> str:
        if start + size > len(data):
            raise CorruptImageError("parent locator: expected text inside it", name=name)
        try:
            return data[start : start + size].decode("utf-16-le").rstrip("\0")
        except UnicodeDecodeError:
            raise CorruptImageError("parent locator: expected UTF-16", name=name) from None

    if length > LOCATOR_BYTES_MAX:
        raise CorruptImageError(
            f"parent locator: expected at most {LOCATOR_BYTES_MAX} bytes, found {length}", name=name
        )
    data = read(storage, offset, length)
    head = LocatorHeader.unpack(data, where=name)
    if head.guid != LOCATOR_VHDX:
        raise UnsupportedFeatureError(
            f"parent locator: expected one for VHDX, found {guid_text(head.guid)}", name=name
        )
    if head.count > KEYS_MAX:
        raise CorruptImageError(
            f"parent locator: expected at most {KEYS_MAX} keys, found {head.count}", name=name
        )
    found = {}
    for index in range(head.count):
        entry = LocatorEntry.unpack(data[LocatorHeader.SIZE + LocatorEntry.SIZE * index :])
        key = text(entry.key_offset, entry.key_length)
        found[key] = text(entry.value_offset, entry.value_length)
    return found


def pack_locator(values: dict[str, str]) -> bytes:
    """A locator as it stands in the file."""
    head = LocatorHeader(guid=LOCATOR_VHDX, count=len(values)).pack()
    entries, body = b"", b""
    start = len(head) + LocatorEntry.SIZE * len(values)
    for key, value in values.items():
        stored_key, stored = key.encode("utf-16-le"), value.encode("utf-16-le")
        at = start + len(body)
        entries += LocatorEntry(
            key_offset=at,
            value_offset=at + len(stored_key),
            key_length=len(stored_key),
            value_length=len(stored),
        ).pack()
        body += stored_key + stored
    return head + entries + body
