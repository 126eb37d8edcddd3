"""HFS+ on-disk structures. All integers are big-endian.

Source: Apple Technical Note TN1150 "HFS Plus Volume Format".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from imprint.core.layout import Structure, raw, uint

HEADER_OFFSET: Final = 1024
HEADER_BYTES: Final = 512
VERSIONS: Final = {b"H+": 4, b"HX": 5}

ATTRIBUTE_JOURNALED: Final = 1 << 13

EXTENTS_FILE, ALLOCATION_FILE = 3, 6

FORK_BYTES: Final = 80
EXTENTS_BYTES: Final = 64
"""Of a fork, or a record of the extents tree: eight pairs."""


class VolumeHeader(Structure, size=512, endian=">"):
    """At byte 1024; the alternate one is 1024 bytes before the end of the volume."""

    signature: bytes = raw(2, at=0, doc="H+ or HX")
    version: int = uint(2, at=2, doc="4, or 5 for HX")
    attributes: int = uint(4, at=4, doc="whether it was unmounted, is journaled …")
    journal_info_block: int = uint(4, at=12, doc="where the journal is described; 0: nowhere")
    block_size: int = uint(4, at=40, doc="a power of two, at least 512")
    total_blocks: int = uint(4, at=44, doc="of the volume")
    free_blocks: int = uint(4, at=48, doc="of these")
    allocation_fork: bytes = raw(80, at=112, doc="the bitmap")
    extents_fork: bytes = raw(80, at=192, doc="the tree of further extents")
    catalog_fork: bytes = raw(80, at=272, doc="the tree of files and folders")
    attributes_fork: bytes = raw(80, at=352, doc="the tree of attributes")
    startup_fork: bytes = raw(80, at=432, doc="for systems without HFS+")


class JournalInfo(Structure, size=52, endian=">"):
    """Where the journal is."""

    flags: int = uint(4, at=0, doc="1: in this volume, 2: elsewhere, 4: still to be made")
    offset: int = uint(8, at=36, doc="in bytes of the volume")
    size: int = uint(8, at=44, doc="in bytes")


class Fork(NamedTuple):
    """A fork as a catalog record or the volume header describes it.

    Attributes:
        size: in bytes.
        block_count: of all its extents.
        extents: ``(first block, block count)`` of at most eight of them.
    """

    size: int
    block_count: int
    extents: tuple[tuple[int, int], ...]


def fork_of(raw_fork: bytes | memoryview) -> Fork:
    """A fork's 80 bytes."""
    data = bytes(raw_fork)
    size = int.from_bytes(data[:8])
    return Fork(size, int.from_bytes(data[12:16]), extents_of(data[16:FORK_BYTES]))


def extents_of(data: bytes) -> tuple[tuple[int, int], ...]:
    """Eight pairs, up to the first that is empty."""
    found = []
    for at in range(0, EXTENTS_BYTES, 8):
        start, count = int.from_bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8])
        if count == 0:
            break
        found.append((start, count))
    return tuple(found)
