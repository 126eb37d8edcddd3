"""Are two disks the same? Holes are skipped by their maps; bytes are compared by memcmp."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint.core.buffers import fill_zero
from imprint.core.events import OnEvent, ignore
from imprint.core.extent import Extent, Kind
from imprint.core.limits import SPAN_BYTES
from imprint.transfer.pace import Pace
from imprint.transfer.span import HAS_BYTES, batches
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source


@dataclass(frozen=True)
class Comparison:
    """The answer.

    Attributes:
        first_difference: the offset of the first byte that is not the same, or ``None``.
        sizes: of both disks. Where they differ, the longer one has to be zero behind the
            end of the shorter one for the contents to be equal.
    """

    first_difference: int | None
    sizes: tuple[int, int]

    @property
    def equal(self) -> bool:
        """Whether the contents are the same."""
        return self.first_difference is None


def compare(
    a: Source,
    b: Source,
    *,
    workers: int = 2,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> Comparison:
    """Compare two disks up to the first byte that differs.

    Raises:
        Cancelled: if ``cancel`` was set.
        ImagingError: whatever reading raises.
    """
    total = max(a.size, b.size)
    moved = 0

    # Used again: new memory costs as much as comparing it.
    buffers = threading.local()

    def differs(batch: list[Extent]) -> tuple[int, int, int | None]:
        offset, end = batch[0].offset, batch[-1].end
        if not any(extent.kind in HAS_BYTES for extent in batch):
            return end, 0, None
        if not hasattr(buffers, "pair"):
            buffers.pair = bytearray(SPAN_BYTES), bytearray(SPAN_BYTES)
        left, right = buffers.pair
        _read(a, left, offset, end)
        _read(b, right, offset, end)
        length = end - offset
        # ``startswith`` is memcmp without a copy; comparing views goes byte by byte.
        if left.startswith(memoryview(right)[:length]):
            return end, length, None
        return end, length, offset + _first_difference(left[:length], right[:length])

    pace = Pace(total, "compare", on_event)
    with closing(
        windowed(
            differs, batches(_to_compare(a, b), SPAN_BYTES), workers=workers, window=2 * workers
        )
    ) as results:
        for end, length, first in results:
            if cancel is not None:
                cancel.check()
            moved += length
            pace.tell(end, moved)
            if first is not None:
                return Comparison(first, (a.size, b.size))
    pace.tell(total, moved, force=True)
    return Comparison(None, (a.size, b.size))


def _to_compare(a: Source, b: Source) -> Iterator[Extent]:
    """The whole range of both disks: ``DATA`` where bytes have to be compared, else ``HOLE``."""
    total = max(a.size, b.size)
    left, right = _padded(a, total), _padded(b, total)
    one, other = next(left, None), next(right, None)
    position = 0
    while one is not None and other is not None:
        end = min(one.end, other.end)
        both_zero = one.kind not in HAS_BYTES and other.kind not in HAS_BYTES
        same_place = one.kind is Kind.DATA and one.clip(position, end) == other.clip(position, end)
        kind = Kind.HOLE if both_zero or same_place else Kind.DATA
        yield Extent(position, end - position, kind)
        position = end
        if one.end == end:
            one = next(left, None)
        if other.end == end:
            other = next(right, None)


def _padded(source: Source, total: int) -> Iterator[Extent]:
    yield from source.extents(0, source.size)
    if source.size < total:
        yield Extent(source.size, total - source.size, Kind.HOLE)


def _read(source: Source, buffer: bytearray, offset: int, end: int) -> None:
    """Fill the start of ``buffer`` with the range, with zeros behind the disk's end."""
    view = memoryview(buffer)[: end - offset]
    inside = max(0, min(end, source.size) - offset)
    if inside:
        source.readinto(view[:inside], offset)
    fill_zero(view[inside:])


def _first_difference(left: bytearray, right: bytearray) -> int:
    """Index of the first differing byte of two that differ, by halving: each step is a memcmp."""
    start, end = 0, len(left)
    while end - start > 1:
        middle = (start + end) // 2
        if left[start:middle] == right[start:middle]:
            start = middle
        else:
            end = middle
    return start
