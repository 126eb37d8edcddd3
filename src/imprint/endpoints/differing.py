"""Making an overlay independent of what its parent will be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.buffers import ZEROS, is_zero
from imprint.core.events import OnEvent, Progress, ignore
from imprint.core.extent import Extent, Kind
from imprint.core.limits import SPAN_BYTES
from imprint.core.units import align_down, align_up
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source
    from imprint.core.image import WritableImage


def own_what_differs(
    image: WritableImage,
    old: Source | None,
    new: Source | None,
    *,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> int:
    """Store in ``image`` what it reads from ``old`` where ``new`` has something else.

    ``None`` stands for a disk of zeros, which a parent also is behind its end. Whole units
    are stored. Not flushed. Returns the bytes stored, units made zero included.

    Raises:
        Cancelled: if ``cancel`` was set.
        ImagingError: whatever reading or writing raises.
    """
    written = 0
    for extent in image.own_extents(0, image.size):
        if extent.kind is not Kind.HOLE:
            continue
        for start, end in _units(_may_differ(old, new, extent), image, extent):
            if cancel is not None:
                cancel.check()
            if _own_unit(image, old, new, start, end):
                written += end - start
            on_event(Progress("rebase", end, image.size, written))
    on_event(Progress("rebase", image.size, image.size, written))
    return written


def _units(
    ranges: Iterator[tuple[int, int]], image: WritableImage, hole: Extent
) -> Iterator[tuple[int, int]]:
    """Each unit of ``image`` that the ranges touch inside ``hole``, once."""
    grain = image.traits.grain
    position = hole.offset
    for first, last in ranges:
        position = max(position, align_down(first, grain))
        stop = min(align_up(last, grain), hole.end)
        while position < stop:
            end = min(align_up(position + 1, grain), stop)
            yield position, end
            position = end


def _own_unit(
    image: WritableImage, old: Source | None, new: Source | None, start: int, end: int
) -> bool:
    """Store one unit if its parents differ there; whether they do."""
    differs, is_empty = False, True
    for at in range(start, end, SPAN_BYTES):  # a unit may be 256 MiB
        length = min(SPAN_BYTES, end - at)
        present = _bytes_at(old, at, length)
        differs = differs or present != _bytes_at(new, at, length)
        is_empty = is_empty and is_zero(memoryview(present))
    if not differs:
        return False
    if is_empty:
        image.zero(start, end - start)
        if next(image.own_extents(start, end - start)).kind is not Kind.HOLE:
            return True
        # Without a parent, a hole was zero enough for the format; under one it is not.
    length = min(SPAN_BYTES, end - start)
    data = memoryview(ZEROS)[:length] if is_empty else memoryview(_bytes_at(old, start, length))
    # What is not written of a unit is completed with what it reads as now, from ``old``.
    image.write(data, start)
    return True


def _may_differ(
    old: Source | None, new: Source | None, within: Extent
) -> Iterator[tuple[int, int]]:
    """Where at least one of the parents has bytes."""
    left, right = _padded(old, within), _padded(new, within)
    one, other = next(left, None), next(right, None)
    while one is not None and other is not None:
        end = min(one.end, other.end)
        start = max(one.offset, other.offset)
        if one.kind in HAS_BYTES or other.kind in HAS_BYTES:
            yield start, end
        if one.end == end:
            one = next(left, None)
        if other.end == end:
            other = next(right, None)


def _padded(source: Source | None, within: Extent) -> Iterator[Extent]:
    """What a parent is made of there; behind its end it is a hole."""
    inside = 0 if source is None else max(0, min(within.end, source.size) - within.offset)
    if source is not None and inside:
        yield from source.extents(within.offset, inside)
    if inside < within.length:
        yield Extent(within.offset + inside, within.length - inside, Kind.HOLE)


def _bytes_at(source: Source | None, offset: int, length: int) -> bytearray:
    buffer = bytearray(length)
    if source is not None and offset < source.size:
        source.readinto(memoryview(buffer)[: source.size - offset], offset)
    return buffer
