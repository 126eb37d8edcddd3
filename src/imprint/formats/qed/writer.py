"""Writing a QED: free clusters first, then new ones at the file's end.

What is on the disk is old or new at any moment:

1. New data goes to clusters that no table in the file names; flush.
2. L2 tables, changed and new ones; flush. Each entry is old or new, and both are right.
3. The L1 table, which names the new ones; flush.
4. Only now are clusters free that the tables have stopped to name: they become holes, are used
   again, or are cut off with the file's end.

The "need check" mark is not set: it tells other programs that the tables may be wrong, which
they never are.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from imprint.core.errors import UsageError
from imprint.core.extent import Extent, Kind
from imprint.core.limits import DIRTY_TABLE_BYTES_MAX, DISK_SIZE_MAX
from imprint.core.tables import PagedTable, TableCache, read_table
from imprint.core.units import align_up, div_up
from imprint.formats.qed.layer import QedLayer
from imprint.formats.qed.layout import ENTRY_ABSENT, ENTRY_ZERO, SECTOR_BYTES, Header

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.usage import Usage


class WritableQedLayer(QedLayer):
    """A QED opened for writing; see :class:`~imprint.core.contracts.WritableLayer`."""

    def __init__(
        self,
        storage: Storage,
        header: Header,
        usage: Usage,
        *,
        backing: str | None = None,
        parent_size: int = 0,
    ) -> None:
        """Take over a storage.

        Args:
            storage: the file.
            header: of it, checked.
            usage: has taken all that the tables name.
            backing: the name of the backing file, for :meth:`info`.
            parent_size: of the backing file's disk, in bytes.
        """
        super().__init__(storage, header, backing=backing)
        self._usage = usage
        self._parent_size = parent_size
        self._gone = ENTRY_ABSENT if backing is None else ENTRY_ZERO
        self._l1 = self._read(header.l1_table_offset)
        self._loaded: dict[int, PagedTable] = {}
        self._freed: list[int] = []

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten: clusters in a row."""
        found = self.map(offset, length)
        return found if found.kind is Kind.DATA else None

    def allocate(self, offset: int, length: int) -> Extent:
        """Free clusters in a row, for clusters that have none."""
        size = self._header.cluster_size
        length = self.map(offset, length).length
        position, count = self._usage.reserve(div_up(length, size))
        return Extent(offset, min(length, count * size), Kind.DATA, self._storage, position)

    def link(self, extent: Extent) -> None:
        """Enter clusters into L2 tables."""
        size = self._header.cluster_size
        first = extent.offset // size
        for step in range(div_up(extent.length, size)):
            l1_index, index = divmod(first + step, self._header.table_count)
            table = self._table(l1_index)
            self._free(table.entries[index : index + 1])
            table.set(index, extent.storage_offset + step * size)

    def zero(self, offset: int, length: int) -> None:
        """Take clusters out of the tables; over a backing file, mark them as zero."""
        size = self._header.cluster_size
        self._fill(offset // size, div_up(offset + length, size), self._gone)

    def flush(self) -> None:
        """Write back the tables in the order that the module describes."""
        if self._storage.size < self._usage.end:
            self._storage.resize(self._usage.end)  # a disk's last cluster may be written in part
        self._storage.flush()
        changed = [(offset, table) for offset, table in self._loaded.items() if table.dirty]
        for offset, table in changed:
            table.write_back(self._storage, offset)
        if changed:
            self._storage.flush()
        if self._l1.dirty:
            self._l1.write_back(self._storage, self._header.l1_table_offset)
            self._storage.flush()
        if self._freed:
            freed, self._freed = self._freed, []
            for position in self._usage.release(freed):
                self._storage.zero(position, self._header.cluster_size)
            if self._storage.size > self._usage.end:
                self._storage.resize(self._usage.end)

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros. Durable when this returns.

        Raises:
            UsageError: if the format cannot hold a disk of that size.
        """
        check_size(size, self._header)
        self.flush()
        old, cluster = self.size, self._header.cluster_size
        end = self._header.table_count**2
        if size < old:
            # The header first: nobody may miss what it still counts.
            self._write_size(size)
            self._fill(div_up(size, cluster), end, ENTRY_ABSENT)
            self.flush()
        elif size > old:
            self._fill(div_up(old, cluster), end, ENTRY_ABSENT)
            self._fill(
                div_up(old, cluster), div_up(min(size, self._parent_size), cluster), ENTRY_ZERO
            )
            self._clear_tail()
            self.flush()
            self._write_size(size)

    def _write_size(self, size: int) -> None:
        header = self._header.replace(disk_size=size)
        self._storage.write(memoryview(header.pack()), 0)
        self._header = header
        self._storage.flush()

    def _clear_tail(self) -> None:
        """Zero what the last cluster has behind the disk's end: it becomes part of the disk."""
        within = self.size % self._header.cluster_size
        last = self.map(self.size - 1, 1) if within else None
        if last is not None and last.kind is Kind.DATA:
            position = last.storage_offset + 1
            self._storage.zero(position, self._header.cluster_size - within)

    def _fill(self, first: int, end: int, entry: int) -> None:
        """Let clusters have the same entry; what they had is free after the next flush."""
        count = self._header.table_count
        while first < end:
            l1_index, index = divmod(first, count)
            run = min(count - index, end - first)
            first += run
            if self._l1.entries[l1_index] == ENTRY_ABSENT and entry == ENTRY_ABSENT:
                continue
            table = self._table(l1_index)
            if table.run(index, run) == run and table.entries[index] == entry:
                continue
            self._free(table.entries[index : index + run])
            table.fill(index, run, entry)

    def _free(self, entries: array[int]) -> None:
        self._freed += [entry for entry in entries if entry not in (ENTRY_ABSENT, ENTRY_ZERO)]

    def _checked(self, offset: int) -> int:
        # The file need not have a new table yet.
        return offset if offset in self._loaded else super()._checked(offset)

    def _find(self, offset: int, index: int) -> tuple[array[int], int]:
        if offset == self._header.l1_table_offset:
            return self._l1.entries, index
        loaded = self._loaded.get(offset)
        return (loaded.entries, index) if loaded is not None else super()._find(offset, index)

    def _table(self, l1_index: int) -> PagedTable:
        """An L2 table to be changed; a new one is all absent."""
        offset = self._l1.entries[l1_index]
        loaded = self._loaded.get(offset)
        if loaded is not None:
            return loaded
        table_bytes = self._header.table_size * self._header.cluster_size
        if (len(self._loaded) + 1) * table_bytes > DIRTY_TABLE_BYTES_MAX:
            self.flush()
            # Readers look among the loaded ones first; the cache has old pieces of them.
            self._tables = TableCache(self._storage, "Q", "little")
            self._loaded.clear()
        if offset != ENTRY_ABSENT:
            table = self._read(self._checked(offset))
        else:
            count = self._header.table_count
            table = PagedTable(array("Q", [ENTRY_ABSENT]) * count, "little")
            table.fill(0, count, ENTRY_ABSENT)  # all of it has to be written
            offset, _ = self._usage.reserve(self._header.table_size, whole=True)
            self._l1.set(l1_index, offset)
        self._loaded[offset] = table
        return table

    def _read(self, offset: int) -> PagedTable:
        count = self._header.table_count
        return PagedTable(read_table(self._storage, offset, count, "Q", "little"), "little")


def check_size(size: int, header: Header) -> None:
    """Refuse a disk that the format cannot hold.

    Raises:
        UsageError: if it cannot.
    """
    if size % SECTOR_BYTES:
        raise UsageError(
            f"qed: expected a size in whole sectors of 512 bytes, found {size}",
            advice=f"pad the disk with zeros first, to {align_up(size, SECTOR_BYTES)} bytes",
        )
    limit = min(DISK_SIZE_MAX, header.cluster_size * header.table_count**2)
    if size > limit:
        raise UsageError(
            f"qed: expected at most {limit} bytes with tables of {header.table_count} entries, "
            f"found {size}"
        )
