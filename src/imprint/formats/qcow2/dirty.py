"""What a persistent dirty bitmap says to have been written.

Source: QEMU ``docs/interop/qcow2.txt``, *Bitmaps*.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import runs_of_bits
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError, UsageError
from imprint.core.runs import Runs
from imprint.formats.qcow2 import bitmaps, header, layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.bitmaps import Bitmap

_ALL_ONES: Final = 1
"""Bit of an entry without a cluster: all bits are set; else all are clear."""
_OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
_GRANULARITY_BITS: Final = range(9, 32)
"""QEMU's limits: 512 bytes to 2 GiB."""


def written(storage: Storage, name: str) -> Runs:
    """What has been written to the disk since the bitmap ``name`` was made, in bytes.

    Raises:
        UsageError: if there is no such bitmap.
        UnsupportedFeatureError: if it missed something, or its meaning is not known.
        CorruptImageError: if it is damaged.
    """
    area = header.read(storage)
    known = {
        item.name.decode("utf-8", "surrogateescape"): item
        for item in bitmaps.directory(area, storage)
    }
    if name not in known:
        listed = ", ".join(list(known)[:16]) or "none"
        raise UsageError(f"has no bitmap {name!r:.80}; it has: {listed}", name=storage.name)
    bitmap = known[name]
    _check(bitmap, name, storage)
    granularity = 1 << bitmap.entry.granularity_bits
    bits = -(-area.header.size // granularity)
    found = Runs.of(_runs(bitmap, bits, area.cluster_size, storage)).scaled(granularity)
    return found.clip(0, area.header.size)


def _check(bitmap: Bitmap, name: str, storage: Storage) -> None:
    entry = bitmap.entry
    where = f"{storage.name}: bitmap {name}"
    if entry.flags & layout.BITMAP_IN_USE:
        raise UnsupportedFeatureError("was not saved by its last writer", name=where)
    if not entry.flags & layout.BITMAP_AUTO:
        raise UnsupportedFeatureError("does not record what is written", name=where)
    if entry.type != 1 or (
        entry.extra_data_size and not entry.flags & layout.BITMAP_EXTRA_COMPATIBLE
    ):
        raise UnsupportedFeatureError("is of a kind that is not known", name=where)
    if entry.granularity_bits not in _GRANULARITY_BITS:
        raise CorruptImageError(
            f"expected a granularity of 2^9 to 2^31, found 2^{entry.granularity_bits}", name=where
        )


def _runs(
    bitmap: Bitmap, bits: int, cluster_size: int, storage: Storage
) -> Iterator[tuple[int, int]]:
    """Runs of set bits, cluster by cluster of the bitmap."""
    entry = bitmap.entry
    in_cluster = cluster_size * 8
    if entry.table_size != -(-bits // in_cluster):
        raise CorruptImageError(
            f"bitmap table: expected {-(-bits // in_cluster)} entries, found {entry.table_size}",
            name=storage.name,
        )
    if entry.table_offset + entry.table_size * 8 > storage.size:
        raise CorruptImageError("bitmap table: expected it inside the file", name=storage.name)
    table = array("Q", bytes(entry.table_size * 8))
    storage.readinto(memoryview(table).cast("B"), entry.table_offset)
    if sys.byteorder == "little":
        table.byteswap()
    buffer = memoryview(bytearray(cluster_size))
    for number, place in enumerate(table):
        first = number * in_cluster
        count = min(in_cluster, bits - first)
        offset = place & _OFFSET
        if not offset:
            if place & _ALL_ONES:
                yield first, count
            continue
        if offset + cluster_size > storage.size:
            raise CorruptImageError(
                f"bitmap cluster at 0x{offset:x}: expected it inside the file", name=storage.name
            )
        storage.readinto(buffer, offset)
        for start, length in runs_of_bits(buffer, 0, count):
            yield first + start, length
