"""A disk in regions: what one worker of a capture reads at a time, and what one leaf is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.extent import Kind, coalesce
from imprint.core.units import MIB
from imprint.repository.pack import CHUNK_BYTES
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent
    from imprint.core.runs import Runs

REGION_BYTES: Final = 4 * MIB
"""To be read of a region: enough that names of leaves are few, little enough that one change of the
disk spoils no large leaf. A region may have up to a chunk more, to end where a chunk does."""

_READ_MAX: Final = 2 * REGION_BYTES
"""In a region of an older snapshot, of which now more is used; if it is more than this, it is cut
anew."""

_EXTENTS_MAX: Final = 2048
"""In a region: a disk may be in crumbs."""


COUNTS: Final = HAS_BYTES | {Kind.ZERO}
"""Kinds of extents of a region that are cut into chunks, as opposed to those that are skipped."""

_SKIPPED_MIN: Final = 4 * CHUNK_BYTES
"""A hole that is not longer than this is never skipped."""


class Cutting(Protocol):
    """Where a disk is cut into chunks."""

    def border_after(self, offset: int) -> int:
        """The first place at or behind ``offset`` where chunks end, whatever the disk holds."""

    def lengths(self, offset: int, data: memoryview) -> Sequence[int]:
        """The chunks that ``data``, which is at ``offset`` of the disk, is cut into."""


@dataclass(frozen=True)
class Region:
    """A stretch of the disk.

    Attributes:
        start: in bytes of the disk.
        end: the first byte behind it.
        extents: what it is made of: contiguous, all of it. What is ``ZERO`` counts as data,
            what is a ``HOLE`` is skipped.
        leaf: name of the leaf that an older snapshot has of exactly this stretch.
        changed: what of it may not be as the leaf says, in bytes of the disk; ``None``: anything.
    """

    start: int
    end: int
    extents: list[Extent]
    leaf: bytes | None = None
    changed: Runs | None = None


def with_edges(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Extents of a disk in which only the middle of long holes is one.

    An image may leave out zeros or not, and the disk's chunks have to be the same. A chunk that
    reaches into a hole ends within the first or last 256 KiB of it: that much counts as data.
    """
    for extent in coalesce(map(_as_hole, extents)):
        if extent.kind is not Kind.HOLE:
            yield extent
        elif extent.length <= _SKIPPED_MIN:
            yield extent._replace(kind=Kind.ZERO)
        else:
            first, last = extent.offset + CHUNK_BYTES, extent.end - CHUNK_BYTES
            yield extent.clip(extent.offset, first)._replace(kind=Kind.ZERO)
            yield extent.clip(first, last)
            yield extent.clip(last, extent.end)._replace(kind=Kind.ZERO)


def _as_hole(extent: Extent) -> Extent:
    """A hole for all that reads as zeros in the image: whether by a parent is not the disk's."""
    return extent._replace(kind=Kind.HOLE) if extent.kind is Kind.ZERO else extent


def fresh_regions(extents: Iterable[Extent], cutting: Cutting) -> Iterator[Region]:
    """Regions of what nothing is known of. They end where chunks do, wherever extents end."""
    group: list[Extent] = []
    wanted = 0
    stop: int | None = None
    for extent in extents:
        rest: Extent | None = extent
        while rest is not None:
            if rest.kind in COUNTS:
                if stop is None and wanted + rest.length >= REGION_BYTES:
                    full = rest.offset + REGION_BYTES - wanted
                    stop = min(cutting.border_after(full), full + CHUNK_BYTES)
                wanted += rest.length
            is_over = stop is not None and (rest.kind not in COUNTS or rest.end >= stop)
            if is_over and group and rest.kind not in COUNTS:
                yield _region(group)  # data ends here, and so does a chunk
                group, wanted, stop = [], 0, None
                continue
            piece, rest = _split(rest, stop)
            group.append(piece)
            if is_over or len(group) >= _EXTENTS_MAX:
                yield _region(group)
                group, wanted, stop = [], 0, None
    if group:
        yield _region(group)


def _region(extents: list[Extent]) -> Region:
    return Region(extents[0].offset, extents[-1].end, extents)


def _split(extent: Extent, border: int | None) -> tuple[Extent, Extent | None]:
    """What of an extent is before a border, and the rest of it."""
    if border is None or extent.end <= border:
        return extent, None
    return extent.clip(extent.offset, border), extent.clip(border, extent.end)


def known_regions(
    source: Source,
    leaves: Iterable[tuple[int, int, bytes]],
    cutting: Cutting,
    changed: Runs | None,
) -> Iterator[Region]:
    """Regions of a disk of which there is an older snapshot: the leaves of that.

    Args:
        source: the disk.
        leaves: ``(start, end, name)`` of the snapshot's, from the disk's beginning on; where they
            end, all is new.
        cutting: for what has to be cut anew.
        changed: what may differ from the snapshot; ``None``: anything.
    """
    cursor = _Cursor(with_edges(source.extents(0, source.size)))
    for start, end, name in leaves:
        if end > source.size:
            break
        extents = cursor.up_to(end)
        wanted = sum(extent.length for extent in extents if extent.kind in COUNTS)
        if wanted > _READ_MAX or len(extents) > 2 * _EXTENTS_MAX:
            yield from fresh_regions(extents, cutting)
        else:
            here = None if changed is None else changed.clip(start, end)
            yield Region(start, end, extents, name, here)
    yield from fresh_regions(cursor.rest(), cutting)


class _Cursor:
    """A place in a row of extents."""

    def __init__(self, extents: Iterator[Extent]) -> None:
        self._extents = extents
        self._next = next(extents, None)

    def up_to(self, end: int) -> list[Extent]:
        """All from here to a place of the disk, cut off there."""
        found: list[Extent] = []
        while self._next is not None and self._next.offset < end:
            extent = self._next
            if extent.end > end:
                self._next = extent.clip(end, extent.end)
                extent = extent.clip(extent.offset, end)
            else:
                self._next = next(self._extents, None)
            found.append(extent)
        return found

    def rest(self) -> Iterator[Extent]:
        """All from here."""
        if self._next is not None:
            yield self._next
            yield from self._extents
