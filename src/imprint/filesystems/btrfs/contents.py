"""Contents of files: where the runs of one lie, and unpacking those that are compressed.

Checksums of data are not compared. Source: btrfs documentation, "On-disk format", and Linux
``fs/btrfs/{zlib,lzo,zstd}.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.codecs import deflate, lzo, zstd
from imprint.core.errors import CorruptImageError, ImagingError, UnsupportedFeatureError
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.layout import FileExtent
from imprint.filesystems.contents import PIECES_MAX, unpacked_on_demand
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.btrfs.chunks import ChunkMap
    from imprint.filesystems.btrfs.trees import Item

_INLINE_AT: Final = 21
_ZLIB_HEAD: Final = 2
_LZO_LENGTH: Final = struct.Struct("<I")


class Run(NamedTuple):
    """A run of a file. All in bytes.

    Attributes:
        position: in the file.
        length: of the run; never 0.
        offset: in the volume, of what is stored of it; ``None``: nothing is, or it is ``inline``.
        stored: of what is stored there.
        begin: of the run, in what that unpacks to.
        unpacked: of all that.
        compression: as the extent has it; 0: none.
        inline: what stands in the tree itself.
    """

    position: int
    length: int
    offset: int | None
    stored: int = 0
    begin: int = 0
    unpacked: int = 0
    compression: int = 0
    inline: bytes = b""

    @property
    def is_plain(self) -> bool:
        """Whether its bytes lie in the volume as they are."""
        return self.offset is not None and not self.compression


def runs_of(items: Iterable[Item], chunks: ChunkMap, sector: int, name: str) -> Iterator[Run]:
    """The runs that a file's extent items speak of, but for holes.

    Raises:
        CorruptImageError: if one makes no sense.
        UnsupportedFeatureError: if one is stored in a way that is not known.
    """
    for item in items:
        head = bytes(item.data[:_INLINE_AT])
        is_inline = len(head) == _INLINE_AT and head[-1] == layout.FILE_EXTENT_INLINE
        extent = FileExtent.unpack(head.ljust(FileExtent.SIZE, b"\0") if is_inline else item.data)
        if extent.encryption or extent.other or extent.compression > layout.ZSTD:
            raise UnsupportedFeatureError("is stored in a way that is not known", name=name)
        if extent.compression and extent.unpacked > layout.COMPRESSED_MAX:
            raise CorruptImageError(
                f"expected a compressed extent of 128 KiB or less, found {extent.unpacked}",
                name=name,
            )
        if is_inline:
            data = bytes(item.data[_INLINE_AT:])
            length = extent.unpacked if extent.compression else len(data)
            if length:
                yield Run(
                    item.offset,
                    length,
                    None,
                    unpacked=extent.unpacked,
                    compression=extent.compression,
                    inline=data,
                )
            continue
        if extent.kind != layout.FILE_EXTENT_WRITTEN or not extent.address or not extent.count:
            continue
        # What is packed ends within a sector; a run of what is not lies in its extent.
        size = extent.unpacked if extent.compression else extent.length
        if extent.begin + extent.count > size + sector - 1:
            raise CorruptImageError("expected a run inside of its extent", name=name)
        place = chunks.places(extent.address, extent.length)[0]
        if extent.compression:
            yield Run(
                item.offset,
                extent.count,
                place,
                extent.length,
                extent.begin,
                extent.unpacked,
                extent.compression,
            )
        else:
            yield Run(item.offset, extent.count, place + extent.begin, extent.count)


def content(volume: Source, runs: Iterable[Run], size: int, sector: int, name: str) -> Source:
    """A file as a source: over the volume, but for what has to be unpacked.

    Raises:
        CorruptImageError: if the runs overlap.
        UnsupportedFeatureError: if they are too many.
    """
    pieces: list[Piece] = []
    packed: list[Run] = []
    position = 0
    for run in runs:
        length = min(run.length, size - run.position)
        if length <= 0:
            continue
        if run.position < position:
            raise CorruptImageError("expected runs one behind the other", name=name)
        if len(pieces) > PIECES_MAX:
            raise UnsupportedFeatureError(f"lies in more than {PIECES_MAX} runs", name=name)
        if run.position > position:
            pieces.append(Piece(position, run.position - position, None))
        position = run.position + length
        if run.is_plain:
            assert run.offset is not None
            pieces.append(Piece(run.position, length, 0, run.offset))
        else:
            pieces.append(Piece(run.position, length, 1, run.position))
            packed.append(run._replace(length=length))
    if position < size:
        pieces.append(Piece(position, size - position, None))

    def unpacked(index: int) -> bytes:
        return _unpacked(volume, packed[index], sector, name)

    starts = [run.position for run in packed]
    made = unpacked_on_demand(name, size, starts, unpacked)
    return Pieces(name, [volume, made], pieces)


def _unpacked(volume: Source, run: Run, sector: int, name: str) -> bytes:
    data = run.inline
    if run.offset is not None:
        buffer = bytearray(run.stored)
        volume.readinto(memoryview(buffer), run.offset)
        data = bytes(buffer)
    found = unpack(data, run.compression, run.unpacked, sector, name)
    # The rest of what was the last sector of a file was not packed: it is zeros.
    return found.ljust(run.begin + run.length, b"\0")[run.begin :]


def unpack(data: bytes, compression: int, size: int, sector: int, name: str) -> bytes:
    """All that a compressed extent holds, which is ``size`` bytes or less.

    Raises:
        CorruptImageError: if it cannot be unpacked.
        UnsupportedFeatureError: if the module that can is missing.
    """
    try:
        if compression == layout.ZLIB:
            return deflate.decompress_within(data[_ZLIB_HEAD:], size)
        if compression == layout.ZSTD:
            return zstd.decompress_within(data, size)
        if compression == layout.LZO:
            return _lzo(data, size, sector)
    except UnsupportedFeatureError as failure:
        raise UnsupportedFeatureError(
            str(failure.args[0]), name=name, advice=failure.advice
        ) from None
    except (ImagingError, ValueError) as failure:
        raise CorruptImageError(f"a compressed extent is damaged: {failure}", name=name) from None
    return data


def _lzo(data: bytes, size: int, sector: int) -> bytes:
    """Segments of at most a sector each; no length of a segment lies across two sectors."""
    if len(data) < _LZO_LENGTH.size:
        raise ValueError("it is too short")
    (total,) = _LZO_LENGTH.unpack_from(data)
    if total > len(data):
        raise ValueError(f"expected {total} bytes, found {len(data)}")
    end, at = total, _LZO_LENGTH.size
    found = bytearray()
    while at < end and len(found) < size:
        if sector - at % sector < _LZO_LENGTH.size:
            at += sector - at % sector
        if at + _LZO_LENGTH.size > end:
            break
        (length,) = _LZO_LENGTH.unpack_from(data, at)
        at += _LZO_LENGTH.size
        if not 0 < length <= end - at:
            raise ValueError("a segment is outside of it")
        found += lzo.decompress(data[at : at + length], sector)
        at += length
    return bytes(found[:size])
