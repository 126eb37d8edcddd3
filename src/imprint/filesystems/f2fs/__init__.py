"""F2FS: what it uses, told by the segment information table of the last checkpoint.

Everything in front of the main area is kept: superblocks, both checkpoint packs, the tables.
Files that were synced after the last checkpoint are in no table; where there are any, the map
is doubtful. ``docs/filesystems/f2fs.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.f2fs import layout, walk
from imprint.filesystems.f2fs.layout import BLOCK
from imprint.filesystems.f2fs.space import valid_blocks
from imprint.filesystems.f2fs.state import State, goes_on, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class F2fs:
    """F2FS on one device."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        reader = VolumeReader(volume)
        state = read_state(reader)
        valid, count = valid_blocks(reader, state)
        main = state.block.main_block
        end = (main + state.block.main_segments * state.segment_blocks) * BLOCK
        used = Runs.union(
            [
                valid.shifted(main).scaled(BLOCK),
                Runs.of([(0, main * BLOCK), (end, reader.size - end)]),
            ]
        )
        doubts = list(dict.fromkeys(_doubts(reader, state, count)))
        return Allocation(BLOCK, used, tuple(doubts))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        reader = VolumeReader(volume)
        return walk.reached(reader, read_state(reader))


def _doubts(reader: VolumeReader, state: State, count: int) -> Iterator[str]:
    head = state.checkpoint
    for flag, what in layout.CP_DOUBTFUL.items():
        if head.flags & flag:
            yield f"it {what}"
    if count != head.valid_blocks:
        yield f"expected {head.valid_blocks} valid blocks, found {count}"
    if not head.flags & layout.CP_UMOUNT:
        yield "it was not unmounted"
    elif goes_on(reader, state):
        yield "files were synced after its last checkpoint"


FILE_SYSTEM: Final = F2fs()
