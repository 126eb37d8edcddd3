"""The L1 table, and the L2 tables below it."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from imprint.core.errors import CorruptImageError
from imprint.formats.qcow2.layout import COPIED, L1_RESERVED, OFFSET_MASK
from imprint.formats.qcow2.tables import SLICE_BYTES_MAX, TableCache, load, runs, store

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.header import HeaderArea
    from imprint.formats.qcow2.refcounts import Refcounts

_ENTRY_BYTES: Final = 8
_ENTRIES_PER_SECTOR: Final = 64
"""L1 entries are written back by sectors: 32 MiB for one changed entry would be too much."""


@dataclass(frozen=True)
class L1View:
    """Which L1 table to look through: the active one, or a snapshot's.

    Attributes:
        offset: of the table in the file.
        entries: how many it has.
        disk_size: what is behind that is no disk (a saved machine state).
    """

    offset: int
    entries: int
    disk_size: int

    @classmethod
    def active(cls, area: HeaderArea) -> Self:
        """The disk as it is now."""
        header = area.header
        return cls(header.l1_table_offset, header.l1_size, header.size)


class Slice(NamedTuple):
    """A part of an L2 table, and where in it a cluster's entry is.

    Attributes:
        table: entries as numbers; an extended entry is two of them.
        at: which entry is the cluster's.
        left: entries from there to the end of the slice.
        is_exclusive: whether no other L1 table refers to the L2 table.
    """

    table: array.array[int]
    at: int
    left: int
    is_exclusive: bool


class Mapping:
    """From guest clusters to L2 entries. Not thread-safe: the layer has the lock."""

    def __init__(self, storage: Storage, area: HeaderArea, view: L1View) -> None:
        """Read the L1 table; the caller has checked that it is inside the file."""
        self._storage = storage
        self._cluster_size = area.cluster_size
        self.words: Final = 2 if area.is_extended else 1
        self.entries_per_l2: Final = area.entries_per_l2
        slice_bytes = min(area.cluster_size, SLICE_BYTES_MAX)
        self.cache: Final = TableCache(storage, width="Q", slice_bytes=slice_bytes)
        self._per_slice = slice_bytes // (_ENTRY_BYTES * self.words)
        self.l1 = load(storage, view.offset, view.entries * _ENTRY_BYTES)
        self.l1_offset = view.offset
        self._dirty_sectors: set[int] = set()

    @property
    def l1_range(self) -> tuple[int, int]:
        """Offset and length of the L1 table."""
        return self.l1_offset, len(self.l1) * _ENTRY_BYTES

    def l2_offset(self, l1_index: int) -> int:
        """Where the L2 table is stored; 0 if there is none.

        Raises:
            CorruptImageError: if the L1 entry is not one.
        """
        entry = self.l1[l1_index]
        offset = entry & OFFSET_MASK
        if entry & L1_RESERVED or offset % self._cluster_size:
            raise CorruptImageError(
                f"L1 entry 0x{l1_index:x}: expected a multiple of the cluster size, "
                f"found 0x{entry:016x}",
                name=self._storage.name,
                offset=self.l1_offset + l1_index * _ENTRY_BYTES,
            )
        return offset

    def find(self, cluster: int) -> Slice | None:
        """The entry of a guest cluster; ``None`` if there is no L2 table for it.

        Raises:
            CorruptImageError: if the L2 table is not wholly inside the file.
        """
        l1_index, index = divmod(cluster, self.entries_per_l2)
        if not self.l1[l1_index]:
            return None
        start = self.l2_offset(l1_index)
        if not start:
            return None
        number, within = divmod(index, self._per_slice)
        table = self.cache.get(start + number * self.cache.slice_bytes)
        is_exclusive = bool(self.l1[l1_index] & COPIED)
        return Slice(table, within, self._per_slice - within, is_exclusive)

    def hole(self, cluster: int, limit: int) -> int:
        """How many of the next ``limit`` clusters have no L2 table, the first being one."""
        l1_index, index = divmod(cluster, self.entries_per_l2)
        l1, position = self.l1, l1_index + 1
        stop = min(len(l1), (cluster + limit - 1) // self.entries_per_l2 + 1)
        while position < stop and not l1[position]:
            position += 1
        return min(limit, (position - l1_index) * self.entries_per_l2 - index)

    def change(self, cluster: int, refcounts: Refcounts) -> Slice:
        """As :meth:`find`, for changing: the L2 table is made, or copied if it is shared."""
        l1_index, index = divmod(cluster, self.entries_per_l2)
        start = self.l2_offset(l1_index)
        if not start or not self.l1[l1_index] & COPIED:
            start = self._own_table(l1_index, start, refcounts)
        number, within = divmod(index, self._per_slice)
        offset = start + number * self.cache.slice_bytes
        table = self.cache.get(offset)
        self.cache.mark_dirty(offset)
        return Slice(table, within, self._per_slice - within, is_exclusive=True)

    def drop_table(self, l1_index: int, refcounts: Refcounts) -> None:
        """Unlink an L2 table; what its entries refer to is the caller's."""
        start = self.l2_offset(l1_index)
        if not start:
            return
        self.cache.drop(start, self._cluster_size)
        refcounts.release(start // self._cluster_size, 1)
        self._set_l1(l1_index, 0)

    def move_l1(self, offset: int, entries: int) -> None:
        """Let the L1 table be longer, and stored elsewhere; all of it has to be written."""
        self.l1.frombytes(bytes((entries - len(self.l1)) * _ENTRY_BYTES))
        self.l1_offset = offset
        self._dirty_sectors = set(range(-(-entries // _ENTRIES_PER_SECTOR)))

    def write_back(self) -> bool:
        """Write changed L2 tables, then L1 entries; not flushed. Whether there were any."""
        was_dirty = self.cache.write_back()
        if self._dirty_sectors:
            # An L1 entry must never point to an L2 table that is not there yet.
            self._storage.flush()
            self.write_l1()
            was_dirty = True
        return was_dirty

    def write_l1(self) -> None:
        """Write changed L1 entries alone."""
        for first, count in runs(iter(sorted(self._dirty_sectors))):
            start = first * _ENTRIES_PER_SECTOR
            entries = self.l1[start : start + count * _ENTRIES_PER_SECTOR]
            store(self._storage, self.l1_offset + start * _ENTRY_BYTES, entries)
        self._dirty_sectors.clear()

    def flag_l1(self, l1_index: int, *, is_copied: bool) -> None:
        """Say whether no other L1 table refers to the L2 table."""
        entry = self.l1[l1_index] & ~COPIED | (COPIED if is_copied else 0)
        if entry != self.l1[l1_index]:
            self._set_l1(l1_index, entry)

    def _own_table(self, l1_index: int, old: int, refcounts: Refcounts) -> int:
        """Give the L1 entry an L2 table of its own: empty, or a copy of the shared one."""
        size = self._cluster_size
        start = refcounts.allocate_exactly(1) * size
        if old:
            for within in range(0, size, self.cache.slice_bytes):
                self.cache.put(start + within, self.cache.get(old + within)[:])
            self.cache.drop(old, size)
            refcounts.release(old // size, 1)
        else:
            self.cache.put_zeros(start, size)
        self._set_l1(l1_index, start | COPIED)
        return start

    def _set_l1(self, l1_index: int, entry: int) -> None:
        if self.l1[l1_index] == entry:
            return
        self.l1[l1_index] = entry
        self._dirty_sectors.add(l1_index // _ENTRIES_PER_SECTOR)


def make_entries(first: int, count: int, step: int) -> array.array[int]:
    """``count`` numbers from ``first`` on, ``step`` apart: entries of contiguous clusters."""
    return array.array("Q", range(first, first + count * step, step))
