"""Extended attributes of SquashFS: a table of their own, whose entries inodes share.

Source: Linux ``fs/squashfs/xattr.c``, ``fs/squashfs/xattr_id.c``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.attributes import check_length
from imprint.filesystems.squashfs import layout
from imprint.filesystems.squashfs.metadata import Cursor
from imprint.filesystems.tree import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.squashfs.metadata import Metadata
    from imprint.filesystems.tree import Attribute

_PREFIXES: Final = {0: "user.", 1: "trusted.", 2: "security."}


class Attributes:
    """Reads the attributes of a file system. For one thread."""

    def __init__(self, reader: VolumeReader, metadata: Metadata, table: int) -> None:
        """The table begins at a place of the volume.

        Raises:
            CorruptImageError: if that is outside of it.
            ReadError: if it cannot be read.
        """
        self._metadata = metadata
        head = reader.read(table, layout.ATTRIBUTES_HEAD.size, "table of attributes")
        self._start, self._count = layout.ATTRIBUTES_HEAD.unpack(head)
        self._blocks = metadata.table(table + len(head), self._count, layout.ATTRIBUTES_ENTRY.size)

    def of(self, number: int) -> Iterator[Attribute]:
        """Those of an entry of the table.

        Raises:
            CorruptImageError: if they cannot be.
            UnsupportedFeatureError: if a library is missing.
            ReadError: if they cannot be read.
        """
        if number >= self._count:
            raise CorruptImageError(f"expected one of {self._count} entries, found {number}")
        entry = layout.ATTRIBUTES_ENTRY
        block, index = divmod(number, layout.METADATA_BYTES // entry.size)
        cursor = Cursor(self._metadata, self._blocks[block], index * entry.size)
        reference, count = entry.unpack(cursor.read(entry.size))
        cursor = self._at(reference)
        for _ in range(count):
            kind, length = layout.NAME.unpack(cursor.read(layout.NAME.size))
            name = text_of(cursor.read(length))
            value = _value(cursor)
            prefix = _PREFIXES.get(kind & ~layout.VALUE_ELSEWHERE)
            if prefix is None:
                raise CorruptImageError(f"expected a known namespace, found {kind}")
            is_here = not kind & layout.VALUE_ELSEWHERE
            yield prefix + name, value if is_here else partial(self._elsewhere, value)

    def _elsewhere(self, reference: bytes) -> bytes:
        if len(reference) != layout.ELSEWHERE.size:
            raise CorruptImageError("expected a place of a value")
        return _value(self._at(*layout.ELSEWHERE.unpack(reference)))

    def _at(self, reference: int) -> Cursor:
        return Cursor(self._metadata, self._start + (reference >> 16), reference & 0xFFFF)


def _value(cursor: Cursor) -> bytes:
    (length,) = layout.VALUE.unpack(cursor.read(layout.VALUE.size))
    check_length(length)
    return cursor.read(length)
