"""Writing a hosted sparse extent.

What is on the disk is old or new at any moment:

1. New grains, at free places or behind the end; flush. A crash now wastes them.
2. Grain tables, the redundant ones first; flush. Each entry is old or new, and both are right.
3. Directories, if a table is new; flush.
4. Places that no table names any more are free from now on: they become holes of the file.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.extent import Extent, Kind
from imprint.core.limits import DIRTY_TABLE_BYTES_MAX
from imprint.core.units import div_up
from imprint.formats.vmdk.headers import read_directory
from imprint.formats.vmdk.layout import GTE_ABSENT, GTE_DATA, GTE_ZERO, SECTOR
from imprint.formats.vmdk.slots import Census, Slots, has_redundant, runs
from imprint.formats.vmdk.sparse import SparsePart

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vmdk.headers import SparseFile
    from imprint.formats.vmdk.layout import SparseHeader

_WRITE_TABLES_MAX: Final = 256


class WritableSparsePart(SparsePart):
    """A hosted sparse extent, opened for writing; see ``WritablePart``."""

    def __init__(
        self,
        storage: Storage,
        file: SparseFile,
        size: int,
        *,
        has_parent: bool,
        is_fresh: bool = False,
    ) -> None:
        """Reads all tables, unless it was just created and has no grain yet.

        Raises:
            CorruptImageError: if two grains share a place, or one is not in the file.
        """
        assert file.header is not None
        super().__init__(storage, replace(file.geometry, size=size), file.tables)
        self._header = file.header
        self._stored: SparseHeader | None = file.header  # None: unknown, a write has failed
        self._redundant: array[int] | None = None
        if has_redundant(file.header):
            count = len(file.tables.directory)
            self._redundant = read_directory(storage, file.header.redundant_offset, count)
        if is_fresh:
            steps, overhead = file.geometry.grain_sectors, file.header.overhead
            self._slots = Slots.fresh(storage.name, steps, overhead)
        else:
            self._slots = Census(storage, file, self._redundant).slots()
        self._has_parent = has_parent
        self._changed: dict[int, array[int]] = {}
        self._new_tables: set[int] = set()
        self._freed: list[int] = []

    @property
    def header(self) -> SparseHeader:
        """As it is in the file."""
        return self._header

    def table(self, number: int) -> array[int] | None:
        """As it will be after the next flush."""
        found = self._changed.get(number)
        return super().table(number) if found is None else found

    def place(self, offset: int, length: int) -> Extent | None:
        """Where a grain's bytes are, and those that follow it in the file."""
        index, within = divmod(offset, self._geometry.grain)
        number, first = divmod(index, self._geometry.entries_per_table)
        table = self.table(number)
        if table is None or table[first] < GTE_DATA:
            return None
        limit = min(len(table) - first, div_up(within + length, self._geometry.grain))
        inside = self._data_run(table, first, limit) * self._geometry.grain - within
        position = table[first] * SECTOR + within
        return Extent(offset, min(length, inside), Kind.DATA, self._storage, position)

    def allocate(self, offset: int, length: int) -> Extent:
        """Free places for grains that have none."""
        geometry = self._geometry
        number, first = divmod(offset // geometry.grain, geometry.entries_per_table)
        table = self.table(number)
        limit = min(geometry.entries_per_table - first, div_up(length, geometry.grain))
        count = 1
        if table is None:
            count = limit
        while count < limit and table is not None and table[first + count] < GTE_DATA:
            count += 1
        sector, count = self._slots.take(count)
        inside = min(length, count * geometry.grain)
        return Extent(offset, inside, Kind.DATA, self._storage, sector * SECTOR)

    def link(self, extent: Extent) -> None:
        """Enter places into their table."""
        geometry = self._geometry
        index, sector = extent.offset // geometry.grain, extent.storage_offset // SECTOR
        for step in range(div_up(extent.length, geometry.grain)):
            number, within = divmod(index + step, geometry.entries_per_table)
            self._own_table(number)[within] = sector + step * geometry.grain_sectors
        if len(self._changed) * geometry.entries_per_table * 4 > DIRTY_TABLE_BYTES_MAX:
            self.flush()

    def zero(self, offset: int, length: int) -> None:
        """Take grains out of their tables; over a parent, mark or fill them."""
        geometry = self._geometry
        index, end = offset // geometry.grain, div_up(offset + length, geometry.grain)
        while index < end:
            number, first = divmod(index, geometry.entries_per_table)
            count = min(end - index, geometry.entries_per_table - first)
            table = self.table(number)
            if self._has_parent or (table is not None and any(table)):
                self._zero_entries(number, first, count)
            index += count

    def flush(self) -> None:
        """Write back in the order that the module describes."""
        self.write_header(self._header)
        if self._storage.size < self._slots.end:
            self._storage.resize(self._slots.end)  # the disk's last grain may be cut off
        self._storage.flush()
        if self._changed:
            if self._redundant is not None:
                self._write_tables(self._redundant)
            self._write_tables(self._tables.directory)
            self._storage.flush()
        if self._new_tables:
            for number in self._new_tables:
                self._write_entry(self._tables.directory, self._header.directory_offset, number)
                if self._redundant is not None:
                    self._write_entry(self._redundant, self._header.redundant_offset, number)
            self._storage.flush()
            self._new_tables.clear()
        self._changed.clear()
        while self._freed:
            self._storage.zero(self._freed[-1] * SECTOR, self._geometry.grain)
            self._slots.give_back(self._freed.pop())

    def resize(self, size: int) -> None:
        """Change the size, durably; what is new reads as zeros."""
        from imprint.formats.vmdk import resize  # rarely needed

        self.flush()
        if size < self._geometry.size:
            resize.shrink(self, size)
        elif size > self._geometry.size:
            if self._header.capacity * SECTOR > self._geometry.size:
                # An interrupted change: what is behind the end is nobody's.
                resize.shrink(self, self._geometry.size)
            resize.grow(self, size)

    @property
    def storage(self) -> Storage:
        """The file, for :mod:`~imprint.formats.vmdk.resize`, as all that follows."""
        return self._storage

    @property
    def slots(self) -> Slots:
        """What is free in it."""
        return self._slots

    @property
    def has_parent(self) -> bool:
        """Whether a missing grain is the parent's."""
        return self._has_parent

    @property
    def directory(self) -> array[int]:
        """Places of the tables."""
        return self._tables.directory

    @property
    def redundant(self) -> array[int] | None:
        """Places of their copies."""
        return self._redundant

    def clear(self, index: int, count: int, entry: int) -> None:
        """Set entries, whatever they were, and do not free what they placed."""
        per_table = self._geometry.entries_per_table
        for each in range(index, index + count):
            number, within = divmod(each, per_table)
            if entry or self.table(number) is not None:
                self._own_table(number)[within] = entry

    def grains_behind(self, count: int) -> list[int]:
        """Where all grains from number ``count`` on are."""
        per_table = self._geometry.entries_per_table
        found: list[int] = []
        for number in range(count // per_table, len(self.directory)):
            table = self.table(number)
            if table is not None:
                first = max(0, count - number * per_table)
                found.extend(entry for entry in table[first:] if entry >= GTE_DATA)
        return found

    def free(self, sectors: list[int]) -> None:
        """Give back grains that nothing names any more, with the next flush."""
        self._freed.extend(sectors)

    def switch(
        self, header: SparseHeader, size: int, directory: array[int], redundant: array[int] | None
    ) -> None:
        """Let another header take over, and the durable directories that it names."""
        self.write_header(header)
        # Before the flush, which may fail: the header says where all is from now on.
        self._geometry = replace(self._geometry, size=size)
        self._tables.directory = directory
        self._redundant = redundant
        for number in [each for each in self._changed if each >= len(directory)]:
            del self._changed[number]
        self._tables.forget()
        self._storage.flush()

    def write_header(self, header: SparseHeader) -> None:
        """One sector: old or new."""
        if header != self._stored:
            self._stored = None
            self._storage.write(memoryview(header.pack()), 0)
            self._stored = self._header = header

    def _empty_grains(self, number: int, limit: int) -> int:
        """As the file says, unless it does not have the latest tables."""
        return 0 if self._changed else super()._empty_grains(number, limit)

    def _own_table(self, number: int) -> array[int]:
        """A table that may be changed; made if the directory has none."""
        found = self._changed.get(number)
        if found is not None:
            return found
        found = self._tables.table(number)
        if found is None:
            found = array("I", bytes(4 * self._geometry.entries_per_table))
            slots = div_up(4 * len(found), self._geometry.grain)
            self._tables.directory[number] = self._slots.append(slots)
            if self._redundant is not None:
                self._redundant[number] = self._slots.append(slots)
            self._new_tables.add(number)
        self._changed[number] = found
        return found

    def _zero_entries(self, number: int, first: int, count: int) -> None:
        marks = self._has_parent and self._geometry.has_zeroed
        fills = self._has_parent and not marks
        table = self._own_table(number)
        for within in range(first, first + count):
            entry = table[within]
            if fills:
                if entry < GTE_DATA:
                    entry, _ = self._slots.take(1)
                    self._storage.zero(entry * SECTOR, self._geometry.grain)
                    table[within] = entry
                else:
                    self._storage.zero(entry * SECTOR, self._geometry.grain)
            elif entry >= GTE_DATA or (marks and entry == GTE_ABSENT):
                table[within] = GTE_ZERO if marks else GTE_ABSENT
                if entry >= GTE_DATA:
                    self._freed.append(entry)

    def _write_tables(self, directory: array[int]) -> None:
        step = div_up(4 * self._geometry.entries_per_table, SECTOR)
        numbers = [number for number in sorted(self._changed) if directory[number]]
        for run in runs(numbers, directory, step, _WRITE_TABLES_MAX):
            data = b"".join(bytes(to_disk(self._changed[number])) for number in run)
            self._storage.write(memoryview(data), directory[run[0]] * SECTOR)

    def _write_entry(self, directory: array[int], sector: int, number: int) -> None:
        data = directory[number].to_bytes(4, "little")
        self._storage.write(memoryview(data), sector * SECTOR + 4 * number)


def to_disk(entries: array[int]) -> memoryview:
    """Entries as they stand in the file."""
    if sys.byteorder == "big":
        entries = entries[:]
        entries.byteswap()
    return memoryview(entries).cast("B")
