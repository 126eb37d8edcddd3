"""Walking the directories of FAT: which clusters files and folders name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, uint
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    FOLDER_BYTES_AT_ONCE,
    Chains,
    pieces_of,
    runs_of,
)
from imprint.filesystems.fat.geometry import ENTRY_BYTES, Geometry
from imprint.filesystems.fat.names import DOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

_END: Final = 0
_DELETED: Final = 0xE5
_VOLUME_LABEL: Final = 0x08  # also part of what marks a piece of a long name
_FOLDER: Final = 0x10


class Entry(Structure, size=32, endian="<"):
    """A directory's entry."""

    name: bytes = raw(11, at=0, doc="the first byte tells whether it is used")
    attributes: int = uint(1, at=11, doc="what it is")
    cluster_high: int = uint(2, at=20, doc="of the first cluster; FAT32 only")
    cluster_low: int = uint(2, at=26, doc="of the first cluster; 0 if it is empty")


def walk(reader: VolumeReader, place: Geometry, chains: Chains) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of all clusters that the tree names, in bytes of the volume.

    Raises:
        CorruptImageError: if a chain leads nowhere.
    """
    waiting: list[list[tuple[int, int]]] = []
    if place.root_size:
        waiting.append([(place.root_at, place.root_size)])
    else:
        root = list(_extents(place, chains, place.root_cluster))
        yield from root
        waiting.append(root)
    while waiting:
        for entry in _entries(reader, waiting.pop()):
            first = entry.cluster_low
            if place.bits == 32:
                first |= (entry.cluster_high & 0x0FFF) << 16
            if entry.name in DOTS or first == 0:
                continue
            if not entry.attributes & _FOLDER:
                yield from _extents(place, chains, first)
            elif extents := list(_extents(place, chains, first)):
                yield from extents
                waiting.append(extents)


def _extents(place: Geometry, chains: Chains, first: int) -> Iterator[tuple[int, int]]:
    for start, count in runs_of(chains.follow(first)):
        offset = place.data_at + (start - FIRST_CLUSTER) * place.cluster_size
        yield offset, count * place.cluster_size


def _entries(reader: VolumeReader, extents: list[tuple[int, int]]) -> Iterator[Entry]:
    """Of files and folders; what is deleted, and names, are left out."""
    for offset, length in pieces_of(extents, FOLDER_BYTES_AT_ONCE):
        content = reader.read(offset, length, "directory")
        for at in range(0, length, ENTRY_BYTES):
            mark = content[at]
            if mark == _END:
                return
            if mark != _DELETED and not content[at + 11] & _VOLUME_LABEL:
                yield Entry.unpack(content[at : at + ENTRY_BYTES])
