"""Predicting the size of an image file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.extent import Kind
from imprint.core.formats import Measure
from imprint.core.units import align_down, align_up, div_up
from imprint.formats.qcow2 import create, crypto

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.core.formats import CreateSpec
    from imprint.formats.qcow2.create import Plan

_ENTRY_BYTES: Final = 8


def measure(source: Source, spec: CreateSpec) -> Measure:
    """What storing ``source`` takes, uncompressed: the clusters it touches, and all tables."""
    made = create.plan(spec)
    tables = _table_bytes(made) + align_up(crypto.header_bytes(made.encryption), made.cluster_size)
    if made.data_file is not None:
        in_file = min(_data_bytes(source, made.cluster_size), made.size)
        in_file = made.size if made.preallocation in ("falloc", "full") else in_file
        return Measure(tables + in_file, tables + made.size)
    full = align_up(made.size, made.cluster_size)
    data = full if made.preallocation != "off" else _data_bytes(source, made.cluster_size)
    return Measure(tables + data, tables + full)


def _data_bytes(source: Source, cluster_size: int) -> int:
    total = last = 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(align_down(extent.offset, cluster_size), last)
            last = max(align_up(extent.end, cluster_size), first)
            total += last - first
    return total


def _table_bytes(made: Plan) -> int:
    """Of the header and of all tables that a full disk would have."""
    size, entry_bytes = made.cluster_size, 16 if made.is_extended else _ENTRY_BYTES
    clusters = div_up(made.size, size)
    l2_clusters = div_up(clusters * entry_bytes, size)
    l1_clusters = div_up(l2_clusters * _ENTRY_BYTES, size)
    data = 0 if made.data_file is not None else clusters
    counted = 1 + l1_clusters + l2_clusters + data
    per_block = size * 8 // made.refcount_bits
    # Blocks and their table count themselves: repeat until that changes nothing.
    blocks = table = 0
    while True:
        need = div_up(counted + blocks + table, per_block)
        need_table = div_up(need * _ENTRY_BYTES, size)
        if (need, need_table) == (blocks, table):
            break
        blocks, table = need, need_table
    return (1 + l1_clusters + l2_clusters + blocks + table) * size
