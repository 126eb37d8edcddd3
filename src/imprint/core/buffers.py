"""Buffers of bytes: zeros found and made, and bytes moved by hand."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from imprint.core.limits import SPAN_BYTES

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage

ZEROS: Final = bytes(SPAN_BYTES)


def is_zero(view: memoryview) -> bool:
    """Whether all bytes are zero. ``startswith`` is memcmp; comparing views goes byte by byte."""
    length = len(view)
    if length <= SPAN_BYTES:
        return ZEROS.startswith(view)
    return all(
        ZEROS.startswith(view[start : start + SPAN_BYTES]) for start in range(0, length, SPAN_BYTES)
    )


def fill_zero(view: memoryview) -> None:
    """Set all bytes to zero."""
    for start in range(0, len(view), SPAN_BYTES):
        piece = view[start : start + SPAN_BYTES]
        piece[:] = ZEROS[: len(piece)]


def copy_by_hand(
    source: Source, source_offset: int, target: Storage, offset: int, length: int
) -> None:
    """Copy bytes from one storage to another through memory that direct I/O can use."""
    if length == 0:
        return
    buffer = memoryview(mmap.mmap(-1, min(length, SPAN_BYTES)))
    for start in range(0, length, SPAN_BYTES):
        piece = buffer[: length - start]
        source.readinto(piece, source_offset + start)
        target.write(piece, offset + start)
