"""What SquashFS compresses its blocks with. Nothing is unpacked further than a block may be long.

Source: Linux ``fs/squashfs/{zlib,lzo,lz4,xz,zstd}_wrapper.c``; squashfs-tools
``lzma_xz_wrapper.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from imprint.codecs import blocks, lzo, zstd
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    Unpack = Callable[[bytes, int], bytes]

_LZMA_MEMORY_MAX: Final = 16 * MIB
"""Dictionaries are as large as blocks at the most: 1 MiB."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def unpacker(compressor: int, name: str) -> Unpack:
    """What unpacks a block: all of it, which is no longer than a limit. Thread-safe.

    It raises :class:`CorruptImageError` where a block is damaged or too long, and
    :class:`UnsupportedFeatureError` where a library is missing.

    Raises:
        UnsupportedFeatureError: if the compressor is not known.
    """
    found = _UNPACKERS.get(compressor)
    if found is None:
        raise UnsupportedFeatureError(
            f"expected compressor 1 to {max(_UNPACKERS)}, found {compressor}", name=name
        )

    def unpack(data: bytes, limit: int) -> bytes:
        try:
            return found(data, limit)
        except UnsupportedFeatureError as failure:
            raise UnsupportedFeatureError(
                str(failure.args[0]), name=name, advice=failure.advice
            ) from failure

    return unpack


def _gzip(data: bytes, limit: int) -> bytes:
    from isal import igzip_lib

    decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB, hist_bits=15)
    try:
        return _all_of(decoder, data, limit)
    # The stub declares the class as an instance of Exception.
    except igzip_lib.IsalError as failure:  # type: ignore[misc]
        raise CorruptImageError(f"expected a zlib stream: {failure}") from failure


def _xz(data: bytes, limit: int) -> bytes:
    import lzma

    return _lzma(data, limit, lzma.FORMAT_XZ)


def _lzma_alone(data: bytes, limit: int) -> bytes:
    import lzma

    return _lzma(data, limit, lzma.FORMAT_ALONE)


def _lzma(data: bytes, limit: int, form: int) -> bytes:
    import lzma

    try:
        decoder = lzma.LZMADecompressor(form, memlimit=_LZMA_MEMORY_MAX)
        return _all_of(decoder, data, limit)
    except (lzma.LZMAError, EOFError) as failure:
        raise CorruptImageError(f"expected an LZMA stream: {failure}") from failure


def _all_of(decoder: _Decoder, data: bytes, limit: int) -> bytes:
    found = decoder.decompress(data, limit)
    more = b"" if decoder.eof else decoder.decompress(b"", 1)
    if more or not decoder.eof:
        raise CorruptImageError(f"expected a stream of at most {limit} bytes that ends")
    return found


_UNPACKERS: Final[dict[int, Unpack]] = {
    1: _gzip,
    2: _lzma_alone,
    3: lzo.decompress,
    4: _xz,
    5: blocks.decompress_lz4_within,
    6: zstd.decompress_within,
}
