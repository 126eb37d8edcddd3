"""Contents of files of F2FS of which some clusters of blocks are compressed.

Source: Linux ``fs/f2fs/compress.c`` (``f2fs_decompress_cluster``), ``include/linux/f2fs_fs.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.codecs import blocks, lzo, zstd
from imprint.core.errors import CorruptImageError, FormatError, UnsupportedFeatureError
from imprint.filesystems.contents import PIECES_MAX, unpacked_on_demand
from imprint.filesystems.f2fs.layout import BLOCK
from imprint.filesystems.f2fs.nodes import Cluster
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imprint.core.contracts import Source
    from imprint.filesystems.contents import Run

_HEAD: Final = struct.Struct("<I20x")
"""Length of what is compressed; a checksum that is not looked at, and nothing."""

_UNPACKERS: Final[dict[int, Callable[[bytes, int], bytes]]] = {
    0: lzo.decompress,
    1: blocks.decompress_lz4_within,
    2: zstd.decompress_within,
}
_ALGORITHMS: Final = ("LZO", "LZ4", "Zstandard", "LZO-RLE")


def content(
    volume: Source, runs: Iterable[Run | Cluster], size: int, algorithm: int, name: str
) -> Source:
    """A file as a source: over the volume, but for what has to be unpacked. Thread-safe.

    Raises:
        CorruptImageError: if the runs cannot be followed.
        UnsupportedFeatureError: if they are too many, or compressed in a way that is not known.
    """
    pieces: list[Piece] = []
    packed: list[Cluster] = []
    position = 0
    for run in runs:
        if len(pieces) > PIECES_MAX:
            raise UnsupportedFeatureError(f"it lies in more than {PIECES_MAX} runs", name=name)
        if run.position > position:
            pieces.append(Piece(position, run.position - position, None))
        length = min(run.length, size - run.position)
        if isinstance(run, Cluster):
            packed.append(run)
            pieces.append(Piece(run.position, length, 1, run.position))
        else:
            pieces.append(Piece(run.position, length, 0, run.offset))
        position = run.position + length
    if position < size:
        pieces.append(Piece(position, size - position, None))
    if packed and algorithm not in _UNPACKERS:
        known = algorithm < len(_ALGORITHMS)
        what = _ALGORITHMS[algorithm] if known else f"algorithm {algorithm}"
        raise UnsupportedFeatureError(f"it is compressed by {what}", name=name)

    def unpack(index: int) -> bytes:
        return _unpack(volume, packed[index], algorithm, name)

    starts = [cluster.position for cluster in packed]
    return Pieces(name, [volume, unpacked_on_demand(name, size, starts, unpack)], pieces)


def _unpack(volume: Source, cluster: Cluster, algorithm: int, name: str) -> bytes:
    data = bytearray(len(cluster.places) * BLOCK)
    view = memoryview(data)
    for at, place in enumerate(cluster.places):
        volume.readinto(view[at * BLOCK : (at + 1) * BLOCK], place)
    (length,) = _HEAD.unpack_from(data)
    if length > len(data) - _HEAD.size:
        raise CorruptImageError(
            f"cluster at {cluster.position}: expected at most {len(data) - _HEAD.size} bytes, "
            f"found {length}",
            name=name,
        )
    try:
        found = _UNPACKERS[algorithm](bytes(view[_HEAD.size : _HEAD.size + length]), cluster.length)
    except FormatError as failure:
        raise type(failure)(
            f"cluster at {cluster.position}: {failure.args[0]}", name=name, advice=failure.advice
        ) from failure
    if len(found) != cluster.length:
        raise CorruptImageError(
            f"cluster at {cluster.position}: expected {cluster.length} bytes, found {len(found)}",
            name=name,
        )
    return found
