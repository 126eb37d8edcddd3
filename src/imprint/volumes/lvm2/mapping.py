"""Where the bytes of logical volumes are.

Source: lvmraid(7), lvmthin(7); LVM2 ``lib/format_text/import_vsn1.c`` and the ``import`` functions
of the segment types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.volumes.lvm2 import raid, thin
from imprint.volumes.lvm2.group import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imprint.core.contracts import Source
    from imprint.volumes.lvm2.group import Group, Logical, Segment
    from imprint.volumes.parts import Builder, Part

DEPTH_MAX: Final = 6
"""Volumes in volumes: a mirror being moved is three."""

_WITHOUT_AREAS: Final = frozenset(
    (
        *("snapshot", "thin-pool", "thin", "cache", "cache-pool", "writecache"),
        *("vdo", "vdo-pool", "error", "zero"),
    )
)
"""Kinds that are on no physical volume, but for the logical ones that they refer to."""


class Mapper:
    """Finds the bytes of a group's volumes in the members that are at hand."""

    def __init__(
        self, group: Group, members: Sequence[Source], at_hand: Mapping[str, int], builder: Builder
    ) -> None:
        """``at_hand`` is the number of the member by the group's name for it."""
        self._group = group
        self._members = members
        self._at_hand = at_hand
        self._builder = builder

    def part(self, volume: Logical, depth: int = 0) -> Part:
        """All of a volume.

        Raises:
            UnsupportedFeatureError: if it is of a kind that cannot be read.
            TruncatedImageError: if a part of it is not at hand.
            CorruptImageError: if it contradicts itself.
            ReadError: if the state of a mirror cannot be read.
        """
        self._builder.count(1)
        if depth == DEPTH_MAX:
            raise CorruptImageError(f"expected at most {DEPTH_MAX} volumes in each other")
        if volume.is_moving:
            raise UnsupportedFeatureError("is being moved to another physical volume")
        if not volume.segments:
            raise CorruptImageError("has no segments")
        parts = [self._segment(segment, depth) for segment in volume.segments]
        return self._builder.joined(parts)

    def free(self) -> dict[str, Runs]:
        """For each physical volume, in bytes of it, the extents that no segment is on.

        None at all if there is a kind of segment of which it is not known where it is.
        """
        used: dict[str, list[tuple[int, int]]] = {key: [] for key in self._group.physical}
        for volume in self._group.logical.values():
            for segment in volume.segments:
                areas, per_area = _areas(segment)
                named = {name for name in segment.names() if name in used}
                if named - {name for name, _ in areas} or not (areas or _is_known(segment)):
                    return {}
                for name, extent in areas:
                    if name in used:
                        used[name].append((extent, per_area))
        size = self._group.extent_bytes
        return {
            key: Runs.of(used[key]).complement(item.count).scaled(size).shifted(item.start)
            for key, item in self._group.physical.items()
        }

    def _segment(self, segment: Segment, depth: int) -> Part:
        if segment.kind in ("striped", "linear"):
            return self._striped(segment, depth)
        if segment.kind == "mirror":
            return self._mirror(segment, depth)
        if segment.kind == "raid1":
            return self._raid1(segment, depth)
        if segment.kind == "thin":
            return self._thin(segment, depth)
        raise UnsupportedFeatureError(f"{segment.kind} volumes cannot be read")

    def _striped(self, segment: Segment, depth: int) -> Part:
        areas, per_area = _areas(segment)
        if not areas or per_area * len(areas) != segment.count:
            raise CorruptImageError("expected stripes that fill the segment, found others")
        parts = [self._area(name, extent, per_area, depth) for name, extent in areas]
        if len(parts) == 1:
            return parts[0]
        sectors = segment.section.get("stripe_size")
        chunk = sectors * SECTOR_BYTES if isinstance(sectors, int) else 0
        if chunk <= 0 or per_area * self._group.extent_bytes % chunk:
            raise CorruptImageError(f"expected a stripe size, found {sectors!r:.40}")
        return self._builder.striped(parts, chunk)

    def _mirror(self, segment: Segment, depth: int) -> Part:
        """Others are made equal to the first leg; which of them are, only the log knows."""
        areas, per_area = _areas(segment)
        if not areas:
            raise CorruptImageError("expected the legs of a mirror, found none")
        name, extent = areas[0]
        part = self._area(name, extent, per_area, depth)
        return self._builder.whole(part)

    def _raid1(self, segment: Segment, depth: int) -> Part:
        items = segment.section.get("raids", ())
        names = (
            [name for name in items if isinstance(name, str)] if isinstance(items, tuple) else []
        )
        if not names or len(names) % 2:
            raise CorruptImageError("expected a metadata volume beside each leg, found others")
        found = raid.legs([self._reader(name, depth) for name in names[::2]])
        parts = []
        for position in found.sound:
            name = names[2 * position + 1]
            try:
                parts.append(self._area(name, segment.start, segment.count, depth))
            except TruncatedImageError:
                continue  # another leg may be whole
        if not parts:
            raise UnsupportedFeatureError("no leg of the mirror is known to be in sync")
        part = self._builder.mirrored(parts[0], parts[1:])
        return part if found.are_equal else self._builder.whole(part)

    def _thin(self, segment: Segment, depth: int) -> Part:
        """Blocks of a pool. Other volumes may share them, and nothing of them is left out."""
        pool = self._group.logical.get(str(segment.section.get("thin_pool")))
        device = segment.section.get("device_id")
        if pool is None or len(pool.segments) != 1 or not isinstance(device, int):
            raise CorruptImageError("expected a pool and a number in it, found others")
        if "external_origin" in segment.section:
            raise UnsupportedFeatureError("a thin volume on a volume outside of its pool")
        names = (pool.segments[0].section.get(key) for key in ("metadata", "pool"))
        metadata, data = (self._reader(str(name), depth) for name in names)
        if metadata is None or data is None:
            raise TruncatedImageError("needs its pool, which is not at hand")
        size = segment.count * self._group.extent_bytes
        pieces = thin.pieces_of(metadata, data.size, device, size, self._builder.count)
        return self._builder.over(data, pieces)

    def _reader(self, name: str, depth: int) -> Source | None:
        """A volume that may not be at hand."""
        volume = self._group.logical.get(name)
        if volume is None:
            return None
        try:
            return self._builder.reader(self.part(volume, depth + 1))
        except TruncatedImageError:
            return None

    def _area(self, name: str, extent: int, count: int, depth: int) -> Part:
        """Extents of a physical volume, or of another logical one."""
        size = self._group.extent_bytes
        volume = self._group.logical.get(name)
        if volume is not None:
            if extent + count > volume.count:
                raise CorruptImageError(f"expected its extents inside of {name}")
            part = self.part(volume, depth + 1)
            return self._builder.clipped(part, extent * size, count * size)
        physical = self._group.physical.get(name)
        if physical is None:
            raise CorruptImageError(f"refers to {name}, which is not there")
        if extent + count > physical.count:
            raise CorruptImageError(f"expected its extents inside of {name}")
        member = self._at_hand.get(name)
        if member is None or physical.is_lost:
            raise TruncatedImageError(f"needs the physical volume {name}, which is not at hand")
        offset = physical.start + extent * size
        if offset + count * size > self._members[member].size:
            raise TruncatedImageError(f"the physical volume {name} ends before it does")
        return self._builder.run(member, offset, count * size)


def _areas(segment: Segment) -> tuple[list[tuple[str, int]], int]:
    """Where a segment is, and of how many extents each of the areas is."""
    if segment.kind in ("striped", "linear"):
        areas = segment.areas("stripes")
        return areas, -(-segment.count // max(1, len(areas)))
    return (segment.areas("mirrors") if segment.kind == "mirror" else []), segment.count


def _is_known(segment: Segment) -> bool:
    return segment.kind in _WITHOUT_AREAS or segment.kind.startswith("raid")
