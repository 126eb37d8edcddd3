"""Spans: *what* moves. Cutting a disk's map into batches, and data into zero and non-zero runs."""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING, NamedTuple

from imprint.core.buffers import is_zero
from imprint.core.extent import Extent, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HAS_BYTES = frozenset({Kind.DATA, Kind.ENCODED})
"""Kinds that have to be read; the others read as zeros."""


class Span(NamedTuple):
    """A run of the disk on its way.

    Attributes:
        offset: of the disk.
        length: in bytes.
        data: its bytes; ``None``: all zeros.
    """

    offset: int
    length: int
    data: memoryview | None


def batches(extents: Iterable[Extent], window: int) -> Iterator[list[Extent]]:
    """Group extents into the windows of ``window`` bytes that the disk is cut into.

    A batch is all of one window, in order. Where windows hold no bytes at all, one extent
    stands for as many of them as there are: a hole of 64 TiB is one batch.
    """
    group: list[Extent] = []
    for extent in extents:
        start = extent.offset
        while start < extent.end:
            if extent.kind not in HAS_BYTES and start % window == 0 and extent.end - start > window:
                stop = extent.end - extent.end % window
                yield [extent.clip(start, stop)]
                start = stop
                continue
            border = start - start % window + window
            group.append(extent.clip(start, min(border, extent.end)))
            start = group[-1].end
            if start == border:
                yield group
                group = []
    if group:
        yield group


def split_zeros(data: memoryview, offset: int, grain: int) -> Iterator[Span]:
    """Cut data at multiples of ``grain`` of the disk into runs that are zero and that are not."""
    end = offset + len(data)
    starts = [offset, *range(offset - offset % grain + grain, end, grain)]
    heads = _heads(data, offset, grain)
    if 0 not in heads:
        yield Span(offset, len(data), data)
        return
    starts.append(end)
    done, index = offset, _next_zero(heads, 0)
    while index < len(heads):
        first = index
        while index < len(heads) and heads[index] == 0:
            if not is_zero(data[starts[index] - offset : starts[index + 1] - offset]):
                break
            index += 1
        if index > first:
            start, stop = starts[first], starts[index]
            if start > done:
                yield Span(done, start - done, data[done - offset : start - offset])
            yield Span(start, stop - start, None)
            done = stop
        index = _next_zero(heads, max(index, first + 1))
    if done < end:
        yield Span(done, end - done, data[done - offset :])


def _next_zero(heads: list[int], index: int) -> int:
    """The next block that may be zero; the number of blocks if there is none."""
    try:
        return heads.index(0, index)
    except ValueError:
        return len(heads)


def _heads(data: memoryview, offset: int, grain: int) -> list[int]:
    """The first 8 bytes of each block of ``grain``, as numbers: not zero, not a zero block.

    One call for all of them, since a test for each block of 4 KiB would cost a sixth of the
    time that copying takes. Where the blocks do not line up, all have to be tested.
    """
    if offset % grain or len(data) % grain or grain % 8:
        first = offset - offset % grain
        return [0] * (-(-(offset + len(data) - first) // grain))
    return data.cast("Q")[:: grain // 8].tolist()


class BufferPool:
    """Buffers of one size that are used again.

    They are anonymous maps: aligned to pages, as direct I/O wants them, and not zeroed and
    faulted in anew for every span, which would cost as much as reading it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[memoryview] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """A buffer of the pool's size; its content is undefined."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return memoryview(mmap.mmap(-1, self._size))

    def give_back(self, buffer: memoryview) -> None:
        """Let somebody else have it."""
        with self._lock:
            self._free.append(buffer)
