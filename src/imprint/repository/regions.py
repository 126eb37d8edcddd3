"""A disk in regions: what one worker of a capture reads at a time, and what one leaf is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.units import MIB
from imprint.repository.pack import CHUNK_MAX
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent
    from imprint.core.runs import Runs
    from imprint.repository.nodes import Tree

REGION_BYTES: Final = 4 * MIB
"""To be read of a region: enough that names of leaves are few, little enough that one change of the
disk spoils no large leaf. A region may have up to a chunk more, to end where a chunk does."""

_READ_MAX: Final = 2 * REGION_BYTES
"""In a region of an older snapshot, of which now more is used; if it is more than this, it is cut
anew."""

_EXTENTS_MAX: Final = 2048
"""In a region: a disk may be in crumbs."""


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
        extents: what the source says of it: contiguous, all of it.
        leaf: name of the leaf that an older snapshot has of exactly this stretch.
        is_known: what is used of it is known to hold still what the leaf says.
    """

    start: int
    end: int
    extents: list[Extent]
    leaf: bytes | None = None
    is_known: bool = False


def fresh_regions(extents: Iterable[Extent], cutting: Cutting) -> Iterator[Region]:
    """Regions of what nothing is known of."""
    group: list[Extent] = []
    wanted = 0
    for extent in extents:
        rest: Extent | None = extent
        while rest is not None:
            piece, rest = _split(rest, REGION_BYTES - wanted, cutting)
            group.append(piece)
            wanted += piece.length if piece.kind in HAS_BYTES else 0
            if wanted >= REGION_BYTES or len(group) >= _EXTENTS_MAX:
                yield Region(group[0].offset, group[-1].end, group)
                group, wanted = [], 0
    if group:
        yield Region(group[0].offset, group[-1].end, group)


def _split(extent: Extent, room: int, cutting: Cutting) -> tuple[Extent, Extent | None]:
    """What of an extent goes into a region that has ``room``, and the rest of it."""
    if extent.kind not in HAS_BYTES or extent.length <= room:
        return extent, None
    border = cutting.border_after(extent.offset + room)
    if border >= extent.end or border > extent.offset + room + CHUNK_MAX:
        border = min(extent.end, extent.offset + room + CHUNK_MAX)
    if border == extent.end:
        return extent, None
    return extent.clip(extent.offset, border), extent.clip(border, extent.end)


def known_regions(
    source: Source, older: Tree, older_size: int, cutting: Cutting, changed: Runs | None
) -> Iterator[Region]:
    """Regions of a disk of which there is an older snapshot: the leaves of that.

    Args:
        source: the disk.
        older: the snapshot's tree.
        older_size: of the disk then.
        cutting: for what has to be cut anew.
        changed: what may differ from the snapshot; ``None``: anything.
    """
    position = 0
    for start, end, name in older.leaves(0, min(older_size, source.size)):
        if end > source.size:
            break
        position = end
        is_known = changed is not None and not changed.clip(start, end)
        extents = list(source.extents(start, end - start))
        wanted = sum(extent.length for extent in extents if extent.kind in HAS_BYTES)
        if wanted > _READ_MAX or len(extents) > 2 * _EXTENTS_MAX:
            yield from fresh_regions(extents, cutting)
        else:
            yield Region(start, end, extents, name, is_known)
    if position < source.size:
        yield from fresh_regions(source.extents(position, source.size - position), cutting)
