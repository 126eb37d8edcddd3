"""LZO1X, as Linux's file systems store it: without any header.

Source: Linux ``Documentation/staging/lzo.rst``.
"""

from __future__ import annotations

import re
from typing import Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB

_HARMLESS_BYTES: Final = 16 * MIB
"""What a stream may hold without being looked at first."""

_PER_ZERO, _PER_OTHER = 255, 18
"""What a byte of a stream may add to what it holds: zeros make lengths longer by 255."""

_ZEROS: Final = re.compile(rb"\0*")
_ERROR: Final = "expected an LZO stream"


def decompress(data: bytes, limit: int) -> bytes:
    """All that the LZO stream ``data`` holds, which may be no more than ``limit`` bytes.

    The library makes whatever a stream asks for, which is up to 255 times its size, so those
    that look as if they hold too much are measured first. Thread-safe.

    Raises:
        CorruptImageError: if the stream is damaged, does not end with ``data``, or holds more.
        UnsupportedFeatureError: if the library is missing.
    """
    try:
        import lzallright
    except ImportError:
        raise UnsupportedFeatureError(
            "is compressed by LZO: that needs the Python module lzallright",
            advice="pip install 'imprint[browse]' brings it",
        ) from None
    zeros = data.count(0)
    most = zeros * _PER_ZERO + (len(data) - zeros) * _PER_OTHER
    if most > max(limit, _HARMLESS_BYTES):
        _measure(data, limit)
    try:
        found = lzallright.LZOCompressor.decompress(data, limit)
    except lzallright.LZOError as failure:
        raise CorruptImageError(f"{_ERROR}: {failure.args[0]}") from failure
    if len(found) > limit:
        raise _too_long(limit)
    return found


def _too_long(limit: int) -> CorruptImageError:
    return CorruptImageError(f"{_ERROR} of at most {limit} bytes, found more")


def _measure(data: bytes, limit: int) -> None:
    """Follow the lengths of a stream, and refuse it if they come to more than the limit."""
    try:
        size = at = 0
        trailing = -1  # literals behind the last match; below 0: a run of literals was before
        if data[0] > 17:
            size = data[0] - 17
            at = 1 + size
            trailing = size if size < 4 else -1
        else:
            trailing = 0
        while size <= limit:
            token = data[at]
            at += 1
            if token < 16 and trailing == 0:  # a run of literals
                length, at = _length(data, at, token, 15)
                size += length + 3
                at += length + 3
                trailing = -1
                continue
            if token < 16:
                size += 2 if trailing > 0 else 3
                last, at = token, at + 1
            elif token >= 64:
                size += (token >> 5) + 1
                last, at = token, at + 1
            else:
                mask = 31 if token >= 32 else 7
                length, at = _length(data, at, token & mask, mask)
                last, at = data[at], at + 2
                if token < 32 and not token & 8 and not last >> 2 and not data[at - 1]:
                    return  # the end
                size += length + 2
            trailing = last & 3
            size += trailing
            at += trailing
    except IndexError:
        return  # the library says what is wrong
    raise _too_long(limit)


def _length(data: bytes, at: int, base: int, longest: int) -> tuple[int, int]:
    """A length that may go on in further bytes, and where those end."""
    if base:
        return base, at
    zeros = _ZEROS.match(data, at)
    assert zeros is not None
    end = zeros.end()
    return longest + (end - at) * _PER_ZERO + data[end], end + 1
