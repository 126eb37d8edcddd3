"""Tables of numbers in an image: read whole or by pieces, and searched for runs.

A table is an ``array`` in the machine's byte order: it takes no more memory than in the
file, and looking up is as fast as Python gets.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.errors import TruncatedImageError
from imprint.core.limits import TABLE_CACHE_BYTES
from imprint.core.units import KIB

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

ByteOrder = Literal["little", "big"]
EntryCode = Literal["H", "I", "Q"]
"""The ``array`` type code of an entry of 2, 4 or 8 bytes."""

PIECE_BYTES: Final = 64 * KIB
"""What :class:`TableCache` reads at a time: who needs one entry should not read megabytes."""

PAGE_BYTES: Final = 4 * KIB
"""What :class:`PagedTable` writes at least: a page of most file systems."""

WRITE_PAGES_MAX: Final = 256
"""Pages in one write: 1 MiB, which is copied for it."""

SHORT_RUN: Final = 8
"""Entries that are compared one by one first: most runs are short, or very long."""

STEP_RUN_MAX: Final = 4096
"""Entries that :func:`run_length` compares one by one: 0.3 ms."""

_PAGE_ENTRIES: Final = 1024


def read_table(
    storage: Storage, offset: int, count: int, code: EntryCode, byteorder: ByteOrder
) -> array[int]:
    """``count`` entries that begin at ``offset``.

    Nothing is allocated before it is known that the file has them.

    Raises:
        TruncatedImageError: if the file ends before the table does.
    """
    size = array(code).itemsize
    if offset + count * size > storage.size:
        raise TruncatedImageError(
            f"table at 0x{offset:x}: expected 0x{count * size:x} bytes inside the file's "
            f"0x{storage.size:x}",
            name=storage.name,
            offset=offset,
            length=count * size,
        )
    table = array(code, [0]) * count
    if count:
        storage.readinto(memoryview(table).cast("B"), offset)
    if sys.byteorder != byteorder:
        table.byteswap()
    return table


def stored(table: array[int], byteorder: ByteOrder) -> memoryview:
    """Entries as they stand in the file."""
    if sys.byteorder != byteorder:
        table = table[:]
        table.byteswap()
    return memoryview(table).cast("B")


def run_length(table: array[int], index: int, limit: int, *, step: int = 0) -> int:
    """How many entries from ``index`` on, at most ``limit``, go on as the first one begins.

    Args:
        table: where to look.
        index: of the first entry.
        limit: how far to look; the table may end before that.
        step: what each entry has more than the one before. With another step than 0, runs
            are cut off at ``STEP_RUN_MAX``.
    """
    limit = min(limit, len(table) - index)
    value = table[index]
    run = 1
    if step:
        limit = min(limit, STEP_RUN_MAX)
        while run < limit and table[index + run] == value + run * step:
            run += 1
        return run
    while run < min(limit, SHORT_RUN):
        if table[index + run] != value:
            return run
        run += 1
    pattern = memoryview(array(table.typecode, [value]) * _PAGE_ENTRIES).cast("B").tobytes()
    view = memoryview(table).cast("B")
    while run < limit:
        count = min(_PAGE_ENTRIES, limit - run)
        start = table.itemsize * (index + run)
        # ``startswith`` is memcmp; comparing views goes entry by entry.
        if not pattern.startswith(view[start : start + count * table.itemsize]):
            break
        run += count
    while run < limit and table[index + run] == value:
        run += 1
    return run


class PagedTable:
    """A table that is held whole: looked up and changed in memory, written back by page.

    Attributes:
        entries: to be looked at; :meth:`set`, :meth:`fill` and :meth:`resize` change them.
        dirty: numbers of the pages that the file has not, or not yet.
    """

    def __init__(self, entries: array[int], byteorder: ByteOrder) -> None:
        self.entries = entries
        self.dirty: set[int] = set()
        self._byteorder: ByteOrder = byteorder
        self._page_entries = PAGE_BYTES // entries.itemsize

    def __len__(self) -> int:
        return len(self.entries)

    def set(self, index: int, value: int) -> None:
        """Change one entry."""
        self.entries[index] = value
        self.dirty.add(index // self._page_entries)

    def fill(self, index: int, count: int, value: int) -> None:
        """Change ``count`` entries, at least one, to the same value."""
        self.entries[index : index + count] = array(self.entries.typecode, [value]) * count
        self._touch(index, count)

    def resize(self, count: int, value: int) -> None:
        """Give it ``count`` entries, new ones of ``value``; these are dirty."""
        old = len(self.entries)
        del self.entries[count:]
        if count > old:
            self.entries.extend(array(self.entries.typecode, [value]) * (count - old))
            self._touch(old, count - old)
        self.dirty = {page for page in self.dirty if page * self._page_entries < count}

    def run(self, index: int, limit: int, *, step: int = 0) -> int:
        """How many entries go on as the first one begins; see :func:`run_length`."""
        return run_length(self.entries, index, limit, step=step)

    def page(self, number: int) -> memoryview:
        """A page as it stands in the file, or will; the last one may be shorter."""
        start = number * self._page_entries
        return stored(self.entries[start : start + self._page_entries], self._byteorder)

    def write_back(self, storage: Storage, offset: int) -> None:
        """Write the dirty pages of the table at ``offset``, neighbours at once.

        Not durable until the storage is flushed. After an error, what is left stays dirty.
        """
        pages = sorted(self.dirty)
        while pages:
            limit = min(len(pages), WRITE_PAGES_MAX)
            run = 1
            while run < limit and pages[run] == pages[0] + run:
                run += 1
            self._write(storage, offset, pages[0] * self._page_entries, run * self._page_entries)
            self.dirty.difference_update(pages[:run])
            del pages[:run]

    def write_all(self, storage: Storage, offset: int, *, start: int = 0) -> None:
        """Write the entries from ``start`` on of a table at ``offset``, by pieces."""
        step = WRITE_PAGES_MAX * self._page_entries
        for first in range(start, len(self.entries), step):
            self._write(storage, offset, first, step)

    def _write(self, storage: Storage, offset: int, first: int, count: int) -> None:
        piece = stored(self.entries[first : first + count], self._byteorder)
        storage.write(piece, offset + first * self.entries.itemsize)

    def _touch(self, index: int, count: int) -> None:
        last = (index + count - 1) // self._page_entries
        self.dirty.update(range(index // self._page_entries, last + 1))


class TableCache:
    """Tables of one kind, by pieces, a bounded number of them. Thread-safe."""

    def __init__(self, storage: Storage, code: EntryCode, byteorder: ByteOrder) -> None:
        self._storage = storage
        self._code: EntryCode = code
        self._byteorder: ByteOrder = byteorder
        self._size = array(code).itemsize
        self._pieces: OrderedDict[int, array[int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, offset: int, count: int, index: int) -> tuple[array[int], int]:
        """The piece that has entry ``index`` of the table at ``offset``, and where in it.

        Args:
            offset: of the table in the storage.
            count: entries of the table; the last piece ends with it.
            index: below ``count``.

        Raises:
            TruncatedImageError: if the file ends before the piece does.
        """
        per_piece = PIECE_BYTES // self._size
        first = index - index % per_piece
        start = offset + first * self._size
        with self._lock:
            found = self._pieces.get(start)
            if found is not None and len(found) > index - first:
                self._pieces.move_to_end(start)
                return found, index - first
        wanted = min(per_piece, count - first)
        piece = read_table(self._storage, start, wanted, self._code, self._byteorder)
        with self._lock:
            old = self._pieces.pop(start, None)
            self._bytes += wanted * self._size - (len(old) * self._size if old else 0)
            self._pieces[start] = piece
            while self._bytes > TABLE_CACHE_BYTES and len(self._pieces) > 1:
                self._bytes -= len(self._pieces.popitem(last=False)[1]) * self._size
        return piece, index - first
