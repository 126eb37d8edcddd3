"""Zstandard (RFC 8878), one frame per unit.

Measured on one core with program code in units of 64 KiB: level 1 450 MB/s at 0.46 of the
size, level 3 310 MB/s at 0.44, level 9 67 MB/s at 0.41, level 19 6 MB/s at 0.38; decoding
takes 50 µs. The GIL is released.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

LEVEL_DEFAULT: Final = 3
"""Zstandard's own default."""

LEVEL_MAX: Final = 19
"""Above are the "ultra" levels, whose windows units of a few MiB cannot use."""

_WINDOW_BITS_MAX: Final = 24
"""16 MiB: a frame may ask the decoder for memory; no unit of an image is larger than that."""


_LARGE_BYTES: Final = 256 << 10
"""From here on Zstandard's parameters are those of inputs without limit."""

_LARGE_UNITS: Final[dict[int, dict[int, int]]] = {
    LEVEL_DEFAULT: {
        zstd.CompressionParameter.compression_level: LEVEL_DEFAULT,
        zstd.CompressionParameter.chain_log: 17,
        zstd.CompressionParameter.hash_log: 18,
    }
}
"""Tables of twice the size find more in units of 1 MiB: 0.3 % less, for 6 % more time. With those
of level 4, twice as large again, it is 0.4 % for 11 %."""


def compress(data: bytes | memoryview, *, level: int = LEVEL_DEFAULT) -> bytes:
    """One frame that holds ``data``; thread-safe.

    Args:
        data: what to compress.
        level: 1 (fastest) to ``LEVEL_MAX`` (smallest).
    """
    assert 1 <= level <= LEVEL_MAX
    return zstd.compress(data, level)


def compress_large(data: bytes | memoryview, *, level: int = LEVEL_DEFAULT) -> bytes:
    """As :func:`compress`; somewhat slower and smaller at the default level.

    For what is kept for long, in units of about 1 MiB.
    """
    options = _LARGE_UNITS.get(level) if len(data) > _LARGE_BYTES else None
    return compress(data, level=level) if options is None else zstd.compress(data, options=options)


def decompress(data: bytes | bytearray | memoryview, size: int) -> bytes:
    """The first ``size`` bytes of the frame at the start of ``data``.

    The frame need not say its size. Never makes more than ``size`` bytes; what lies behind
    the end of the frame is ignored. Thread-safe.

    Raises:
        CorruptImageError: if the frame is damaged or gives fewer bytes.
    """
    return Decoder(data).read(size)


def decompress_within(data: bytes | bytearray | memoryview, limit: int) -> bytes:
    """All that the frame ``data`` holds, which may be no more than ``limit`` bytes. Thread-safe.

    Raises:
        CorruptImageError: if the frame is damaged, does not end, or holds more.
    """
    decoder = _decoder()
    try:
        found = decoder.decompress(data, limit)
        more = b"" if decoder.eof else decoder.decompress(b"", 1)
    except zstd.ZstdError as failure:
        raise CorruptImageError(f"expected a Zstandard frame: {failure}") from failure
    if more or not decoder.eof:
        raise CorruptImageError(f"expected a Zstandard frame of at most {limit} bytes that ends")
    return found


def _decoder() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _WINDOW_BITS_MAX}
    )


class Decoder:
    """A frame that is decoded piece by piece, no further than is asked for. Not thread-safe.

    Args:
        data: begins with the frame; what lies behind the frame's end is ignored.
        more: gives what follows on ``data``; called at most once, if that is not enough.
    """

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        more: Callable[[], bytes | memoryview] | None = None,
    ) -> None:
        self._decoder = _decoder()
        self._data = data
        self._more = more
        self._size = 0

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            CorruptImageError: if the frame is damaged or gives fewer bytes.
        """
        data, self._data = self._data, b""  # the decoder keeps what it has not used
        found = self._decode(data, size)
        if len(found) < size and self._more is not None:
            more, self._more = self._more, None
            found += self._decode(more(), size - len(found))
        self._size += len(found)
        if len(found) != size:
            expected = self._size - len(found) + size
            raise CorruptImageError(
                f"expected a Zstandard frame of {expected} bytes, found {self._size}"
            )
        return found

    def _decode(self, data: bytes | bytearray | memoryview, size: int) -> bytes:
        """At most ``size`` bytes, fewer if there is not enough of the frame."""
        try:
            return b"" if self._decoder.eof else self._decoder.decompress(data, size)
        except zstd.ZstdError as failure:
            raise CorruptImageError(f"expected a Zstandard frame: {failure}") from failure
