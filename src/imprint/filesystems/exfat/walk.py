"""Walking the directories of exFAT.

Source: Microsoft "exFAT file system specification" 1.00, sections 6 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, uint
from imprint.core.units import div_up
from imprint.filesystems.clusters import (
    FIRST_CLUSTER,
    FOLDER_BYTES_AT_ONCE,
    Chains,
    pieces_of,
    runs_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.exfat.geometry import Geometry

BITMAP: Final = 0x81
UPCASE: Final = 0x82
FILE: Final = 0x85
STREAM: Final = 0xC0

_ENTRY_BYTES: Final = 32
_END: Final = 0
_FOLDER: Final = 0x10
_NO_CHAIN: Final = 0x02


class Entry(Structure, size=32, endian="<"):
    """A directory's entry, as far as all that name clusters are alike."""

    type: int = uint(1, at=0, doc="what it is; 0: the directory ends")
    flags: int = uint(1, at=1, doc="of a bitmap: which; of a stream: whether it has a chain")
    attributes: int = uint(2, at=4, doc="of a file")
    first_cluster: int = uint(4, at=20, doc="0 if there is none")
    length: int = uint(8, at=24, doc="bytes that are allocated")


@dataclass(frozen=True)
class Named:
    """Something that a directory names.

    Attributes:
        type: of the entry that names its clusters.
        flags: of that entry.
        is_folder: whether there are further entries in it.
        extents: ``(offset, length)`` in bytes of the volume; of what is no folder: only once.
        length: in bytes, as far as it counts.
    """

    type: int
    flags: int
    is_folder: bool
    extents: Iterable[tuple[int, int]]
    length: int


def walk(reader: VolumeReader, place: Geometry, chains: Chains) -> Iterator[Named]:
    """All that the directories name, the root directory first.

    Raises:
        CorruptImageError: if a chain leads nowhere.
    """
    root = Named(
        FILE, 0, is_folder=True, extents=list(_chain(place, chains, place.root_cluster)), length=0
    )
    yield root
    waiting = [root]
    while waiting:
        is_folder = False
        for entry in _entries(reader, waiting.pop().extents):
            if entry.type == FILE:
                is_folder = bool(entry.attributes & _FOLDER)
            elif entry.type in (BITMAP, UPCASE, STREAM) and entry.first_cluster:
                named = _named(reader, place, chains, entry, is_folder=is_folder)
                yield named
                if named.is_folder:
                    waiting.append(named)


def _named(
    reader: VolumeReader, place: Geometry, chains: Chains, entry: Entry, *, is_folder: bool
) -> Named:
    is_folder = is_folder and entry.type == STREAM
    if entry.type == STREAM and entry.flags & _NO_CHAIN:
        count = div_up(entry.length, place.cluster_size)
        if count > place.cluster_count:
            raise CorruptImageError(
                f"expected a file inside the volume, found one of {entry.length} bytes",
                name=reader.name,
            )
        is_new = chains.take(entry.first_cluster, count)
        extents: Iterable[tuple[int, int]] = (
            [_bytes(place, entry.first_cluster, count)] if is_new and count else []
        )
    else:
        extents = _chain(place, chains, entry.first_cluster)
        extents = list(extents) if is_folder else extents
    return Named(entry.type, entry.flags, is_folder, extents, entry.length)


def _chain(place: Geometry, chains: Chains, first: int) -> Iterator[tuple[int, int]]:
    for start, count in runs_of(chains.follow(first)):
        yield _bytes(place, start, count)


def _bytes(place: Geometry, first: int, count: int) -> tuple[int, int]:
    offset = place.heap_at + (first - FIRST_CLUSTER) * place.cluster_size
    return offset, count * place.cluster_size


def _entries(reader: VolumeReader, extents: Iterable[tuple[int, int]]) -> Iterator[Entry]:
    for offset, length in pieces_of(extents, FOLDER_BYTES_AT_ONCE):
        content = reader.read(offset, length, "directory")
        for at in range(0, length, _ENTRY_BYTES):
            if content[at] == _END:
                return
            yield Entry.unpack(content[at : at + _ENTRY_BYTES])
