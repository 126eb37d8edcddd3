"""Compressed loop images, versions 2 and 4, as Knoppix and its like used them. Only read.

::

    0x00  a shell script that mounts the file, 128 bytes; its second line is "#V2.0 Format"
    0x80  header: block size and count
    0x88  offsets of all blocks in the file, and of the last one's end
    …     blocks: zlib streams

Version 4 says in the upper four bits of an offset how the block is compressed. Its first 0x88
bytes may also be the last ones of the file, the offsets in front of them, the blocks in front
of those. All integers are big-endian.

Source: cloop ``compressed_loop.h``, and ``cloop.h`` of release 4; QEMU ``block/cloop.c``.
"""

from __future__ import annotations

import sys
import zlib
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.info import ImageInfo
from imprint.core.layout import Structure, raw, uint
from imprint.core.readonly import ReadOnlyFormat
from imprint.core.tables import read_table
from imprint.core.units import MIB
from imprint.core.usage import findings

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding
    from imprint.core.info import Value

PREAMBLE: Final = b"#!/bin/sh\n#V2.0 Format\n"
PREAMBLE_4: Final = b"#!/bin/sh\n#V4.0 Format\n"
CODEC_SHIFT: Final = 60
OFFSET_MASK: Final = (1 << CODEC_SHIFT) - 1
CODEC_ZLIB, CODEC_NONE, CODEC_XZ = 0, 1, 2
CODECS: Final = {CODEC_ZLIB: "zlib", CODEC_NONE: "none", CODEC_XZ: "xz", 3: "lz4", 4: "lzo"}
"""Of version 4."""
_XZ_MEMORY_MAX: Final = 64 * MIB
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


def read_header(storage: Storage) -> tuple[Header, int]:
    """Read and check the header; also gives the place of the offsets.

    Raises:
        CorruptImageError: if a field contradicts the format or the file's size.
        UnsupportedFeatureError: for another version, or blocks that are too many or large.
    """
    start = _header_offset(storage)
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), start)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name, at=start)
    lacking = partial(need, error=UnsupportedFeatureError)
    if not header.preamble.startswith((PREAMBLE, PREAMBLE_4)):
        raise UnsupportedFeatureError(
            f"expected a cloop image of version 2.0 or 4.0, found {header.preamble[:24]!r}",
            name=storage.name,
        )
    size = header.block_size
    need("block_size", size > 0 and size % SECTOR_BYTES == 0, "whole sectors")
    lacking("block_size", size <= BLOCK_BYTES_MAX, f"at most 0x{BLOCK_BYTES_MAX:x}")
    count = header.block_count
    lacking("block_count", count <= BLOCK_COUNT_MAX, f"at most 0x{BLOCK_COUNT_MAX:x}")
    if start == 0:
        return header, Header.SIZE
    table = 8 * (count + 1)
    need("block_count", table <= start, f"a table of offsets in the 0x{start:x} bytes before")
    return header, start - table


def _header_offset(storage: Storage) -> int:
    """Where the header is: at the start, or at the end if it is only there."""
    end = storage.size - Header.SIZE
    if end <= 0 or _starts_with(storage, 0, (PREAMBLE, PREAMBLE_4)):
        return 0
    return end if _starts_with(storage, end, (PREAMBLE_4,)) else 0


def _starts_with(storage: Storage, offset: int, marks: tuple[bytes, ...]) -> bool:
    found = bytearray(max(0, min(len(PREAMBLE), storage.size - offset)))
    storage.readinto(memoryview(found), offset)
    return bytes(found) in marks


