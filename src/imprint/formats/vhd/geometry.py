"""Cylinders, heads and sectors: what Virtual PC shows a guest, and takes a disk's size from.

Source: the appendix "CHS Calculation" of the specification.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from imprint.core.units import div_up

_SECTOR_BYTES: Final = 512


class Geometry(NamedTuple):
    """Of an IDE disk."""

    cylinders: int
    heads: int
    sectors: int

    @property
    def size(self) -> int:
        """Of a disk with that geometry, in bytes."""
        return self.cylinders * self.heads * self.sectors * _SECTOR_BYTES


CHS_MAX: Final = Geometry(65535, 16, 255)
"""127 GiB. It says that the disk is at least so large; then ``current_size`` counts for all."""


def below(size: int) -> Geometry:
    """The geometry of a disk of ``size`` bytes; it may lose some sectors at the end."""
    total = min(size, CHS_MAX.size) // _SECTOR_BYTES
    if total >= 65535 * 16 * 63:
        return Geometry(total // 255 // 16, 16, 255)
    sectors = 17
    tracks = total // sectors
    heads = max(4, div_up(tracks, 1024))
    if tracks >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        tracks = total // sectors
    if tracks >= heads * 1024:
        sectors, heads = 63, 16
        tracks = total // sectors
    return Geometry(tracks // heads, heads, sectors)


def above(size: int) -> Geometry:
    """The smallest geometry that this calculation gives for ``size`` bytes or a little more."""
    wanted = size
    while True:
        found = below(wanted)
        if found.size >= min(size, CHS_MAX.size):
            return found
        wanted += _SECTOR_BYTES


def exact(size: int) -> Geometry:
    """One that no program takes another size from: the disk's own if it has one, else the largest.

    Programs that count by the geometry do not do so for the largest one.
    """
    found = below(size)
    return found if found.size == size else CHS_MAX
