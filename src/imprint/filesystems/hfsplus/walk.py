"""Walking HFS+: the extents of all forks, named by the catalog and the attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.filesystems.hfsplus import layout
from imprint.filesystems.hfsplus.layout import FORK_BYTES, extents_of, fork_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.hfsplus.trees import Volume

_CATALOG_FILE, _ATTRIBUTES_FILE = 4, 8
_FILE_RECORD: Final = 2
_FILE_FORKS_AT: Final = 88
_FORK_ATTRIBUTE, _EXTENTS_ATTRIBUTE = 0x20, 0x30


def reached(place: Volume) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of all forks, in bytes of the volume.

    Raises:
        CorruptImageError: if a tree cannot be followed.
    """
    header, unit = place.header, place.header.block_size
    yield 0, layout.HEADER_OFFSET + layout.HEADER_BYTES
    for start, count in _extents(place):
        offset, length = start * unit, count * unit
        place.reader.check(offset, length, "extent of a file")
        yield offset, length
    if header.attributes & layout.ATTRIBUTE_JOURNALED:
        place.reader.check(header.journal_info_block * unit, unit, "journal information")
        yield header.journal_info_block * unit, unit


def _extents(place: Volume) -> Iterator[tuple[int, int]]:
    header = place.header
    special = (
        header.allocation_fork,
        header.extents_fork,
        header.catalog_fork,
        header.attributes_fork,
        header.startup_fork,
    )
    for fork in special:
        yield from fork_of(fork).extents
    for further in place.overflow.values():
        yield from further
    for record in place.leaves(fork_of(header.catalog_fork), "catalog", _CATALOG_FILE):
        data = _behind_key(record)
        if int.from_bytes(data[:2]) == _FILE_RECORD:
            for at in (_FILE_FORKS_AT, _FILE_FORKS_AT + FORK_BYTES):
                yield from fork_of(data[at : at + FORK_BYTES]).extents
    tree = fork_of(header.attributes_fork)
    for record in place.leaves(tree, "attributes", _ATTRIBUTES_FILE):
        data = _behind_key(record)
        kind = int.from_bytes(data[:4])
        if kind == _FORK_ATTRIBUTE:
            yield from fork_of(data[8 : 8 + FORK_BYTES]).extents
        elif kind == _EXTENTS_ATTRIBUTE:
            yield from extents_of(data[8 : 8 + layout.EXTENTS_BYTES])


def _behind_key(record: bytes) -> bytes:
    """The data of a record; a key's length does not count its own two bytes."""
    length = 2 + int.from_bytes(record[:2])
    return record[length + length % 2 :]
