"""Reference counts of host clusters, and where free clusters are.

New clusters come from the end of the file, which makes sequential writing sequential. What
this session gave back is used before that, but only once no table in the file refers to it:
:meth:`Refcounts.release` notes it, :meth:`Refcounts.settle` does it.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import CorruptImageError, TargetError, UnsupportedFeatureError
from imprint.core.limits import TABLE_CACHE_BYTES
from imprint.core.units import div_up
from imprint.formats.qcow2 import counts, layout
from imprint.formats.qcow2.tables import SLICE_BYTES_MAX, TableCache, load, store

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.header import HeaderArea

_ENTRY_BYTES: Final = 8
_RELEASED_COUNT_MAX: Final = 1 << 16
"""Runs that wait for the next flush: 8 MiB of Python's numbers."""


class Refcounts:
    """All refcounts of an image. Not thread-safe: the layer has the lock.

    Attributes:
        bits: width of a refcount.
        per_block: refcounts in a block.
        free_count: how often clusters have become free; who keeps one that is partly used
            has to leave it when this changes.
    """

    def __init__(self, storage: Storage, area: HeaderArea, table: array.array[int]) -> None:
        """Use :meth:`open` or :meth:`create`."""
        self._storage = storage
        self._cluster_size = area.cluster_size
        self.bits: Final = area.refcount_bits
        slice_bytes = min(area.cluster_size, SLICE_BYTES_MAX)
        self._cache = TableCache(storage, width=counts.width_of(self.bits), slice_bytes=slice_bytes)
        self._per_slice = slice_bytes * 8 // self.bits
        self._slices_per_block = area.cluster_size // slice_bytes
        self.per_block: Final = self._per_slice * self._slices_per_block
        self._table = table
        self._table_offset = area.header.refcount_table_offset
        self._is_table_dirty = False
        self._is_table_moved = False
        self._next = 0
        self._free: list[tuple[int, int]] = []
        self._released: list[tuple[int, int]] = []
        self.free_count = 0

    @classmethod
    def open(cls, storage: Storage, area: HeaderArea) -> Self:
        """Read the refcount table of an image that is going to be changed.

        Raises:
            CorruptImageError: if the table is not wholly inside the file.
        """
        length = area.header.refcount_table_clusters * area.cluster_size
        table = load(storage, area.header.refcount_table_offset, length)
        made = cls(storage, area, table)
        made._next = made._find_tail()
        return made

    @classmethod
    def create(cls, storage: Storage, area: HeaderArea, table_clusters: int) -> Self:
        """Begin an empty image: cluster 0 and a refcount table behind it are taken."""
        entries = table_clusters * area.cluster_size // _ENTRY_BYTES
        made = cls(storage, area, array.array("Q", bytes(entries * _ENTRY_BYTES)))
        made._table_offset = area.cluster_size
        made._is_table_dirty = True
        made._extend(1 + table_clusters)
        return made

    @property
    def maximum(self) -> int:
        """The highest refcount that there can be."""
        return (1 << self.bits) - 1

    @property
    def tail(self) -> int:
        """The first cluster that was never used; the file ends there, or before it."""
        return self._next

    @property
    def table_range(self) -> tuple[int, int]:
        """Offset and length of the refcount table."""
        return self._table_offset, len(self._table) * _ENTRY_BYTES

    @property
    def dirty_bytes(self) -> int:
        """Of refcount blocks that wait to be written back."""
        return self._cache.dirty_bytes

    @property
    def is_full_of_released(self) -> bool:
        """Whether so much waits to be given back that it should be done."""
        return len(self._released) >= _RELEASED_COUNT_MAX

    def touches(self, offset: int, length: int) -> bool:
        """Whether the table, or a block that is held, lies in the range."""
        start, size = self.table_range
        is_in_table = offset < start + size and start < offset + length
        return is_in_table or self._cache.touches(offset, length)

    def get(self, cluster: int) -> int:
        """How often the host cluster is referred to, as the tables say.

        Raises:
            CorruptImageError: if the refcount block is not where it could be.
        """
        number, index = divmod(cluster, self._per_slice)
        offset = self._slice_offset(number)
        return counts.get(self._cache.get(offset), index, self.bits) if offset else 0

    def add(self, first: int, count: int, delta: int) -> None:
        """Change the refcounts of ``count`` host clusters.

        Raises:
            CorruptImageError: if one would become negative, or has no refcount block.
            UnsupportedFeatureError: if one would become too large for its width.
        """
        position, end = first, first + count
        while position < end:
            number, index = divmod(position, self._per_slice)
            step = min(end - position, self._per_slice - index)
            offset = self._slice_offset(number)
            if not offset:
                raise CorruptImageError(
                    f"refcount of cluster 0x{position:x}: expected a refcount block, found none",
                    name=self._storage.name,
                )
            table = self._cache.get(offset)
            self._cache.mark_dirty(offset)
            try:
                counts.add(table, index, step, delta, self.bits)
            except OverflowError as failure:
                raise self._out_of_range(position + failure.args[0], delta) from None
            position += step

    def allocate(self, count: int) -> tuple[int, int]:
        """Take a run of at most ``count`` free clusters: its first and its length.

        Raises:
            TargetError: if the refcount table cannot grow that far.
        """
        if not self._free:
            return self._extend(count), count
        first, found = self._free.pop()
        taken = min(count, found)
        if taken < found:
            self._free.append((first + taken, found - taken))
        self.add(first, taken, 1)
        return first, taken

    def allocate_exactly(self, count: int) -> int:
        """Take a run of exactly ``count`` free clusters: its first; as :meth:`allocate`."""
        for index, (first, found) in enumerate(self._free):
            if found >= count:
                del self._free[index]
                if found > count:
                    self._free.append((first + count, found - count))
                self.add(first, count, 1)
                return first
        return self._extend(count)

    def release(self, first: int, count: int) -> None:
        """Note that one reference to each cluster goes, once the tables that say so are safe."""
        if self._released:
            last, length = self._released[-1]
            if last + length == first:
                self._released[-1] = (last, length + count)
                return
        self._released.append((first, count))

    def write_back(self, move_table: Callable[[int, int], None]) -> None:
        """Write what was allocated; flushed in between, not after.

        Args:
            move_table: has to make the header say the table's new offset and clusters.
        """
        self._cache.write_back()
        if self._is_table_dirty:
            # A table must never point to a block that is not there yet.
            self._storage.flush()
            store(self._storage, self._table_offset, self._table)
            if self._is_table_moved:
                self._storage.flush()
                length = len(self._table) * _ENTRY_BYTES
                move_table(self._table_offset, length // self._cluster_size)
            self._is_table_dirty = self._is_table_moved = False

    def settle(self) -> list[tuple[int, int]]:
        """Give back what was released; no table in the file refers to it any more.

        Returns:
            The runs of clusters that are free now, and that lie before the tail.
        """
        if not self._released:
            return []
        freed: list[tuple[int, int]] = []
        self._released.sort(reverse=True)
        while self._released:  # popped one by one, so that a failure undoes none of them twice
            first, count = self._released.pop()
            self.add(first, count, -1)
            freed.extend(self._unused(first, count))
        self.free_count += bool(freed)
        self._cache.write_back()
        self._free = _joined(sorted(self._free + freed))
        if self._free and sum(self._free[-1]) == self._next:
            self._next = self._free.pop()[0]  # the file may be cut off here
        return [run for run in _joined(freed) if sum(run) <= self._next]

    def _unused(self, first: int, count: int) -> list[tuple[int, int]]:
        """The runs of clusters among these whose refcount is 0."""
        found: list[tuple[int, int]] = []
        position, end = first, first + count
        while position < end:
            number, index = divmod(position, self._per_slice)
            step = min(end - position, self._per_slice - index)
            table = self._cache.get(self._slice_offset(number))
            if counts.is_unused(table, index, step, self.bits):
                found.append((position, step))
            else:
                found.extend(
                    (position + at, 1)
                    for at in range(step)
                    if counts.get(table, index + at, self.bits) == 0
                )
            position += step
        return _joined(found)

    def _extend(self, count: int) -> int:
        """Take ``count`` clusters at the tail, and behind them what counting them needs."""
        start, blocks, table_clusters = self._next, range(0), 0
        missing: list[int] = []
        while True:
            end = start + count + len(missing) + table_clusters
            blocks = range(start // self.per_block, (end - 1) // self.per_block + 1)
            found = [index for index in blocks if not self._entry(index)]
            grown = self._table_clusters_for(blocks.stop)
            if len(found) == len(missing) and grown == table_clusters:
                break
            missing, table_clusters = found, grown
        if table_clusters:
            self._move_table(start + count + len(missing), table_clusters)
        for position, index in enumerate(missing, start + count):
            offset = position * self._cluster_size
            self._table[index] = offset
            self._cache.put_zeros(offset, self._cluster_size)
            self._is_table_dirty = True
        self._next = end
        self.add(start, end - start, 1)
        return start

    def _table_clusters_for(self, entries: int) -> int:
        """Clusters of a new table for that many blocks; 0 if the present one will do."""
        if entries <= len(self._table):
            return 0
        size = max(entries * _ENTRY_BYTES, 2 * len(self._table) * _ENTRY_BYTES)
        size = min(size, layout.REFCOUNT_TABLE_BYTES_MAX)
        if size < entries * _ENTRY_BYTES:
            raise TargetError(
                f"expected a refcount table of at most {size} bytes: the image grew too large",
                name=self._storage.name,
                advice="use larger clusters",
            )
        return div_up(size, self._cluster_size)

    def _move_table(self, cluster: int, table_clusters: int) -> None:
        old_clusters = div_up(len(self._table) * _ENTRY_BYTES, self._cluster_size)
        self.release(self._table_offset // self._cluster_size, old_clusters)
        self._table_offset = cluster * self._cluster_size
        size = table_clusters * self._cluster_size
        self._table.frombytes(bytes(size - len(self._table) * _ENTRY_BYTES))
        self._is_table_dirty = self._is_table_moved = True

    def _entry(self, index: int) -> int:
        return self._table[index] if index < len(self._table) else 0

    def _slice_offset(self, number: int) -> int:
        """Where slice ``number`` of all refcounts is stored; 0 if it is not."""
        index, within = divmod(number, self._slices_per_block)
        entry = self._entry(index)
        if entry % self._cluster_size:
            raise CorruptImageError(
                f"refcount table entry 0x{index:x}: expected a multiple of the cluster size, "
                f"found 0x{entry:x}",
                name=self._storage.name,
            )
        return entry + within * self._cache.slice_bytes if entry else 0

    def _find_tail(self) -> int:
        """The first cluster behind the file's end, and behind all that has a refcount."""
        tail = div_up(self._storage.size, self._cluster_size)
        first = tail // self.per_block
        beyond = [index for index in range(first, len(self._table)) if self._table[index]]
        if len(beyond) > 1 + TABLE_CACHE_BYTES // self._cluster_size:
            raise CorruptImageError(
                "expected no refcounts far behind the end of the file",
                name=self._storage.name,
                advice="imprint check --repair rebuilds the refcounts",
            )
        for index in reversed(beyond):
            for within in reversed(range(self._slices_per_block)):
                number = index * self._slices_per_block + within
                count = counts.used(self._cache.get(self._slice_offset(number)), self.bits)
                if count:
                    return max(tail, number * self._per_slice + count)
        return tail

    def _out_of_range(
        self, cluster: int, delta: int
    ) -> CorruptImageError | UnsupportedFeatureError:
        if delta > 0:
            return UnsupportedFeatureError(
                f"refcount of cluster 0x{cluster:x}: expected at most {self.maximum} references",
                name=self._storage.name,
                advice="an image with wider refcounts (refcount_bits) can have more",
            )
        return CorruptImageError(
            f"refcount of cluster 0x{cluster:x}: expected at least {-delta}, found less",
            name=self._storage.name,
            advice="imprint check --repair rebuilds the refcounts",
        )


def _joined(ascending: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs that touch, as one."""
    result: list[tuple[int, int]] = []
    for first, count in ascending:
        if result and sum(result[-1]) == first:
            result[-1] = (result[-1][0], result[-1][1] + count)
        else:
            result.append((first, count))
    return result
