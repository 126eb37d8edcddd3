"""Classic HFS: what it uses, told by the volume bitmap.

``docs/filesystems/hfs.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import div_up
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.hfs.volume import Volume
from imprint.filesystems.hfs.walk import reached
from imprint.filesystems.hfs_common import doubts
from imprint.filesystems.probes.apple import SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Hfs:
    """Classic HFS."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`.

        All that is outside of the allocation blocks is kept: boot blocks, the bitmap, both
        master blocks.
        """
        place = Volume(VolumeReader(volume))
        blocks, count = _blocks(place)
        used = Runs.union(
            [
                blocks.scaled(place.unit).shifted(place.base),
                Runs.of([(0, place.base), (place.block.end, volume.size - place.block.end)]),
            ]
        )
        free = place.block.block_count - count
        block = place.block
        return Allocation(
            place.unit, used, tuple(doubts(block.attributes, block.free_blocks, free))
        )

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        return reached(Volume(VolumeReader(volume)))

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`. Of trees as well."""
        return ((0, offset, length) for offset, length in self.reached(volume))


def _blocks(place: Volume) -> tuple[Runs, int]:
    """The blocks that the bitmap has, and how many they are."""
    total = place.block.block_count
    start, length = place.block.bitmap_block * SECTOR, div_up(total, 8)
    place.reader.check(place.base, place.block.end - place.base, "allocation blocks")
    if start + length > place.base:
        raise CorruptImageError(
            f"volume bitmap: expected it before the blocks, found 0x{start:x} + 0x{length:x}",
            name=place.reader.name,
        )
    content = place.reader.read(start, length, "volume bitmap")
    found = CollectedRuns()
    found.add_bits(content, 0, total, lsb_first=False)
    return found.runs(), (int.from_bytes(content) >> -total % 8).bit_count()


FILE_SYSTEM: Final = Hfs()
