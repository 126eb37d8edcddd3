"""HFS+ and HFSX: what they use, told by the allocation file.

``docs/filesystems/hfsplus.md`` says more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import MIB, div_up
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.clusters import is_zero
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.hfs_common import doubts
from imprint.filesystems.hfs_wrapper import unwrapped
from imprint.filesystems.hfsplus import layout
from imprint.filesystems.hfsplus.layout import JournalInfo, fork_of
from imprint.filesystems.hfsplus.trees import Volume
from imprint.filesystems.hfsplus.walk import reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

_BITMAP_BYTES_AT_ONCE: Final = MIB
_JOURNAL_IN_VOLUME: Final = 1
_JOURNAL_TO_BE_MADE: Final = 4
_JOURNAL_MARK: Final = 0x4A4E4C78
_JOURNAL_HEAD_BYTES: Final = 24


class HfsPlus:
    """HFS+, HFSX."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`. Of a wrapper, all is used."""
        inside, start = unwrapped(volume)
        found = self._allocation(inside)
        if not start:
            return found
        end = start + inside.size
        outside = Runs.of([(0, start), (end, volume.size - end)])
        return replace(found, used=found.used.shifted(start) | outside)

    def _allocation(self, volume: Source) -> Allocation:
        place = Volume(VolumeReader(volume))
        header, size = place.header, place.header.block_size
        blocks, count = _blocks(place)
        end = header.total_blocks * size
        alternate = end - layout.HEADER_OFFSET
        used = Runs.union(
            [
                blocks.scaled(size),
                Runs.of(
                    [
                        (0, layout.HEADER_OFFSET + layout.HEADER_BYTES),
                        (max(0, alternate), layout.HEADER_OFFSET),
                        (end, volume.size - end),
                    ]
                ),
            ]
        )
        free = header.total_blocks - count
        return Allocation(size, used, tuple(_doubts(place, free)))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        inside, start = unwrapped(volume)
        if start:
            yield 0, start
        for offset, length in reached(Volume(VolumeReader(inside))):
            yield start + offset, length

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`. Of trees as well."""
        return ((0, offset, length) for offset, length in self.reached(volume))


def _blocks(place: Volume) -> tuple[Runs, int]:
    """The blocks that the allocation file has, and how many they are."""
    fork, total = fork_of(place.header.allocation_fork), place.header.total_blocks
    bitmap = place.file(fork, layout.ALLOCATION_FILE, "allocation file")
    if bitmap.size * 8 < total:
        raise CorruptImageError(
            f"allocation file: expected {total} bits, found {bitmap.size * 8}",
            name=place.reader.name,
        )
    found = CollectedRuns()
    count = 0
    for first in range(0, total, 8 * _BITMAP_BYTES_AT_ONCE):
        bits = min(8 * _BITMAP_BYTES_AT_ONCE, total - first)
        content = bitmap.read(first // 8, div_up(bits, 8))
        if is_zero(content):
            continue
        found.add_bits(content, first, bits, lsb_first=False)
        count += (int.from_bytes(content) >> -bits % 8).bit_count()
    return found.runs(), count


def _doubts(place: Volume, free: int) -> Iterator[str]:
    header = place.header
    yield from doubts(header.attributes, header.free_blocks, free)
    if header.attributes & layout.ATTRIBUTE_JOURNALED:
        yield from _doubts_of_journal(place)


def _doubts_of_journal(place: Volume) -> Iterator[str]:
    """A journal with transactions would change the bitmap when it is replayed."""
    where = place.header.journal_info_block * place.header.block_size
    info = JournalInfo.unpack(place.reader.read(where, JournalInfo.SIZE, "journal information"))
    if info.flags & _JOURNAL_TO_BE_MADE:
        return
    if not info.flags & _JOURNAL_IN_VOLUME:
        yield "its journal is on another device"
        return
    head = bytes(place.reader.read(info.offset, _JOURNAL_HEAD_BYTES, "journal"))
    for order in ("big", "little"):
        if int.from_bytes(head[:4], order) == _JOURNAL_MARK:
            if int.from_bytes(head[8:16], order) != int.from_bytes(head[16:24], order):
                yield "its journal has not been replayed"
            return
    yield "its journal has no header"


def has_log(volume: Source) -> bool:
    """Whether there may be something in its journal that is not on the disk.

    Raises:
        CorruptImageError: if that cannot be told.
        ReadError: the same.
    """
    place = Volume(VolumeReader(unwrapped(volume)[0]))
    is_journaled = bool(place.header.attributes & layout.ATTRIBUTE_JOURNALED)
    return is_journaled and any(_doubts_of_journal(place))


FILE_SYSTEM: Final = HfsPlus()
