"""Changes to a QCOW2 image's tables.

Theory of operation. New clusters are counted, written by the caller and only then entered
into the L2 tables, all of it in memory. :meth:`Writer.flush` makes it durable in this order,
each step flushed before the next: refcounts that went up; the refcount table, and data; L2
tables; the L1 table; refcounts that went down. After a crash at any point some clusters may
be counted and not used, but never used and not counted, and no table points to what is not
there. Clusters that were given up are not used again before the last step.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError
from imprint.core.extent import Extent, Kind
from imprint.core.limits import DIRTY_TABLE_BYTES_MAX
from imprint.core.units import div_up
from imprint.formats.qcow2 import compressed, entries, layout, subclusters
from imprint.formats.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from imprint.formats.qcow2.mapping import make_entries

if TYPE_CHECKING:
    from imprint.formats.qcow2.layer import Qcow2Layer
    from imprint.formats.qcow2.refcounts import Refcounts


class Writer:
    """The writing half of a layer, which holds its lock around every call.

    Attributes:
        layer: whose tables are changed.
        refcounts: of the image.
        mapping: the layer's.
        copied: by new cluster that is not linked yet, which of its subclusters are in place.
    """

    def __init__(self, layer: Qcow2Layer, refcounts: Refcounts) -> None:
        """Change nothing yet."""
        self.layer: Final = layer
        self.refcounts: Final = refcounts
        self.mapping: Final = layer.mapping
        self._cluster_size = layer.area.cluster_size
        self._is_extended = layer.area.is_extended
        self._has_data_file = layer.area.has_data_file
        self._is_data_file_raw = layer.area.is_data_file_raw
        self._has_begun = False
        self._holes: list[tuple[int, int]] = []
        self.copied: Final[dict[int, int]] = {}

    def begin(self) -> None:
        """Before the first change: clear autoclear bits that we do not know, as we must."""
        if self._has_begun:
            return
        self._has_begun = True
        area = self.layer.area
        known = area.header.autoclear_features & layout.AUTOCLEAR_KNOWN
        if known & layout.AUTOCLEAR_BITMAPS:
            from imprint.formats.qcow2 import bitmaps

            bitmaps.mark_in_use(area, self.layer.storage)
        if known != area.header.autoclear_features:
            self.write_header(autoclear_features=known)
            self.layer.storage.flush()

    def write_header(self, **changes: int) -> None:
        """Change fields of the header in the file; not flushed."""
        self.layer.area = self.layer.area.with_header(**changes)
        self.layer.storage.write(memoryview(self.layer.area.pack_header()), 0)

    def place(self, offset: int, length: int) -> Extent | None:
        """Where ``offset`` may be overwritten: its cluster is nobody else's."""
        self.begin()
        cluster, within = divmod(offset, self._cluster_size)
        found = self.mapping.find(cluster)
        if found is None or not found.is_exclusive:
            return None
        if self._is_extended:
            return self._checked(subclusters.place(self, found, offset, length))
        limit = min(found.left, div_up(within + length, self._cluster_size))
        run = entries.copied_run(found.table, found.at, limit, self._cluster_size)
        if run is None or run.kind is not Kind.DATA:
            return None
        size = min(length, run.grains * self._cluster_size - within)
        return self._checked(self.extent(offset, size, run.host + within))

    def allocate(self, offset: int, length: int) -> Extent:
        """Clusters for units that have no place; those that were reserved for them if any."""
        self.begin()
        cluster, within = divmod(offset, self._cluster_size)
        per_l2 = self.mapping.entries_per_l2
        # Not beyond an L2 table, which bounds the memory for making entries.
        length = min(length, (per_l2 - cluster % per_l2) * self._cluster_size - within)
        if self._has_data_file:
            return self.extent(offset, length, offset)
        if self._is_extended:
            return self._checked_new(subclusters.allocate(self, offset, length))
        limit = div_up(length, self._cluster_size)
        found = self.mapping.find(cluster)
        if found is not None:
            limit = min(limit, found.left)
        if found is not None and found.is_exclusive:
            run = entries.copied_run(found.table, found.at, limit, self._cluster_size)
            if run is not None and run.kind is Kind.ZERO:
                size = min(length, run.grains * self._cluster_size)
                return self._checked_new(self.extent(offset, size, run.host))
            limit = _without_place(found.table, found.at, limit)
        first, count = self.refcounts.allocate(limit)
        size = min(length, count * self._cluster_size)
        return self.extent(offset, size, first * self._cluster_size)

    def link(self, extent: Extent) -> None:
        """Enter clusters into the L2 tables, and note that what they replace is free."""
        if self._is_extended:
            subclusters.link(self, extent)
        else:
            cluster = extent.offset // self._cluster_size
            count = div_up(extent.length, self._cluster_size)
            first = extent.storage_offset | COPIED
            self.set_entries(cluster, make_entries(first, count, self._cluster_size))
        self.flush_if_large()

    def set_entries(self, cluster: int, new: array.array[int]) -> None:
        """Replace whole clusters from ``cluster`` on by what standard L2 entries say."""
        if self._is_extended:
            subclusters.set_clusters(self, cluster, new)
            return
        done = 0
        while done < len(new):
            found = self.mapping.change(cluster + done, self.refcounts)
            count = min(found.left, len(new) - done)
            stop = found.at + count
            old = found.table[found.at : stop]
            found.table[found.at : stop] = new[done : done + count]
            if any(old):
                self._release_replaced(old, new[done : done + count], cluster + done)
            done += count

    def zero(self, offset: int, length: int) -> None:
        """Make units read as zeros."""
        self.begin()
        position, end = offset, offset + length
        while position < end:
            if self._is_data_file_raw:
                place = self.allocate(position, end - position)
                self.layer.data.zero(position, place.length)
                self.link(place)
                position = place.end
            else:
                position += self._zero_some(position, end - position)
        self.flush_if_large()

    def flush(self) -> None:
        """Make everything durable; see the module for the order."""
        storage, data = self.layer.storage, self.layer.data
        if data is not storage:
            data.flush()
        end = self.refcounts.tail * self._cluster_size
        if storage.size < end:
            storage.resize(end)  # all that is counted has to be inside the file
        self.refcounts.write_back(self._move_refcount_table)
        storage.flush()  # of data and refcounts: between them, no order matters
        if self.mapping.write_back():
            storage.flush()
        self._give_back()

    def flush_if_large(self) -> None:
        """Flush when the changed tables in memory have reached their limit."""
        dirty = self.mapping.cache.dirty_bytes + self.refcounts.dirty_bytes
        if dirty >= DIRTY_TABLE_BYTES_MAX or self.refcounts.is_full_of_released:
            self.flush()

    def extent(self, offset: int, length: int, host: int) -> Extent:
        """A ``DATA`` extent of guest clusters."""
        return Extent(offset, length, Kind.DATA, self.layer.data, host)

    def parent_reaches(self, offset: int) -> bool:
        """Whether an unallocated unit at ``offset`` would read from a backing file."""
        parent = self.layer.parent
        return parent is not None and offset < parent.size

    def release(self, entry: int, offset: int) -> None:
        """Note that the cluster of an L2 entry is given up; ``offset`` is the guest's."""
        if self._has_data_file:
            if entry & COPIED:
                size = min(self._cluster_size, self.layer.disk_size - offset)
                if size > 0:
                    self._holes.append((offset, size))
        elif entry & COMPRESSED:
            bits = self.layer.area.header.cluster_bits
            self.refcounts.release(*compressed.host_clusters(entry, bits))
        elif entry & OFFSET_MASK:
            entries.check_place(entry, self._cluster_size)
            self.refcounts.release((entry & OFFSET_MASK) // self._cluster_size, 1)

    def _release_replaced(self, old: array.array[int], new: array.array[int], cluster: int) -> None:
        for index, entry in enumerate(old):
            difference = entry ^ new[index]
            # All bits of a compressed cluster's entry are its place.
            is_kept = difference & (OFFSET_MASK | COMPRESSED) == 0 and not entry & COMPRESSED
            if entry and not is_kept:
                self.release(entry, (cluster + index) * self._cluster_size)

    def _zero_some(self, offset: int, length: int) -> int:
        """Zero from ``offset`` on; how far that went."""
        cluster, within = divmod(offset, self._cluster_size)
        found = self.mapping.find(cluster)
        if found is None:
            limit = self.mapping.hole(cluster, div_up(within + length, self._cluster_size))
            done = min(length, limit * self._cluster_size - within)
            if not self.parent_reaches(offset):
                return done
            count = self.mapping.entries_per_l2 - cluster % self.mapping.entries_per_l2
            done = min(done, count * self._cluster_size - within)
        else:
            done = min(length, found.left * self._cluster_size - within)
        if self._is_extended:
            subclusters.zero(self, offset, done)
        elif self.layer.area.header.version == 2 and self.parent_reaches(offset):
            return self._write_zeros(offset, done)
        else:
            self._zero_entries(cluster, div_up(done, self._cluster_size))
        return done

    def _zero_entries(self, cluster: int, count: int) -> None:
        """Standard entries: the zero flag where something else would be seen."""
        flag = ZERO if self.layer.area.header.version > 2 else 0
        if self.parent_reaches(cluster * self._cluster_size):
            new = array.array("Q", [flag]) * count
        else:
            found = self.mapping.find(cluster)
            assert found is not None, "without a table and a parent there is nothing to do"
            old = memoryview(found.table)[found.at : found.at + count]
            if not any(old):
                return
            new = array.array("Q", [flag if entry else 0 for entry in old])
        self.set_entries(cluster, new)

    def _write_zeros(self, offset: int, length: int) -> int:
        """Version 2 over a backing file knows no zero flag: one place of real zeros."""
        place = self.place(offset, length)
        where = place if place is not None else self.allocate(offset, length)
        self.layer.data.zero(where.storage_offset, where.length)
        if place is None:
            self.link(where)
        return where.length

    def _give_back(self) -> None:
        """Count down what nothing refers to any more, and let the file system have it."""
        storage = self.layer.storage
        freed = self.refcounts.settle()
        end = self.refcounts.tail * self._cluster_size
        for first, count in freed:
            storage.zero(first * self._cluster_size, count * self._cluster_size)
        if end < storage.size:
            storage.resize(end)
        for offset, length in self._holes:
            # It may have been written again since; then it is in use.
            if self.layer.map(offset, length).kind is not Kind.DATA:
                self.layer.data.zero(offset, length)
        if freed or self._holes:
            storage.flush()
        self._holes.clear()

    def _move_refcount_table(self, offset: int, clusters: int) -> None:
        self.write_header(refcount_table_offset=offset, refcount_table_clusters=clusters)
        self.layer.storage.flush()

    def _checked(self, place: Extent | None) -> Extent | None:
        return None if place is None else self._checked_new(place)

    def _checked_new(self, place: Extent) -> Extent:
        """Refuse to overwrite the image's own structures, whatever its tables say.

        Raises:
            RefusedError: if the place is not for guest data.
        """
        if self._has_data_file:
            return place
        offset, length = place.storage_offset, place.length
        start, size = self.mapping.l1_range
        header = self.layer.area.header
        if (
            offset < self._cluster_size
            or (offset < start + size and start < offset + length)
            or (header.nb_snapshots and offset <= header.snapshots_offset < offset + length)
            or self.mapping.cache.touches(offset, length)
            or self.refcounts.touches(offset, length)
        ):
            raise RefusedError(
                f"disk offset 0x{place.offset:x}: its cluster at 0x{offset:x} belongs to a table",
                name=self.layer.storage.name,
                advice="the image is damaged: imprint check lists how",
            )
        return place


def _without_place(table: array.array[int], index: int, limit: int) -> int:
    """How many clusters from ``index`` on, the first being one, cannot be overwritten."""
    count = 1
    for entry in memoryview(table)[index + 1 : index + limit]:
        if entry & COPIED:
            break
        count += 1
    return count
