"""Snappy and LZ4, each as blocks without a frame, as evidence containers store them.

Nobody believes a block's own word for its size: bytes go into a buffer that is given.
"""

from __future__ import annotations

from imprint.core.errors import CorruptImageError


def compress_snappy(data: bytes | memoryview) -> bytes:
    """One Snappy block of ``data``; thread-safe. Source: Snappy *format_description*."""
    from cramjam import snappy  # only for images that use it

    return bytes(snappy.compress_raw(data))


def decompress_snappy(data: bytes | bytearray | memoryview, buffer: memoryview) -> int:
    """Put what one Snappy block holds into ``buffer``; how many bytes it was. Thread-safe.

    Raises:
        CorruptImageError: if it is damaged, or holds more than the buffer.
    """
    import cramjam  # only for images that use it

    try:
        return cramjam.snappy.decompress_raw_into(data, buffer)
    except (cramjam.DecompressionError, ValueError) as failure:
        raise CorruptImageError(f"expected a Snappy block: {failure}") from failure


def compress_lz4(data: bytes | memoryview) -> bytes:
    """One LZ4 block of ``data``, without its size; thread-safe. Source: *LZ4 Block Format*."""
    from cramjam import lz4  # only for images that use it

    return bytes(lz4.compress_block(data, store_size=False))


def decompress_lz4(data: bytes | bytearray | memoryview, buffer: memoryview) -> int:
    """Put what one LZ4 block holds into ``buffer``; how many bytes it was. Thread-safe.

    Raises:
        CorruptImageError: if it is damaged, or holds more than the buffer.
    """
    import cramjam  # only for images that use it

    try:
        return cramjam.lz4.decompress_block_into(data, buffer, output_len=len(buffer))
    except (cramjam.DecompressionError, ValueError) as failure:
        raise CorruptImageError(f"expected an LZ4 block: {failure}") from failure


def decompress_lz4_within(data: bytes, limit: int) -> bytes:
    """All that one LZ4 block holds, which may be no more than ``limit`` bytes. Thread-safe.

    Raises:
        CorruptImageError: if it is damaged, or holds more.
    """
    buffer = bytearray(limit)
    length = decompress_lz4(data, memoryview(buffer))
    return bytes(memoryview(buffer)[:length])
