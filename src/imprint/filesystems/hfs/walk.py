"""Walking classic HFS: the extents of all forks, named by the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.filesystems.hfs.layout import FileRecord, extents_of, item_of
from imprint.filesystems.probes.apple import HFS_OFFSET, SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.hfs.volume import Volume


def reached(place: Volume) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of all forks, in bytes of the volume.

    Raises:
        CorruptImageError: if a tree cannot be followed.
        ReadError: if a part of it cannot be read.
    """
    yield 0, HFS_OFFSET + SECTOR
    place.read_overflow()
    for extent in _extents(place):
        offset, length = place.place(extent)
        place.reader.check(offset, length, "extent of a file")
        yield offset, length


def _extents(place: Volume) -> Iterator[tuple[int, int]]:
    yield from place.known_extents()
    for record in place.catalog().all():
        item = item_of(record.data)
        if isinstance(item, FileRecord):
            yield from extents_of(item.data_extents)
            yield from extents_of(item.resource_extents)
