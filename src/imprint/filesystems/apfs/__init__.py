"""APFS: what a container uses, told by the space manager of its newest checkpoint.

What the checkpoint before it used is kept too: whoever mounts the container after a crash may
have to go back to it. ``docs/filesystems/apfs.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.filesystems.allocation import READ_BYTES_MAX, Allocation, VolumeReader
from imprint.filesystems.apfs.areas import reserved
from imprint.filesystems.apfs.checkpoints import read_container
from imprint.filesystems.apfs.space import Space, read_space
from imprint.filesystems.apfs.walk import reached, volumes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.apfs.checkpoints import Container

_BYTES_PER_MAP_BYTE: Final = 8192
"""A bitmap is a 32768th of what it tells of; there are two checkpoints."""

_READS_OF_A_WALK: Final = 4
"""How often a block may be read: object maps are, and the maps of checkpoints, some times."""


class Apfs:
    """An APFS container on one device."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        budget = max(READ_BYTES_MAX, volume.size // _BYTES_PER_MAP_BYTE)
        container = read_container(VolumeReader(volume, budget=budget))
        space = read_space(container, container.newest)
        marked, queued = space.used.runs(), space.queued.runs()
        doubts = [*_doubts(container), *space.doubts]
        if len(queued - marked):
            doubts.append("blocks that are still to become free are marked as free")
        parts = [marked, queued, Runs.of(reserved(container, space)), *_before(container, space)]
        size, end = container.blocks.size, container.blocks.count
        used = Runs.union(parts).clip(0, end).scaled(size)
        used |= Runs.of([(end * size, volume.size - end * size)])
        return Allocation(size, used, tuple(dict.fromkeys(doubts)), tuple(_notes(container)))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`.

        Of volumes whose trees are encrypted only the extents that are counted are reached, and
        the trees themselves.
        """
        budget = volume.size * _READS_OF_A_WALK
        container = read_container(VolumeReader(volume, budget=budget))
        size = container.blocks.size
        for start, count in reached(container):
            yield start * size, count * size


def _doubts(container: Container) -> Iterator[str]:
    if container.is_behind:
        yield "its newest checkpoint is not whole"
    if container.newest.superblock.blocked_count:
        yield "it is being made smaller"
    if container.newest.superblock.uuid != container.first_uuid:
        yield "its first block belongs to another container"


def _before(container: Container, space: Space) -> Iterator[Runs]:
    """What the checkpoint before used, as far as it is whole and was not the same."""
    previous = container.previous()
    if previous is None or previous.superblock.block_count != space.manager.block_count:
        return
    try:
        before = read_space(container, previous, space)
    except (CorruptImageError, UnsupportedFeatureError):
        return
    if not before.doubts:
        yield before.used.runs()
        yield before.queued.runs()


def _notes(container: Container) -> Iterator[str]:
    for volume in volumes(container):
        if volume.is_encrypted:
            yield f"volume {volume.name} is encrypted: its files cannot be walked"


FILE_SYSTEM: Final = Apfs()
