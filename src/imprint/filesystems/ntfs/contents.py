"""Where files lie: the lists of runs of all contents (``$DATA``), found quickly."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.layout import STRIDE
from imprint.filesystems.ntfs.records import HOLE, runs_of
from imprint.filesystems.ntfs.walk import DAMAGED_MARK, records_in_use
from imprint.filesystems.probes.microsoft import MftAttribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ntfs.files import Files
    from imprint.filesystems.ntfs.geometry import Geometry

_RECORD: Final = struct.Struct("<4xHH12xH")
"""Of a record: place and count of its update sequence, and where its attributes begin."""

_HEAD: Final = struct.Struct("<IIB7xQ8xH")
"""Of an attribute: type, length, whether its value is in clusters; then which cluster of it the
list of runs begins with, and where that list is.

As numbers and not as structures: a volume has millions of them.
"""


def file_runs(files: Files) -> Iterator[tuple[int, int, int]]:
    """See :class:`~imprint.filesystems.files.Locating`. Damaged records are left out."""
    geometry, unit = files.geometry, files.geometry.cluster_size
    size, head, data_kind = geometry.record_size, _HEAD.unpack_from, layout.DATA
    last = size - _HEAD.size
    for number, record in records_in_use(files):
        start = None if record.startswith(DAMAGED_MARK) else undo_fixups(record, geometry)
        at = size if start is None else start
        while at <= last:
            kind, length, is_elsewhere, lowest, runs_at = head(record, at)
            if kind > data_kind or length < MftAttribute.SIZE:
                break  # they are in the order of their types
            if kind == data_kind and is_elsewhere:
                position = lowest * unit
                pairs = record[at + runs_at : at + length]
                for cluster, run in runs_of(bytes(pairs), f"MFT record {number}", geometry):
                    if cluster != HOLE:
                        yield position, cluster * unit, run * unit
                    position += run * unit
            at += length


def undo_fixups(record: bytearray, geometry: Geometry) -> int | None:
    """Put back what the update sequence of a record keeps, and tell where its attributes begin.

    ``None`` if it can have none. It is not verified that the record was written as a whole.
    """
    sequence, count, start = _RECORD.unpack_from(record)
    if count != geometry.record_size // STRIDE + 1 or sequence + 2 * count > STRIDE - 2:
        return None
    for index in range(1, count):
        place, kept = index * STRIDE - 2, sequence + 2 * index
        record[place : place + 2] = record[kept : kept + 2]
    return int(start)
