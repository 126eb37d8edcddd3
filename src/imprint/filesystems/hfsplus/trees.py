"""The B-trees of HFS+, from leaf to leaf, and forks with more than eight extents.

Source: TN1150, "B-Trees" and "Extents Overflow File".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.filesystems.hfs_common import SpecialFile, Tree
from imprint.filesystems.hfsplus import layout
from imprint.filesystems.hfsplus.layout import Fork, VolumeHeader, extents_of, fork_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

_EXTENT_KEY_BYTES: Final = 10


class Volume:
    """A volume whose header was read.

    Attributes:
        header: of it.
        reader: of the volume, counted from its own start.
        overflow: further extents by file and fork: ``(file, fork)`` to blocks and counts.
    """

    def __init__(self, reader: VolumeReader) -> None:
        """Read the header and the tree of further extents.

        Raises:
            CorruptImageError: if they make no sense.
        """
        self.reader = reader
        self.header = _header(reader)
        self.overflow: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for record in self.leaves(fork_of(self.header.extents_fork), "extents tree"):
            if len(record) >= 2 + _EXTENT_KEY_BYTES + layout.EXTENTS_BYTES:
                key = (int.from_bytes(record[4:8]), record[2])
                self.overflow.setdefault(key, []).extend(extents_of(record[12:76]))

    def file(self, fork: Fork, number: int, what: str) -> SpecialFile:
        """A special file; ``number`` is that of the file.

        Raises:
            CorruptImageError: if it is too large, or its extents are not all there.
        """
        extents = [*fork.extents, *self.overflow.get((number, 0), ())]
        return SpecialFile(self.reader, self.header.block_size, extents, fork.size, what)

    def leaves(self, fork: Fork, what: str, number: int = layout.EXTENTS_FILE) -> Iterator[bytes]:
        """The records of all leaves of a tree, in its order. None if the file is empty.

        Raises:
            CorruptImageError: if the tree cannot be followed.
        """
        if fork.size:
            for leaf in Tree(self.file(fork, number, what)).leaves():
                yield from leaf.records


def _header(reader: VolumeReader) -> VolumeHeader:
    header = VolumeHeader.unpack(
        reader.read(layout.HEADER_OFFSET, VolumeHeader.SIZE, "volume header")
    )
    size = header.block_size
    expected = layout.VERSIONS.get(header.signature)
    need = [
        ("signature", expected is not None, "H+ or HX"),
        ("version", header.version == expected, str(expected)),
        ("block_size", size >= 512 and size.bit_count() == 1, "a power of two"),
        ("total_blocks", 0 < header.total_blocks * size <= reader.size, "blocks of the volume"),
    ]
    for field, holds, what in need:
        header.require(field, holds, what, where=reader.name, at=layout.HEADER_OFFSET)
    return header
