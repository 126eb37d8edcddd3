"""Where files lie: the chains of a file allocation table, looked at all at once."""

from __future__ import annotations

import sys
from array import array
from itertools import compress
from operator import ne
from typing import TYPE_CHECKING, Final

from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    TABLE_BYTES_AT_ONCE,
    is_zero,
    pieces_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.fat.geometry import Geometry

_CODES: Final = {16: "H", 32: "I"}
_MASK_32: Final = 0x0FFFFFFF


def file_runs(
    reader: VolumeReader, place: Geometry, table_size: int
) -> Iterator[tuple[int, int, int]]:
    """See :class:`~imprint.filesystems.files.Locating`. Of folders as well.

    A run ends where an entry names another cluster than the next. Where a file goes on is
    not looked for: every run is said to begin its file.
    """
    start = place.fat_at + place.active * place.fat_size
    unit, end = place.cluster_size, FIRST_CLUSTER + place.cluster_count
    run = FIRST_CLUSTER
    for at, length in pieces_of([(0, table_size)], TABLE_BYTES_AT_ONCE):
        first = at * 8 // place.bits
        data = reader.read(start + at, length, "allocation table")
        if is_zero(data):
            run = first + length * 8 // place.bits
            continue
        entries = _entries(data, place.bits)
        last = min(first + len(entries), end)
        indices = range(max(first, FIRST_CLUSTER), last)
        following = range(indices.start + 1, last + 1)
        values = entries[indices.start - first :]
        for index in compress(indices, map(ne, values, following)):
            if entries[index - first]:
                offset = place.data_at + (run - FIRST_CLUSTER) * unit
                yield 0, offset, (index + 1 - run) * unit
            run = index + 1


def _entries(data: bytearray, bits: int) -> array[int]:
    """The numbers of a part of a table."""
    if bits == 12:
        pairs = zip(data[0::3], data[1::3], data[2::3], strict=False)
        entries = array("H")
        for low, middle, high in pairs:
            entries.append(low | (middle & 0x0F) << 8)
            entries.append(middle >> 4 | high << 4)
        return entries
    entries = array(_CODES[bits])
    entries.frombytes(data)
    if sys.byteorder != "little":
        entries.byteswap()
    return array("I", map(_MASK_32.__and__, entries)) if bits == 32 else entries
