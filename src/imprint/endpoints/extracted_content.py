"""The content of a file of an image, written into a file: holes stay holes, bad areas are told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.errors import FormatError, ReadError
from imprint.core.extent import Kind
from imprint.core.limits import SPAN_BYTES

if TYPE_CHECKING:
    from imprint.core.contracts import Source

_SMALLEST: Final = 4096
"""What is tried on its own where a larger part cannot be read."""

_EMPTY: Final = frozenset({Kind.HOLE, Kind.ZERO, Kind.UNUSED})


class Watcher(Protocol):
    """Is told of every part, and may stop it all."""

    def __call__(self, count: int) -> None:
        """``count`` bytes are done, holes included.

        Raises:
            Cancelled: if it shall end.
        """


def store(source: Source, descriptor: int, watch: Watcher) -> list[tuple[int, int]]:
    """Write all of a source into an empty file.

    Args:
        source: the content.
        descriptor: of the file.
        watch: told of every part.

    Returns:
        What could not be read, ``(offset, length)`` in bytes of the file: holes are there.

    Raises:
        OSError: if it cannot be written.
    """
    os.ftruncate(descriptor, source.size)
    buffer = memoryview(bytearray(min(SPAN_BYTES, max(source.size, 1))))
    bad: list[tuple[int, int]] = []
    position = 0
    try:
        for extent in source.extents(0, source.size):
            if extent.kind in _EMPTY:
                watch(extent.length)
            elif extent.kind is Kind.BAD:
                _lost(bad, extent.offset, extent.length)
                watch(extent.length)
            else:
                for start in range(extent.offset, extent.end, SPAN_BYTES):
                    part = buffer[: min(SPAN_BYTES, extent.end - start)]
                    _move(source, start, part, descriptor, bad)
                    watch(len(part))
            position = extent.end
    except (FormatError, ReadError):  # what it is made of cannot be told from here on
        _lost(bad, position, source.size - position)
    return bad


def _move(
    source: Source, offset: int, buffer: memoryview, descriptor: int, bad: list[tuple[int, int]]
) -> None:
    """A part; where it cannot be read, what of it can."""
    waiting = [(offset, len(buffer))]
    while waiting:
        start, length = waiting.pop()
        part = buffer[:length]
        try:
            source.readinto(part, start)
        except (FormatError, ReadError):
            if length <= _SMALLEST:
                _lost(bad, start, length)
                continue
            half = -(-length // 2 // _SMALLEST) * _SMALLEST
            waiting += [(start + half, length - half), (start, half)]
            continue
        written = 0
        while written < length:
            written += os.pwrite(descriptor, part[written:], start + written)


def lacking(source: Source) -> list[tuple[int, int]]:
    """What of a source cannot be read, ``(offset, length)``, as far as it says so itself."""
    bad: list[tuple[int, int]] = []
    position = 0
    try:
        for extent in source.extents(0, source.size):
            if extent.kind is Kind.BAD:
                _lost(bad, extent.offset, extent.length)
            position = extent.end
    except (FormatError, ReadError):
        _lost(bad, position, source.size - position)
    return bad


def same(source: Source, descriptor: int) -> bool:
    """Whether a file holds just the bytes of a source.

    Raises:
        OSError: if it cannot be read.
    """
    if os.fstat(descriptor).st_size != source.size:
        return False
    buffer = memoryview(bytearray(min(SPAN_BYTES, max(source.size, 1))))
    for start in range(0, source.size, SPAN_BYTES):
        part = buffer[: min(SPAN_BYTES, source.size - start)]
        try:
            source.readinto(part, start)
        except (FormatError, ReadError):
            return False
        if os.pread(descriptor, len(part), start) != part:
            return False
    return True


def _lost(bad: list[tuple[int, int]], offset: int, length: int) -> None:
    if bad and sum(bad[-1]) == offset:
        bad[-1] = (bad[-1][0], bad[-1][1] + length)
    elif length:
        bad.append((offset, length))
