"""HFS+ and HFSX: what they use, told by the allocation file.

A volume in an HFS wrapper is refused. ``docs/filesystems/hfsplus.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import runs_of_bits
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.hfsplus import layout
from imprint.filesystems.hfsplus.layout import JournalInfo, fork_of
from imprint.filesystems.hfsplus.trees import Volume
from imprint.filesystems.hfsplus.walk import reached
from imprint.filesystems.probes.apple import HFS_MARK, HFS_OFFSET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

_JOURNAL_IN_VOLUME: Final = 1
_JOURNAL_TO_BE_MADE: Final = 4
_JOURNAL_MARK: Final = 0x4A4E4C78
_JOURNAL_HEAD_BYTES: Final = 24


class HfsPlus:
    """HFS+, HFSX."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        place = _open(volume)
        header, size = place.header, place.header.block_size
        bitmap = place.content(
            fork_of(header.allocation_fork), layout.ALLOCATION_FILE, "allocation file"
        )
        if len(bitmap) * 8 < header.total_blocks:
            raise CorruptImageError(
                f"allocation file: expected {header.total_blocks} bits, found {len(bitmap) * 8}",
                name=volume.name,
            )
        blocks = Runs.of(runs_of_bits(bitmap, 0, header.total_blocks, lsb_first=False))
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
        free = header.total_blocks - blocks.total
        return Allocation(size, used, tuple(_doubts(place, free)))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        return reached(_open(volume))


def _open(volume: Source) -> Volume:
    reader = VolumeReader(volume)
    if reader.read(HFS_OFFSET, len(HFS_MARK), "volume header") == HFS_MARK:
        raise UnsupportedFeatureError("it is inside an HFS volume", name=volume.name)
    return Volume(reader)


def _doubts(place: Volume, free: int) -> Iterator[str]:
    header = place.header
    if free != header.free_blocks:
        yield f"expected {header.free_blocks} free blocks, found {free}"
    if header.attributes & layout.ATTRIBUTE_INCONSISTENT:
        yield "it was not unmounted, or needs to be checked"
    elif not header.attributes & layout.ATTRIBUTE_UNMOUNTED:
        yield "it was not unmounted"
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


FILE_SYSTEM: Final = HfsPlus()
