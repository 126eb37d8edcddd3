"""Comparing the tables of a QCOW with each other and the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.tables import read_table
from imprint.core.units import align_down
from imprint.core.usage import Usage, findings
from imprint.formats.qcow.layout import COMPRESSED, SECTOR_BYTES, Header, read_header

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.core.events import Finding


def check(storage: Storage) -> Iterator[Finding]:
    """Everything that can be wrong with tables whose header is sound.

    Compressed clusters may share sectors with each other: of them only the place is checked.
    """
    header = read_header(storage)
    return findings(_problems(storage, header))


def _problems(storage: Storage, header: Header) -> Iterator[tuple[str, str]]:
    usage = Usage(storage, SECTOR_BYTES)
    usage.take(0, Header.SIZE)
    l1 = read_table(storage, header.l1_table_offset, header.l1_count, "Q", "big")
    start = max(SECTOR_BYTES, align_down(header.l1_table_offset, SECTOR_BYTES))
    end = header.l1_table_offset + 8 * header.l1_count
    if end > start:
        usage.take(start, end - start)
    size = 8 * header.l2_count
    for number, offset in enumerate(l1):
        if offset == 0:
            continue
        problem = usage.take(offset, size, whole=True)
        if problem is not None:
            yield f"L1 entry {number}", problem
            continue
        table = read_table(storage, offset, header.l2_count, "Q", "big")
        yield from _wrong_clusters(storage, header, usage, number * header.l2_count, table)


def _wrong_clusters(
    storage: Storage, header: Header, usage: Usage, first: int, table: array[int]
) -> Iterator[tuple[str, str]]:
    for cluster, entry in enumerate(table, first):
        if entry == 0:
            continue
        problem = None
        if entry & COMPRESSED:
            offset, length = header.compressed(entry)
            if length == 0 or offset + length > storage.size:
                problem = f"expected 0x{length:x} bytes inside the file, found 0x{offset:x}"
        else:
            problem = usage.take(entry, header.cluster_size)
        if problem is not None:
            yield f"cluster {cluster} of the disk", problem
