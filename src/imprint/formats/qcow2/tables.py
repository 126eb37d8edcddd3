"""Tables of big-endian numbers, held in memory by slices, a bounded number of them.

A slice is an ``array`` in the machine's byte order: looking up and scanning it is then as
fast as Python gets, and it takes no more memory than on the disk.
"""

from __future__ import annotations

import array
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.errors import TruncatedImageError
from imprint.core.limits import TABLE_CACHE_BYTES
from imprint.core.units import KIB, align_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

SLICE_BYTES_MAX: Final = 64 * KIB
"""Of a table. Tables reach 2 MiB; whoever needs one entry should not read all of that."""

Width = Literal["B", "H", "I", "Q"]
"""The ``array`` type code of an entry of 1, 2, 4 or 8 bytes."""


class TableCache:
    """Slices by where they are stored. Not thread-safe: the layer has the lock.

    Changed slices stay until :meth:`write_back`; others are forgotten when there are too
    many, the least recently used first.
    """

    def __init__(self, storage: Storage, *, width: Width, slice_bytes: int) -> None:
        self._storage = storage
        self._width: Width = width
        self.slice_bytes: Final = slice_bytes
        self._slices: OrderedDict[int, array.array[int]] = OrderedDict()
        self._dirty: set[int] = set()
        self._count_max = max(4, TABLE_CACHE_BYTES // slice_bytes)

    @property
    def dirty_bytes(self) -> int:
        """Of slices that wait to be written back."""
        return len(self._dirty) * self.slice_bytes

    def get(self, offset: int) -> array.array[int]:
        """The slice at the storage offset ``offset``. Change it only with :meth:`mark_dirty`.

        Raises:
            TruncatedImageError: if the file ends before the slice does.
        """
        found = self._slices.get(offset)
        if found is not None:
            self._slices.move_to_end(offset)
            return found
        table = load(self._storage, offset, self.slice_bytes, self._width)
        self._keep(offset, table)
        return table

    def put(self, offset: int, table: array.array[int]) -> None:
        """Make ``table`` what is at ``offset``, whatever the file has there."""
        assert len(table) * table.itemsize == self.slice_bytes
        self._dirty.add(offset)
        self._keep(offset, table)

    def put_zeros(self, offset: int, length: int) -> None:
        """Make ``length`` bytes of slices zero, whatever the file has there."""
        for start in range(offset, offset + length, self.slice_bytes):
            self.put(start, array.array(self._width, bytes(self.slice_bytes)))

    def mark_dirty(self, offset: int) -> None:
        """The slice at ``offset``, just got from here, has been changed."""
        assert offset in self._slices
        self._dirty.add(offset)

    def drop(self, offset: int, length: int) -> None:
        """Forget slices in a range that is a table no more, changed or not."""
        for start in range(offset, offset + length, self.slice_bytes):
            self._slices.pop(start, None)
            self._dirty.discard(start)

    def touches(self, offset: int, length: int) -> bool:
        """Whether a slice that is held lies in the range."""
        first = offset - offset % self.slice_bytes
        return any(
            start in self._slices for start in range(first, offset + length, self.slice_bytes)
        )

    def write_back(self) -> bool:
        """Write all changed slices, not flushed; whether there were any."""
        pending = sorted(self._dirty)
        for offset in pending:
            store(self._storage, offset, self._slices[offset])
        self._dirty.clear()
        self._trim()
        return bool(pending)

    def _keep(self, offset: int, table: array.array[int]) -> None:
        self._slices[offset] = table
        self._slices.move_to_end(offset)
        if len(self._slices) > self._count_max + len(self._dirty):
            self._trim()

    def _trim(self) -> None:
        excess = len(self._slices) - len(self._dirty) - self._count_max
        if excess <= 0:
            return
        clean = (offset for offset in self._slices if offset not in self._dirty)
        for offset in [next(clean) for _ in range(excess)]:
            del self._slices[offset]


def load(storage: Storage, offset: int, length: int, width: Width = "Q") -> array.array[int]:
    """Read a table of ``length`` bytes; the caller has checked that it is not too large.

    Raises:
        TruncatedImageError: if the file ends before the table does.
    """
    if offset + length > storage.size:
        raise TruncatedImageError(
            f"table at 0x{offset:x}: expected 0x{length:x} bytes inside the file's "
            f"0x{storage.size:x}",
            name=storage.name,
            offset=offset,
            length=length,
        )
    table = array.array(width, bytes(length))
    storage.readinto(memoryview(table).cast("B"), offset)
    if sys.byteorder == "little":
        table.byteswap()
    return table


def store(storage: Storage, offset: int, table: array.array[int]) -> None:
    """Write a whole table at ``offset``; long stretches of zeros at its end become a hole.

    With clusters of 2 MiB a small image would consist of its empty tables otherwise.
    """
    content = packed(table)
    length = min(align_up(len(content.rstrip(b"\0")), SLICE_BYTES_MAX), len(content))
    if length:
        storage.write(memoryview(content)[:length], offset)
    if length < len(content):
        storage.zero(offset + length, len(content) - length)


def packed(table: array.array[int]) -> bytes:
    """A table as it stands in the file."""
    if sys.byteorder == "little":
        table = table[:]
        table.byteswap()
    return table.tobytes()


def runs(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Join ascending numbers into ``(first, count)``."""
    first = count = 0
    for number in numbers:
        if count and number == first + count:
            count += 1
        else:
            if count:
                yield first, count
            first, count = number, 1
    if count:
        yield first, count
