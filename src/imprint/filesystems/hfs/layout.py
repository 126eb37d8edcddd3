"""Structures of classic HFS. All integers are big-endian; the master block is in ``probes``.

Source: Inside Macintosh: Files, chapter 2, "Data Organization on Volumes".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from imprint.core.layout import Structure, raw, uint

ROOT_PARENT, ROOT, EXTENTS_FILE, CATALOG_FILE = 1, 2, 3, 4

DATA, RESOURCE = 0x00, 0xFF
"""Forks, as the keys of further extents have them."""

FOLDER_RECORD, FILE_RECORD = 1, 2

EXTENTS_BYTES: Final = 12
"""Of a fork, or a record of the extents tree: three pairs."""


class ExtentsRecord(Structure, size=20, endian=">"):
    """Further extents of a fork."""

    fork: int = uint(1, at=1, doc="DATA or RESOURCE")
    file: int = uint(4, at=2, doc="number of the file")
    first: int = uint(2, at=6, doc="which block of the fork the first one is")
    extents: bytes = raw(12, at=8, doc="three pairs")


class FolderRecord(Structure, size=70, endian=">"):
    """A folder, as the catalog has it."""

    kind: int = uint(1, at=0, doc="FOLDER_RECORD")
    count: int = uint(2, at=4, doc="of what is in it")
    number: int = uint(4, at=6, doc="of the folder")
    created_s: int = uint(4, at=10, doc="since 1904, local time; 0: not known")
    modified_s: int = uint(4, at=14, doc="the same")
    finder: bytes = raw(32, at=22, doc="what the Finder wants to know")


class FileRecord(Structure, size=102, endian=">"):
    """A file, as the catalog has it."""

    kind: int = uint(1, at=0, doc="FILE_RECORD")
    finder: bytes = raw(16, at=4, doc="type, creator, flags, place in a window")
    number: int = uint(4, at=20, doc="of the file")
    data_size: int = uint(4, at=26, doc="of the data fork, in bytes")
    resource_size: int = uint(4, at=36, doc="of the resource fork, in bytes")
    created_s: int = uint(4, at=44, doc="since 1904, local time; 0: not known")
    modified_s: int = uint(4, at=48, doc="the same")
    finder_more: bytes = raw(16, at=56, doc="icon, comment …")
    data_extents: bytes = raw(12, at=74, doc="three pairs")
    resource_extents: bytes = raw(12, at=86, doc="three pairs")


class Record(NamedTuple):
    """A record of the catalog.

    Attributes:
        parent: number of the folder that it is in.
        name: as it stands.
        data: behind the key.
        leaf: number of the node that has it.
    """

    parent: int
    name: bytes
    data: bytes
    leaf: int


def item_of(data: bytes) -> FolderRecord | FileRecord | None:
    """What the data of a record tell of; ``None`` of those that only say where something is.

    Raises:
        TruncatedImageError: if they are too short.
    """
    if data[:1] == bytes([FOLDER_RECORD]):
        return FolderRecord.unpack(data)
    if data[:1] == bytes([FILE_RECORD]):
        return FileRecord.unpack(data)
    return None


def extents_of(data: bytes) -> tuple[tuple[int, int], ...]:
    """``(first block, block count)`` of three pairs, up to the first that is empty."""
    found = []
    for at in range(0, EXTENTS_BYTES, 4):
        start, count = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 4])
        if count == 0:
            break
        found.append((start, count))
    return tuple(found)


def record_of(record: bytes, leaf: int) -> Record | None:
    """A record of a leaf, or an index, of the catalog; ``None`` if it is too short to be one."""
    start = 1 + record[0]
    start += start % 2
    if record[0] < 6 or start > len(record):
        return None
    return Record(
        int.from_bytes(record[2:6]), record[7 : 7 + min(record[6], 31)], record[start:], leaf
    )
