"""Changes to extended L2 entries, which describe 32 subclusters each.

A cluster that is not ours alone, or that is compressed, is copied here: the caller only
brings the subclusters that it writes, and all others have to come along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.extent import Kind
from imprint.core.units import div_up
from imprint.formats.qcow2 import compressed, entries
from imprint.formats.qcow2.layout import (
    ALLOCATED_ALL,
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS,
    ZERO_ALL,
)

if TYPE_CHECKING:
    import array
    from collections.abc import Iterator

    from imprint.core.extent import Extent
    from imprint.formats.qcow2.mapping import Slice
    from imprint.formats.qcow2.writer import Writer


def place(writer: Writer, found: Slice, offset: int, length: int) -> Extent | None:
    """The part of one cluster from ``offset`` on that may be overwritten, if any."""
    size = writer.layer.area.cluster_size
    grain = size // SUBCLUSTERS
    within = offset % size
    if not found.table[2 * found.at] & COPIED:
        return None
    sub, inner = divmod(within, grain)
    run = entries.extended_run(found.table, found.at, sub, SUBCLUSTERS - sub, size)
    if run.kind is not Kind.DATA:
        return None
    return writer.extent(offset, min(length, run.grains * grain - inner), run.host + inner)


def allocate(writer: Writer, offset: int, length: int) -> Extent:
    """A place for subclusters that have none."""
    size = writer.layer.area.cluster_size
    grain = size // SUBCLUSTERS
    cluster, within = divmod(offset, size)
    found = writer.mapping.find(cluster)
    entry = found.table[2 * found.at] if found else 0
    if not entry & (OFFSET_MASK | COMPRESSED):
        limit = div_up(within + length, size)
        if found is not None:
            limit = _empty(found, min(limit, found.left))
        first, count = writer.refcounts.allocate(limit)
        return writer.extent(offset, min(length, count * size - within), first * size + within)
    assert found is not None
    bitmap = found.table[2 * found.at + 1]
    if found.is_exclusive and entry & COPIED and not entry & COMPRESSED:
        entries.check_place(entry, size)
        sub = within // grain
        free = (~bitmap & ALLOCATED_ALL) >> sub
        count = (~free & free + 1).bit_length() - 1
        host = (entry & OFFSET_MASK) + within
        return writer.extent(offset, min(length, count * grain), host)
    target = writer.refcounts.allocate_exactly(1) * size
    length = min(length, size - within)
    written = _bits(within // grain, div_up(within + length, grain))
    kept = _held(entry, bitmap) & ~written
    _copy(writer, entry, target, kept)
    writer.copied[target] = kept
    return writer.extent(offset, length, target + within)


def link(writer: Writer, extent: Extent) -> None:
    """Mark subclusters as allocated at their new place."""
    size = writer.layer.area.cluster_size
    grain = size // SUBCLUSTERS
    for cluster, start, stop in _clusters(extent.offset, extent.length, size):
        bits = _bits(start // grain, div_up(stop, grain))
        host = extent.storage_offset + cluster * size - extent.offset
        found = writer.mapping.change(cluster, writer.refcounts)
        entry, bitmap = found.table[2 * found.at], found.table[2 * found.at + 1]
        if entry & COMPRESSED:
            bitmap = 0
        if (entry ^ host) & (OFFSET_MASK | COMPRESSED):
            bits |= writer.copied.pop(host, 0)
            writer.release(entry, cluster * size)
            bitmap &= ZERO_ALL
        found.table[2 * found.at] = host | COPIED
        found.table[2 * found.at + 1] = (bitmap | bits) & ~(bits << SUBCLUSTERS)


def reserve(writer: Writer, extent: Extent) -> None:
    """Give clusters a place, while all of their subclusters stay unallocated."""
    size = writer.layer.area.cluster_size
    for cluster, _, _ in _clusters(extent.offset, extent.length, size):
        found = writer.mapping.change(cluster, writer.refcounts)
        host = extent.storage_offset + cluster * size - extent.offset
        found.table[2 * found.at] = host | COPIED


def set_clusters(writer: Writer, cluster: int, new: array.array[int]) -> None:
    """Replace whole clusters by plain or compressed ones."""
    for position, entry in enumerate(new, cluster):
        found = writer.mapping.change(position, writer.refcounts)
        writer.release(found.table[2 * found.at], position * writer.layer.area.cluster_size)
        found.table[2 * found.at] = entry
        found.table[2 * found.at + 1] = 0 if entry & COMPRESSED else ALLOCATED_ALL


def zero(writer: Writer, offset: int, length: int) -> None:
    """Make subclusters read as zeros; a cluster without any data is given up."""
    size = writer.layer.area.cluster_size
    grain = size // SUBCLUSTERS
    for cluster, start, stop in _clusters(offset, length, size):
        end = min(size, writer.layer.disk_size - cluster * size)
        last = SUBCLUSTERS if stop == end else stop // grain
        bits = _bits(start // grain, last)
        found = writer.mapping.find(cluster)
        entry, bitmap = (
            (found.table[2 * found.at], found.table[2 * found.at + 1]) if found else (0, 0)
        )
        if not entry and not bitmap and not writer.parent_reaches(cluster * size + start):
            continue
        if entry & COMPRESSED and bits != ALLOCATED_ALL:
            entry, bitmap = _decompress(writer, cluster, entry), ALLOCATED_ALL
        bitmap = (bitmap & ~bits if not entry & COMPRESSED else 0) | bits << SUBCLUSTERS
        if not bitmap & ALLOCATED_ALL:
            writer.release(entry, cluster * size)
            entry = 0
        found = writer.mapping.change(cluster, writer.refcounts)
        found.table[2 * found.at] = entry
        found.table[2 * found.at + 1] = bitmap


def _decompress(writer: Writer, cluster: int, entry: int) -> int:
    """Give a compressed cluster a plain place; the entry for that."""
    size = writer.layer.area.cluster_size
    target = writer.refcounts.allocate_exactly(1) * size
    _copy(writer, entry, target, ALLOCATED_ALL)
    writer.release(entry, cluster * size)
    return target | COPIED


def _copy(writer: Writer, entry: int, target: int, kept: int) -> None:
    """Copy the subclusters ``kept`` of the cluster behind ``entry`` to ``target``."""
    area, data = writer.layer.area, writer.layer.data
    grain = area.cluster_size // SUBCLUSTERS
    if entry & COMPRESSED and kept:
        buffer = memoryview(bytearray(area.cluster_size))
        bits, kind = area.header.cluster_bits, area.header.compression_type
        compressed.decode(writer.layer.storage, entry, bits, kind, buffer)
        for start, stop in _runs(kept, grain):
            data.write(buffer[start:stop], target + start)
        return
    source = entry & OFFSET_MASK
    for start, stop in _runs(kept, grain):
        data.copy_range(data, source + start, target + start, stop - start)


def _held(entry: int, bitmap: int) -> int:
    """Which subclusters have bytes in the cluster behind ``entry``."""
    return ALLOCATED_ALL if entry & COMPRESSED else bitmap & ALLOCATED_ALL


def _empty(found: Slice, limit: int) -> int:
    """How many clusters from the entry on, the first being one, have no host cluster."""
    count = 1
    while count < limit and not found.table[2 * (found.at + count)]:
        count += 1
    return count


def _clusters(offset: int, length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Clusters that a range touches, and from where to where inside each."""
    end = offset + length
    for cluster in range(offset // size, div_up(end, size)):
        base = cluster * size
        yield cluster, max(offset - base, 0), min(end - base, size)


def _bits(first: int, stop: int) -> int:
    return (1 << stop) - (1 << first)


def _runs(bits: int, grain: int) -> Iterator[tuple[int, int]]:
    """The byte ranges, inside a cluster, of the bits that are set."""
    position = 0
    while bits >> position:
        if bits >> position & 1:
            rest = bits >> position
            count = (~rest & rest + 1).bit_length() - 1
            yield position * grain, (position + count) * grain
            position += count
        else:
            position += 1
