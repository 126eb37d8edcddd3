"""Compressed loop images, version 2, as Knoppix and its like used them. Only read.

::

    0x00  a shell script that mounts the file, 128 bytes; its second line is "#V2.0 Format"
    0x80  header: block size and count
    0x88  offsets of all blocks in the file, and of the last one's end
    …     blocks: zlib streams

All integers are big-endian.

Source: cloop ``compressed_loop.h``; QEMU ``block/cloop.c``.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Match
from imprint.core.image import Image
from imprint.core.info import ImageInfo
from imprint.core.layout import Structure, raw, uint
from imprint.core.readonly import ReadOnlyFormat
from imprint.core.tables import read_table
from imprint.core.units import MIB

if TYPE_CHECKING:
    from array import array

    from imprint.core.contracts import Opener, Storage

PREAMBLE: Final = b"#!/bin/sh\n#V2.0 Format\n"
SECTOR_BYTES: Final = 512
BLOCK_BYTES_MAX: Final = 16 * MIB
"""Blocks are decoded whole. The tools make 64 KiB to 1 MiB of them."""
BLOCK_COUNT_MAX: Final = 1 << 23
"""Offsets of 64 MiB; 512 GiB in blocks of 64 KiB."""


class Header(Structure, size=0x88, endian=">"):
    """What is in front of the offsets."""

    preamble: bytes = raw(128, at=0x00, doc="PREAMBLE, then more script")
    block_size: int = uint(4, at=0x80, doc="of a block of the disk, in bytes")
    block_count: int = uint(4, at=0x84, doc="the disk is all blocks")


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the format or the file's size.
        UnsupportedFeatureError: for another version, or blocks that are too many or large.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    if not header.preamble.startswith(PREAMBLE):
        raise UnsupportedFeatureError(
            f"expected a cloop image of version 2.0, found {header.preamble[:24]!r}",
            name=storage.name,
        )
    size = header.block_size
    need("block_size", size > 0 and size % SECTOR_BYTES == 0, "whole sectors")
    lacking("block_size", size <= BLOCK_BYTES_MAX, f"at most 0x{BLOCK_BYTES_MAX:x}")
    count = header.block_count
    lacking("block_count", count <= BLOCK_COUNT_MAX, f"at most 0x{BLOCK_COUNT_MAX:x}")
    return header


class CloopLayer:
    """An image opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, header: Header, offsets: array[int]) -> None:
        self._storage = storage
        self._header = header
        self._offsets = offsets

    @property
    def size(self) -> int:
        """Of all blocks: what the last one has too much cannot be known."""
        return self._header.block_size * self._header.block_count

    @property
    def traits(self) -> Traits:
        """The grain is the block."""
        return Traits(grain=self._header.block_size)

    def map(self, offset: int, length: int) -> Extent:
        """Everything is compressed."""
        where = self._offsets[offset // self._header.block_size]
        return Extent(offset, length, Kind.ENCODED, self._storage, where)

    def unit(self, offset: int) -> Extent:
        """The block around ``offset``."""
        size = self._header.block_size
        index = offset // size
        return Extent(index * size, size, Kind.ENCODED, self._storage, self._offsets[index])

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Inflate a block; its checksum is compared.

        Raises:
            CorruptImageError: if it is damaged, or not exactly a block.
            TruncatedImageError: if it lies behind the end of the file.
        """
        index = unit.offset // self._header.block_size
        start, end = self._offsets[index], self._offsets[index + 1]
        problem = partial(
            CorruptImageError, name=self._storage.name, offset=start, length=max(0, end - start)
        )
        # A stream of deflate is never longer than this; QEMU allows for the same.
        if not start < end <= start + 2 * self._header.block_size + 1024:
            raise problem(f"block {index}: expected an end behind 0x{start:x}, found 0x{end:x}")
        if end > self._storage.size:
            raise TruncatedImageError(
                f"block {index}: expected 0x{end - start:x} bytes at 0x{start:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=start,
                length=end - start,
            )
        packed = bytearray(end - start)
        self._storage.readinto(memoryview(packed), start)
        try:
            decoder = zlib.decompressobj()
            data = decoder.decompress(packed, unit.length)
            # The checksum is behind the last byte, and is read only if more is asked for.
            more = b"" if decoder.eof else decoder.decompress(decoder.unconsumed_tail, 1)
        except zlib.error as failure:
            raise problem(f"block {index}: expected a zlib stream: {failure}") from failure
        if len(data) != unit.length or more or not decoder.eof:
            found = "more" if more else f"{len(data)}"
            raise problem(f"block {index}: expected {unit.length} bytes, found {found}")
        buffer[:] = data

    def info(self) -> ImageInfo:
        """What the header says."""
        return ImageInfo("cloop", self.size, options={"block_size": self._header.block_size})

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()


class CloopFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "cloop"
    title = "compressed loop image"

    def probe(self, storage: Storage) -> Match:
        """The script's first two lines."""
        head = bytearray(min(len(PREAMBLE), storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == PREAMBLE else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading."""
        del opener
        header = read_header(storage)
        offsets = read_table(storage, Header.SIZE, header.block_count + 1, "Q", "big")
        return Image(CloopLayer(storage, header, offsets), name=storage.name)


FORMAT: Final = CloopFormat()
