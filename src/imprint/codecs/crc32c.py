"""CRC-32C (Castagnoli), by the processor's own instruction where it has one."""

from __future__ import annotations


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """The checksum of ``data``; ``value`` is that of what comes before it.

    Source: RFC 3720, appendix B.4 (test vectors).
    """
    import google_crc32c

    return int(google_crc32c.extend(value, bytes(data)))
