"""Internal snapshots: created, applied, deleted.

Theory of operation. A snapshot is a second L1 table. What both refer to is counted twice and
has no ``COPIED`` flag, so a writer copies it before it changes it. Each of the operations
below has one moment at which it happens: the write of the header that lets another table
count. Before it, references are only added; after it, they are only given up. In between the
image is marked dirty (version 3), so that whoever opens it after a crash repairs its counts.
"""

from __future__ import annotations

import array
import time
from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.core.units import div_up
from imprint.formats.qcow2 import compressed, layout, snapshot_table
from imprint.formats.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK
from imprint.formats.qcow2.snapshot_table import Snapshot
from imprint.formats.qcow2.tables import load, store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.formats.qcow2.header import HeaderArea
    from imprint.formats.qcow2.layer import Qcow2Layer

_ENTRY_BYTES = 8


def find(snapshots: list[Snapshot], key: str, name: str) -> Snapshot:
    """The snapshot with that name, or else with that id. Of several, the first.

    Raises:
        UsageError: if there is none; ``name`` is the image's.
    """
    wanted = key.encode("utf-8", "surrogateescape")
    for snapshot in snapshots:
        if snapshot.name == wanted:
            return snapshot
    for snapshot in snapshots:
        if snapshot.id == wanted:
            return snapshot
    listed = ", ".join(repr(entry.name.decode("utf-8", "replace")) for entry in snapshots)
    raise UsageError(f"has no snapshot {key!r}; it has: {listed or 'none'}", name=name)


def create(layer: Qcow2Layer, name: str) -> Snapshot:
    """Keep the disk as it is now, under ``name``; durable when this returns.

    Raises:
        UnsupportedFeatureError: if the image cannot have snapshots, or its refcounts are too
            narrow for one more.
        UsageError: if there are too many, or the name is taken or too long.
    """
    snapshots, _ = _begin(layer)
    encoded = name.encode("utf-8", "surrogateescape")
    if not 0 < len(encoded) < 1 << 16:
        raise UsageError("expected a name of 1 to 65535 bytes", name=layer.storage.name)
    if any(snapshot.name == encoded for snapshot in snapshots):
        raise UsageError(f"has a snapshot {name!r} already", name=layer.storage.name)
    if len(snapshots) >= layout.SNAPSHOT_COUNT_MAX:
        raise UsageError("has as many snapshots as there may be", name=layer.storage.name)
    operation = _Operation(layer)
    operation.count(layer.mapping.l1, 1)
    offset = operation.place_l1(layer.mapping.l1)
    snapshot = _new_snapshot(layer.area, snapshots, encoded, offset, len(layer.mapping.l1))
    table = operation.place_table([*snapshots, snapshot])
    operation.refresh_copied()
    layer.writer.flush()
    operation.switch(nb_snapshots=len(snapshots) + 1, snapshots_offset=table)
    operation.finish()
    return snapshot


def apply(layer: Qcow2Layer, key: str) -> None:
    """Make the disk what it was; what it is now is given up. Durable when this returns.

    The layer must not be used afterwards: it knows the former tables.

    Raises:
        UsageError: if there is no such snapshot.
    """
    snapshots, _ = _begin(layer)
    view = find(snapshots, key, layer.storage.name).view(layer.area)
    operation = _Operation(layer)
    l1 = load(layer.storage, view.offset, view.entries * _ENTRY_BYTES)
    operation.count(l1, 1)
    offset = operation.place_l1(l1)
    operation.clear_copied(l1)
    layer.writer.flush()
    former, (start, length) = layer.mapping.l1, layer.mapping.l1_range
    operation.switch(l1_table_offset=offset, l1_size=len(l1), size=view.disk_size)
    operation.count(former, -1)
    operation.release(start, length)
    operation.finish()


def delete(layer: Qcow2Layer, key: str) -> None:
    """Forget a snapshot and give its room back; durable when this returns.

    Raises:
        UsageError: if there is no such snapshot.
    """
    snapshots, _ = _begin(layer)
    snapshot = find(snapshots, key, layer.storage.name)
    operation = _Operation(layer)
    rest = [other for other in snapshots if other is not snapshot]
    table = operation.place_table(rest)
    layer.writer.flush()
    operation.switch(nb_snapshots=len(rest), snapshots_offset=table)
    view = snapshot.view(layer.area)
    l1 = load(layer.storage, view.offset, view.entries * _ENTRY_BYTES)
    operation.count(l1, -1)
    operation.release(view.offset, view.entries * _ENTRY_BYTES)
    layer.writer.flush()
    operation.refresh_copied()
    operation.finish()


def _begin(layer: Qcow2Layer) -> tuple[list[Snapshot], int]:
    if layer.area.has_data_file:
        raise UnsupportedFeatureError(
            "an image with an external data file cannot have snapshots", name=layer.storage.name
        )
    layer.writer.begin()
    layer.writer.flush()
    return snapshot_table.read(layer.area, layer.storage)


def _new_snapshot(
    area: HeaderArea, others: list[Snapshot], name: bytes, l1_offset: int, l1_size: int
) -> Snapshot:
    ids = [int(other.id) for other in others if other.id.isdigit()]
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    entry = layout.SnapshotEntry(
        l1_table_offset=l1_offset, l1_size=l1_size, date_s=seconds, date_ns=nanoseconds
    )
    extra = layout.SnapshotExtra(vm_state_size=0, disk_size=area.header.size).pack()
    return Snapshot(entry, extra, str(max(ids, default=0) + 1).encode(), name)


