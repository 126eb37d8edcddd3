"""What is needed although the extent tree does not have it: the log, and former commits.

What was synchronised since the last commit is in log trees. Their nodes, and the extents of
files that they tell of, are in no other tree: whoever mounts the file system replays them.

The superblock names the roots of four commits, for those who have to repair. The nodes of
former ones are free, and may be overwritten at any time. As long as they are whole, they are kept.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.layout import Backup
from imprint.filesystems.btrfs.trees import Pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.filesystems.btrfs.state import State
    from imprint.filesystems.btrfs.trees import Item

FORMER_BYTES_MIN: Final = 16 * MIB
FORMER_SHARE: Final = 64
"""Former commits may take this part of what is used, or 16 MiB: whoever has deleted a snapshot
does not want its trees in the image until four commits later."""


def walk_log(state: State) -> Iterator[tuple[int, int]]:
    """Address and length of the nodes of all log trees, and of extents of files in them.

    Raises:
        CorruptImageError: if one is not sound: the kernel would not mount it either.
        ReadError: if one cannot be read.
    """
    if state.log_root is None:
        return
    size = state.geometry.node_size
    roots: list[Item] = []
    for node in state.trees.whole(state.log_root):
        yield node.address, size
        if node.level == 0:
            roots.extend(node.items(layout.ROOT_ITEM))
    for item in roots:
        for node in state.trees.whole(state.tree_of(item)[0]):
            yield node.address, size
            if node.level == 0:
                yield from state.file_extents(node)


def read_log(state: State) -> Runs:
    """Addresses that the log needs.

    Raises:
        CorruptImageError: as :func:`walk_log`, and if extents are in no chunk.
        ReadError: as :func:`walk_log`.
    """
    found = list(walk_log(state))
    for address, length in found:
        state.chunks.places(address, length)
    return Runs.of(found)


def read_backups(state: State, used: Runs) -> Runs:
    """Addresses of nodes of former commits that are whole, and are not in ``used``.

    What is below a node in use is in use as well, so only what has changed since is read: the
    newest commits first, and no more of them than :data:`FORMER_SHARE` allows.
    """
    size, found = state.geometry.node_size, set[int]()
    count_max = max(FORMER_BYTES_MIN, used.total // FORMER_SHARE) // size
    for backup in _backups(state):
        with_former = found.copy()
        for address in _nodes(state, backup, _unless_known(used, with_former, size)):
            with_former.add(address)
            if len(with_former) > count_max:
                return Runs.of((address, size) for address in found)
        found = with_former
    return Runs.of((address, size) for address in found)


def _unless_known(used: Runs, found: set[int], size: int) -> Callable[[int], bool]:
    """Which nodes to enter."""
    return lambda address: address not in found and not used.covers(address, size)


def _nodes(state: State, backup: Backup, enter: Callable[[int], bool]) -> Iterator[int]:
    """Addresses of the nodes of a former commit, but for those that nobody wants to enter."""
    for root in _roots(backup):
        for node in state.trees.walk(root, enter, forgive=True):
            yield node.address
            if node.level:
                continue
            for item in node.items(layout.ROOT_ITEM):
                if len(item.data) >= layout.RootItem.SIZE:
                    pointer = state.tree_of(item)[0]
                    for below in state.trees.walk(pointer, enter, forgive=True):
                        yield below.address


def _backups(state: State) -> list[Backup]:
    """The newest first."""
    raw = memoryview(state.superblock.backups)
    found = [Backup.unpack(raw[at:]) for at in range(0, len(raw), Backup.SIZE)]
    return sorted(found, key=attrgetter("root_generation"), reverse=True)


def _roots(backup: Backup) -> Iterator[Pointer]:
    yield Pointer(backup.root, backup.root_generation, backup.root_level)
    yield Pointer(backup.chunk_root, backup.chunk_root_generation, backup.chunk_root_level)
    yield Pointer(backup.extent_root, backup.extent_root_generation, backup.extent_root_level)
    yield Pointer(backup.fs_root, backup.fs_root_generation, backup.fs_root_level)
    yield Pointer(backup.device_root, backup.device_root_generation, backup.device_root_level)
    yield Pointer(backup.checksum_root, backup.checksum_root_generation, backup.checksum_root_level)
