"""Changing the size of the disk."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError, UsageError
from imprint.core.image import WritableImage
from imprint.core.units import align_up, div_up
from imprint.formats.qcow2 import bitmaps, layout, snapshot_table

if TYPE_CHECKING:
    from imprint.formats.qcow2.layer import Qcow2Layer

_ENTRY_BYTES: Final = 8
_SECTOR: Final = 512


def resize(layer: Qcow2Layer, size: int) -> None:
    """Change the disk's size; durable when this returns. What is new reads as zeros.

    Killed at any moment, the disk has the old size or the new one.

    Raises:
        UsageError: if QEMU could not use a disk of that size.
        RefusedError: if snapshots would be damaged.
    """
    old = layer.disk_size
    _check(layer, size)
    layer.writer.begin()
    layer.writer.flush()
    if size == old:
        return
    bitmaps.mark_in_use(layer.area, layer.storage, is_resized=True)
    if size > old:
        _grow(layer, old, size)
    else:
        _shrink(layer, old, size)
    layer.writer.flush()


def _check(layer: Qcow2Layer, size: int) -> None:
    area, name = layer.area, layer.storage.name
    if size % _SECTOR:
        raise UsageError(f"expected a size that is a multiple of 512, found {size}", name=name)
    entries = area.l1_entries_for(size)
    if entries * _ENTRY_BYTES > layout.L1_BYTES_MAX:
        limit = layout.L1_BYTES_MAX // _ENTRY_BYTES * area.entries_per_l2 * area.cluster_size
        raise UsageError(
            f"expected at most {limit} bytes with clusters of {area.cluster_size}, found {size}",
            name=name,
            advice="use larger clusters",
        )
    if area.header.nb_snapshots:
        snapshots, _ = snapshot_table.read(area, layer.storage)
        # Their disk would change its size with ours.
        if any(snapshot.disk_size is None for snapshot in snapshots):
            raise RefusedError(
                "has snapshots that do not say the size of their disk",
                name=name,
                advice="delete the snapshots first",
            )


def _grow(layer: Qcow2Layer, old: int, size: int) -> None:
    """First make what will be new read as zeros, then let the header say the new size."""
    entries = layer.area.l1_entries_for(size)
    if entries > len(layer.mapping.l1):
        _move_l1(layer, entries)
    layer.disk_size = size
    try:
        if layer.area.has_data_file and layer.data.size < size:
            layer.data.resize(size)
        # The last cluster may hold anything behind the old end, and so may the backing file.
        reach = layer.parent.size if layer.parent is not None else 0
        stop = min(size, max(align_up(old, layer.area.cluster_size), reach))
        image = WritableImage(layer, layer.storage, name=layer.storage.name, parent=layer.parent)
        image.zero(old, stop - old)
        layer.writer.flush()
        layer.writer.write_header(size=size)
    except BaseException:
        layer.disk_size = old
        raise
    layer.storage.flush()


def _move_l1(layer: Qcow2Layer, entries: int) -> None:
    """Give the disk a longer L1 table; a longer one than its size needs is no fault."""
    writer, mapping, cluster_size = layer.writer, layer.mapping, layer.area.cluster_size
    start, length = mapping.l1_range
    offset = writer.refcounts.allocate_exactly(div_up(entries * _ENTRY_BYTES, cluster_size))
    offset *= cluster_size
    writer.flush()  # the header still says the old table: the new one is only counted
    mapping.move_l1(offset, entries)
    mapping.write_l1()
    layer.storage.flush()
    writer.write_header(l1_table_offset=offset, l1_size=entries)
    layer.storage.flush()
    if length:
        writer.refcounts.release(start // cluster_size, div_up(length, cluster_size))


def _shrink(layer: Qcow2Layer, old: int, size: int) -> None:
    """First let the header say the new size, then give up what is behind it."""
    layer.writer.write_header(size=size)
    layer.storage.flush()
    layer.disk_size = size
    cluster_size, per_l2 = layer.area.cluster_size, layer.mapping.entries_per_l2
    position, end = div_up(size, cluster_size), div_up(old, cluster_size)
    while position < end:
        stop = min(end, (position // per_l2 + 1) * per_l2)
        _drop_clusters(layer, position, stop)
        if position % per_l2 == 0:
            layer.mapping.drop_table(position // per_l2, layer.writer.refcounts)
        layer.writer.flush_if_large()
        position = stop
    layer.writer.flush()
    if layer.area.has_data_file and layer.data.size > size:
        layer.data.resize(size)


def _drop_clusters(layer: Qcow2Layer, position: int, stop: int) -> None:
    """Unlink the clusters of one L2 table from ``position`` on.

    A table that a snapshot shares loses our reference, and so does each of its clusters.
    """
    writer, mapping = layer.writer, layer.mapping
    is_whole = position % mapping.entries_per_l2 == 0
    while position < stop:
        found = mapping.find(position)
        if found is None:
            return
        if not is_whole:
            found = mapping.change(position, writer.refcounts)
        count = min(found.left, stop - position)
        first, last = found.at * mapping.words, (found.at + count) * mapping.words
        for index, entry in enumerate(found.table[first : last : mapping.words]):
            if entry:
                writer.release(entry, (position + index) * layer.area.cluster_size)
        if not is_whole:
            found.table[first:last] = array.array("Q", bytes((last - first) * _ENTRY_BYTES))
        position += count