class _Operation:
    """The steps that the operations are made of."""

    def __init__(self, layer: Qcow2Layer) -> None:
        """Mark the image dirty: from now on its counts are not what they should be."""
        self._layer = layer
        self._storage = layer.storage
        self._refcounts = layer.writer.refcounts
        self._mapping = layer.mapping
        self._cluster_size = layer.area.cluster_size
        self._cluster_bits = layer.area.header.cluster_bits
        self._step = 2 if layer.area.is_extended else 1
        self._old_table = snapshot_table.read(layer.area, layer.storage)[1]
        self._set_dirty(is_dirty=True)

    def count(self, l1: array.array[int], delta: int) -> None:
        """Add one reference to all that an L1 table leads to, or note that one goes.

        Raises:
            UnsupportedFeatureError: if the refcounts are too narrow; they are as before then.
        """
        done: list[tuple[int, int]] = []
        try:
            for first, length in self._references(l1):
                if delta < 0:
                    self._refcounts.release(first, length)
                else:
                    self._refcounts.add(first, length, 1)
                    done.append((first, length))
        except BaseException:
            for first, length in done:
                self._refcounts.add(first, length, -1)
            self._layer.writer.flush()
            self._set_dirty(is_dirty=False)
            raise

    def release(self, offset: int, length: int) -> None:
        """Note that a table is no longer there."""
        if length:
            clusters = div_up(length, self._cluster_size)
            self._refcounts.release(offset >> self._cluster_bits, clusters)

    def place_l1(self, l1: array.array[int]) -> int:
        """Write a copy of an L1 table, without flags; its offset."""
        copy = array.array("Q", [entry & ~COPIED for entry in l1])
        offset = self._allocate(len(copy) * _ENTRY_BYTES)
        store(self._storage, offset, copy)
        return offset

    def place_table(self, snapshots: list[Snapshot]) -> int:
        """Write a snapshot table; its offset, or 0 if it is empty."""
        data = b"".join(snapshot.pack() for snapshot in snapshots)
        if not data:
            return 0
        offset = self._allocate(len(data))
        self._storage.write(memoryview(data), offset)
        return offset

    def switch(self, **changes: int) -> None:
        """The one write at which the operation happens."""
        old = self._layer.area.header
        self._layer.writer.write_header(**changes)
        self._storage.flush()
        if changes.get("snapshots_offset", old.snapshots_offset) != old.snapshots_offset:
            self.release(old.snapshots_offset, self._old_table)

    def finish(self) -> None:
        """Give up what was released, and say that all is right again."""
        self._layer.writer.flush()
        self._set_dirty(is_dirty=False)

    def refresh_copied(self) -> None:
        """Let the flags of the active tables say whose refcount is one."""
        self._flags(self._mapping.l1, lambda cluster: self._refcounts.get(cluster) == 1)

    def clear_copied(self, l1: array.array[int]) -> None:
        """Take the flags from tables that become shared."""
        self._flags(l1, lambda _cluster: False)

    def _flags(self, l1: array.array[int], wish: Callable[[int], bool]) -> None:
        is_active = l1 is self._mapping.l1
        for index, entry in enumerate(l1):
            start = entry & OFFSET_MASK
            if not start:
                continue
            if is_active:
                self._mapping.flag_l1(index, is_copied=wish(start >> self._cluster_bits))
            for offset, table in self._slices(start):
                changed = False
                for at in range(0, len(table), self._step):
                    value = table[at]
                    if not value & OFFSET_MASK or value & COMPRESSED:
                        continue
                    flag = COPIED if wish((value & OFFSET_MASK) >> self._cluster_bits) else 0
                    if value & COPIED != flag:
                        table[at] = value & ~COPIED | flag
                        changed = True
                if changed:
                    self._mapping.cache.mark_dirty(offset)
            self._layer.writer.flush_if_large()

    def _references(self, l1: array.array[int]) -> Iterator[tuple[int, int]]:
        """Runs of clusters that an L1 table leads to: L2 tables, and what these refer to."""
        for entry in l1:
            start = entry & OFFSET_MASK
            if not start:
                continue
            yield start >> self._cluster_bits, 1
            for _, table in self._slices(start):
                yield from self._runs(table)

    def _runs(self, table: array.array[int]) -> Iterator[tuple[int, int]]:
        first = count = 0
        for at in range(0, len(table), self._step):
            entry = table[at]
            if entry & COMPRESSED:
                yield compressed.host_clusters(entry, self._cluster_bits)
                continue
            cluster = (entry & OFFSET_MASK) >> self._cluster_bits
            if not cluster:
                continue
            if cluster == first + count:
                count += 1
            else:
                if count:
                    yield first, count
                first, count = cluster, 1
        if count:
            yield first, count

    def _slices(self, start: int) -> Iterator[tuple[int, array.array[int]]]:
        """An L2 table in the pieces that the cache holds, each with its offset."""
        cache = self._mapping.cache
        for offset in range(start, start + self._cluster_size, cache.slice_bytes):
            yield offset, cache.get(offset)

    def _allocate(self, length: int) -> int:
        clusters = max(1, div_up(length, self._cluster_size))
        return self._refcounts.allocate_exactly(clusters) << self._cluster_bits

    def _set_dirty(self, *, is_dirty: bool) -> None:
        head = self._layer.area.header
        if head.version < 3:
            return  # version 2 has no such bit
        bits = head.incompatible_features & ~layout.INCOMPATIBLE_DIRTY
        if is_dirty:
            bits |= layout.INCOMPATIBLE_DIRTY
        self._layer.writer.write_header(incompatible_features=bits)
        self._storage.flush()