class CloopLayer:
    """An image opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, header: Header, offsets: array[int]) -> None:
        """Take over a storage.

        Raises:
            UnsupportedFeatureError: if a block is compressed in a way that is not here.
        """
        self._storage = storage
        self._header = header
        self._offsets = offsets
        self._codecs: tuple[int, ...] = (CODEC_ZLIB,)
        if header.preamble.startswith(PREAMBLE_4):
            upper = memoryview(offsets)[:-1].cast("B")[7 if sys.byteorder == "little" else 0 :: 8]
            self._codecs = tuple(sorted({byte >> 4 for byte in set(upper.tobytes())}))
        lacking = [codec for codec in self._codecs if codec > CODEC_XZ]
        if lacking:
            listed = ", ".join(CODECS.get(codec, str(codec)) for codec in lacking)
            raise UnsupportedFeatureError(
                f"expected blocks in zlib, xz or none, found {listed}", name=storage.name
            )

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
        where = self._place(offset // self._header.block_size)
        return Extent(offset, length, Kind.ENCODED, self._storage, where)

    def unit(self, offset: int) -> Extent:
        """The block around ``offset``."""
        size = self._header.block_size
        index = offset // size
        return Extent(index * size, size, Kind.ENCODED, self._storage, self._place(index))

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Decompress a block; its checksum is compared.

        Raises:
            CorruptImageError: if it is damaged, or not exactly a block.
            TruncatedImageError: if it lies behind the end of the file.
        """
        index = unit.offset // self._header.block_size
        start, end = self._place(index), self._place(index + 1)
        problem = partial(
            CorruptImageError, name=self._storage.name, offset=start, length=max(0, end - start)
        )
        what = self.misplaced(index)
        if what is not None:
            raise problem(f"block {index}: {what}")
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
        codec = CODEC_ZLIB
        if self._codecs != (CODEC_ZLIB,):
            codec = self._offsets[index] >> CODEC_SHIFT
        try:
            buffer[:] = _DECODERS[codec](packed, unit.length)
        except CorruptImageError as failure:
            raise problem(f"block {index}: {failure}") from failure

    def misplaced(self, index: int) -> str | None:
        """What is wrong with the two offsets of a block, if anything is."""
        start, end = self._place(index), self._place(index + 1)
        # A stream of deflate is never longer than this; QEMU allows for the same.
        if not start < end <= start + 2 * self._header.block_size + 1024:
            return f"expected an end behind 0x{start:x}, found 0x{end:x}"
        return None

    def info(self) -> ImageInfo:
        """What the header says."""
        options: dict[str, Value] = {"block_size": self._header.block_size}
        if self._header.preamble.startswith(PREAMBLE_4):
            options["version"] = 4
            options["compression"] = ",".join(CODECS[codec] for codec in self._codecs)
        return ImageInfo("cloop", self.size, options=options)

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def end(self, index: int) -> int:
        """Where a block ends in the file."""
        return self._place(index + 1)

    def _place(self, index: int) -> int:
        """Where a block begins; the version decides whether all bits say it."""
        place = self._offsets[index]
        return place & OFFSET_MASK if self._header.preamble.startswith(PREAMBLE_4) else place


def _inflate(packed: bytearray, length: int) -> bytes:
    try:
        decoder = zlib.decompressobj()
        data = decoder.decompress(packed, length)
        # The checksum is behind the last byte, and is read only if more is asked for.
        more = b"" if decoder.eof else decoder.decompress(decoder.unconsumed_tail, 1)
    except zlib.error as failure:
        raise CorruptImageError(f"expected a zlib stream: {failure}") from failure
    return _exactly(data, length, is_whole=decoder.eof and not more)


def _expand(packed: bytearray, length: int) -> bytes:
    import lzma

    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX)
        data = decoder.decompress(packed, length)
        more = b"" if decoder.eof else decoder.decompress(b"", 1)
    except (lzma.LZMAError, EOFError) as failure:
        raise CorruptImageError(f"expected an xz stream: {failure}") from failure
    return _exactly(data, length, is_whole=decoder.eof and not more)


def _as_it_is(packed: bytearray, length: int) -> bytes:
    return _exactly(bytes(packed), length, is_whole=len(packed) == length)


def _exactly(data: bytes, length: int, *, is_whole: bool) -> bytes:
    if len(data) != length or not is_whole:
        found = "more" if len(data) == length else f"{len(data)}"
        raise CorruptImageError(f"expected {length} bytes, found {found}")
    return data


_DECODERS: Final = {CODEC_ZLIB: _inflate, CODEC_NONE: _as_it_is, CODEC_XZ: _expand}


class CloopFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "cloop"
    title = "compressed loop image"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The script's first two lines, at the start or in front of the end."""
        start = _header_offset(storage)
        is_there = _starts_with(storage, start, (PREAMBLE, PREAMBLE_4))
        return Match.STRONG if is_there else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading."""
        del opener
        return Image(_layer(storage), name=storage.name)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the offsets with each other and the file; nothing is repaired."""
        del opener, repair
        layer = _layer(storage)
        return findings(_problems(layer, storage.size))


def _layer(storage: Storage) -> CloopLayer:
    header, place = read_header(storage)
    offsets = read_table(storage, place, header.block_count + 1, "Q", "big")
    return CloopLayer(storage, header, offsets)


def _problems(layer: CloopLayer, file_size: int) -> Iterator[tuple[str, str]]:
    size = layer.traits.grain
    for index in range(layer.size // size):
        what = layer.misplaced(index)
        if what is None and (end := layer.end(index)) > file_size:
            what = f"expected an end inside the file, found 0x{end:x}"
        if what is not None:
            yield f"block {index}", what


FORMAT: Final = CloopFormat()
