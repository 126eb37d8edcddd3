"""Where the chunks of a disk are, and their bytes."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from imprint.core.errors import CorruptImageError
from imprint.core.limits import TABLE_CACHE_BYTES
from imprint.core.tables import read_table
from imprint.formats.ewf.layout import (
    CHECKSUM_BYTES,
    FLAG_COMPRESSED,
    OFFSET_MASK,
    TableHeader,
    adler32,
)
from imprint.formats.ewf.sections import read_bytes

if TYPE_CHECKING:
    from array import array

    from imprint.core.contracts import Storage

ENTRIES_MAX: Final = 1 << 22
"""Of one table: 16 MiB, 128 GiB of a disk. EnCase makes 65,534."""


class Place(NamedTuple):
    """Where a chunk is stored.

    Attributes:
        offset: in the storage, in bytes.
        length: that it takes up at most.
        is_compressed: else it is followed by its Adler-32.
        pattern: 8 bytes that fill it; it is stored nowhere then.
    """

    offset: int
    length: int
    is_compressed: bool
    pattern: bytes = b""


class Group(Protocol):
    """Chunks that one table places."""

    first: int
    """Number of its first chunk."""

    @property
    def storage(self) -> Storage:
        """The segment."""

    @property
    def count(self) -> int:
        """Number of its chunks."""

    def place(self, index: int, cache: EntryCache) -> Place:
        """Where chunk ``index`` of the group is.

        Raises:
            CorruptImageError: if the table does not say it.
        """


class EntryCache:
    """Entries of tables, a bounded number of them. Thread-safe."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[int, int], array[int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> array[int] | None:
        """What was put there, if it has not been forgotten."""
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
            return table

    def put(self, key: tuple[int, int], table: array[int]) -> None:
        """Keep it for a while."""
        with self._lock:
            old = self._tables.pop(key, None)
            self._bytes += (len(table) - (len(old) if old else 0)) * table.itemsize
            self._tables[key] = table
            while self._bytes > TABLE_CACHE_BYTES and len(self._tables) > 1:
                gone = self._tables.popitem(last=False)[1]
                self._bytes -= len(gone) * gone.itemsize


@dataclass
class TableCopy:
    """One of the two copies of a table: where its entries are, and whether a checksum follows."""

    start: int
    has_checksum: bool


@dataclass
class TableGroup:
    """Chunks by a table of version 1: 4 bytes each, and the next one says where one ends.

    Attributes:
        storage: the segment.
        count: of entries.
        base: what their offsets are relative to.
        end: where the data of the last chunk ends at the latest.
        copies: the table, and the one that mirrors it.
        first: number of its first chunk, once that is known.
    """

    storage: Storage
    count: int
    base: int
    end: int
    copies: list[TableCopy]
    first: int = 0

    def place(self, index: int, cache: EntryCache) -> Place:
        """See :class:`Group`."""
        table = self.entries(cache)
        entry = table[index]
        wrapped = table[self.count] if len(table) > self.count else self.count
        offset = entry if index >= wrapped else entry & OFFSET_MASK
        is_compressed = index < wrapped and bool(entry & FLAG_COMPRESSED)
        after = self.end
        if index + 1 < self.count:
            following = table[index + 1]
            after = self.base + (following if index + 1 >= wrapped else following & OFFSET_MASK)
        offset += self.base
        if after <= offset:  # out of order: the chunk has to say itself where it ends
            after = max(self.end, offset)
        return Place(offset, after - offset, is_compressed)

    def entries(self, cache: EntryCache) -> array[int]:
        """The entries of the copy that is sound.

        Raises:
            CorruptImageError: if neither is.
        """
        key = (id(self.storage), self.copies[0].start)
        found = cache.get(key)
        if found is None:
            found = self._sound_entries()
            if self.end - self.base > OFFSET_MASK:
                wrapped = _wrapped_at(found)
                if wrapped is not None:
                    found.append(wrapped)
            cache.put(key, found)
        return found

    def read(self, copy: TableCopy) -> tuple[array[int], bool]:
        """Entries of one copy, and whether their checksum is right.

        Raises:
            TruncatedImageError: if the file ends before they do.
        """
        table = read_table(self.storage, copy.start, self.count, "I", "little")
        if not copy.has_checksum:
            return table, True
        stored = read_bytes(self.storage, copy.start + 4 * self.count, CHECKSUM_BYTES)
        # The checksum is of the entries as they stand in the file.
        raw = read_bytes(self.storage, copy.start, 4 * self.count)
        return table, stored == adler32(raw).to_bytes(CHECKSUM_BYTES, "little")

    def _sound_entries(self) -> array[int]:
        for copy in self.copies:
            try:
                table, is_sound = self.read(copy)
            except CorruptImageError:
                continue
            if is_sound:
                return table
        raise CorruptImageError(
            f"table at 0x{self.copies[0].start - TableHeader.SIZE:x}: its checksum is wrong, "
            "and there is no copy that is right",
            name=self.storage.name,
        )


def _wrapped_at(table: array[int]) -> int | None:
    """From where on offsets take all 32 bits.

    EnCase 6.7.1 writes more than 2 GiB into one section and lets offsets run over the flag.
    """
    before = 0
    for index, entry in enumerate(table):
        if entry & OFFSET_MASK < before and entry > before:
            return index
        before = entry & OFFSET_MASK
    return None


class ChunkIndex:
    """All groups of a disk, found by the number of a chunk."""

    def __init__(self, groups: list[Group]) -> None:
        """``groups``: ascending by their first chunk."""
        self.groups = groups
        self._firsts = [group.first for group in groups]
        self._cache = EntryCache()

    def find(self, chunk: int) -> tuple[Group | None, int]:
        """The group that has a chunk, and the first chunk that is of another one or of none."""
        at = bisect_right(self._firsts, chunk) - 1
        following = self._firsts[at + 1] if at + 1 < len(self._firsts) else 1 << 62
        if at >= 0:
            group = self.groups[at]
            end = group.first + group.count
            if chunk < end:
                return group, min(end, following)
        return None, following

    def place(self, group: Group, chunk: int) -> Place:
        """Where a chunk of the group is.

        Raises:
            CorruptImageError: if its table does not say it.
        """
        return group.place(chunk - group.first, self._cache)
