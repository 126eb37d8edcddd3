"""Btrfs on one device: what it uses, from its extent tree, its log trees and its chunks.

The extent tree tells the logical addresses in use; each is in a chunk, of which there may be
more than one copy: *all* are kept, so that nothing has to be repaired after restoring. As
nothing is overwritten in place, the disk always holds a whole commit, and there is no journal;
what was synchronised since is in log trees, which are followed. RAID5/6, zones, the extent tree
v2, the RAID stripe tree, seeds, several devices, and checksums by xxhash64 are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.filesystems.allocation import READ_BYTES_MAX, Allocation
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.extra import read_backups, read_log
from imprint.filesystems.btrfs.space import data_extents, read_space
from imprint.filesystems.btrfs.state import read_state
from imprint.filesystems.btrfs.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.btrfs.state import State

_METADATA_SHARE: Final = 64
"""The extent tree takes less than this part of a volume, but for small ones."""


class Btrfs:
    """Btrfs."""

    def allocation(self, volume: Source) -> Allocation:
        """Every copy of what the last commit, its log, and former commits' trees use.

        See :class:`~imprint.filesystems.allocation.Allocating`.
        """
        budget = max(READ_BYTES_MAX, volume.size // _METADATA_SHARE)
        state = read_state(volume, budget=budget)
        used, doubts = read_space(state)
        log = read_log(state)
        former = read_backups(state, used | log)
        kept = state.chunks.in_volume(Runs.union((used, log, former)))
        block = state.superblock
        if block.flags & layout.FLAG_ERROR:
            doubts.append("the file system is marked as damaged")
        if state.geometry.newest_copy > block.generation:
            doubts.append("a copy of the superblock is newer than the first")
        notes = []
        if len(log):
            notes.append("the file system was not unmounted: its log is kept, and what it needs")
        if state.trees.repaired:
            notes.append(
                f"tree nodes that are damaged in one of their copies: {state.trees.repaired}"
            )
        return Allocation(block.sector_size, _reserved(state) | kept, tuple(doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """All that the trees refer to, each copy of it.

        See :class:`~imprint.filesystems.allocation.Walking`.
        """
        return walk(read_state(volume, budget=max(READ_BYTES_MAX, volume.size)))

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`. Each copy, of the last commit."""
        state = read_state(volume, budget=max(READ_BYTES_MAX, volume.size // _METADATA_SHARE))
        for address, length in data_extents(state):
            for place in state.chunks.places(address, length):
                yield 0, place, length


def _reserved(state: State) -> Runs:
    """What is outside of all chunks and is no free room: boot code, superblocks, the tail."""
    end = state.superblock.device_bytes
    copies = [
        (offset, layout.SUPERBLOCK_BYTES)
        for offset in layout.SUPERBLOCKS_AT
        if offset + layout.SUPERBLOCK_BYTES <= state.size
    ]
    boot = min(layout.RESERVED_BYTES, state.size)
    return Runs.of([(0, boot), (end, state.size - end), *copies])


FILE_SYSTEM: Final = Btrfs()
