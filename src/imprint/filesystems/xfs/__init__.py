"""XFS, versions 4 and 5: what it uses, from its trees of free extents and its log.

An XFS that was not unmounted, and every snapshot of a running machine is one, has its newest
changes in its log only: its trees on the disk are behind the times. So the log is replayed in
memory, and what is used on the disk *or* after replaying is kept. Where that cannot be done, the
map has a doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.allocation import Allocation
from imprint.filesystems.states import States
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.files import file_runs
from imprint.filesystems.xfs.geometry import Reader, read_geometry
from imprint.filesystems.xfs.log import Log, LogError
from imprint.filesystems.xfs.replay import replay
from imprint.filesystems.xfs.space import read_space
from imprint.filesystems.xfs.states import file_states
from imprint.filesystems.xfs.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.filesystems.xfs.geometry import Geometry
    from imprint.filesystems.xfs.log import Record
    from imprint.filesystems.xfs.space import Space

_DIRTY: Final = "the file system was not unmounted, and its log cannot be replayed here"


class Xfs:
    """XFS."""

    def allocation(self, volume: Source) -> Allocation:
        """All but what both trees of every group call free.

        See :class:`~imprint.filesystems.allocation.Allocating`.
        """
        state = _read_state(volume)
        doubts = _doubts_of(state)
        if state.last is not None and not state.is_clean:
            return _dirty(volume, state, state.last, doubts)
        space = read_space(state.reader, state.geometry)
        if state.last is not None:
            doubts.extend(_check_count(state.geometry, space))
            doubts.extend(_check_age(space, state.last))
        return _allocation(volume, state.geometry, space.free, doubts)

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """All that inodes, trees and headers refer to.

        See :class:`~imprint.filesystems.allocation.Walking`. If it was not unmounted, the trees
        of groups are those after replaying the log, and what inodes own is told only by the
        trees of owners (rmapbt), where it has them: inodes are not replayed.

        Raises:
            UnsupportedFeatureError: if there is a log that cannot be replayed.
        """
        state = _read_state(volume)
        if state.is_clean:
            return walk(state.reader, state.geometry, follow_inodes=True)
        try:
            if state.last is None:
                raise LogError(state.doubts[0])
            changed, _ = _replayed(volume, state, state.last)
        except LogError as error:
            raise UnsupportedFeatureError(f"XFS: {error}", name=volume.name) from error
        return walk(changed, state.geometry, follow_inodes=False)

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`. The log is not replayed."""
        reader = Reader(volume)
        return file_runs(reader, read_geometry(reader))

    def states(self, volume: Source) -> States:
        """See :class:`~imprint.filesystems.states.Dating`.

        Raises:
            UnsupportedFeatureError: if it has version 4, whose inodes do not count changes.
        """
        state = _read_state(volume)
        geometry, block = state.geometry, state.geometry.superblock
        if not geometry.is_v5:
            raise UnsupportedFeatureError(
                "XFS of version 4: its inodes do not count changes", name=volume.name
            )
        doubts = _doubts_of(state)
        if state.last is not None and not state.is_clean:
            doubts.append("the file system was not unmounted: its log has to be replayed")
        identity = (block.uuid, geometry.uuid, block.inode_size, block.group_log, block.block_size)
        return States(identity, tuple(doubts), None, file_states(state.reader, geometry))


@dataclass(frozen=True)
class _State:
    """A volume whose superblock and log were looked at.

    Attributes:
        reader: of the volume as it is on the disk.
        geometry: what the superblock says.
        log: of it.
        last: the last whole record of the log, if that could be told.
        head: where the log ends, in its basic blocks.
        is_clean: all that is in the log is on the disk as well.
        doubts: why the log could not be told.
    """

    reader: Reader
    geometry: Geometry
    log: Log
    last: Record | None = None
    head: int = 0
    is_clean: bool = False
    doubts: tuple[str, ...] = ()


def _read_state(volume: Source) -> _State:
    reader = Reader(volume)
    geometry = read_geometry(reader)
    log = Log(reader, geometry)
    try:
        last, head = log.find_last()
        if last is None:
            raise LogError("it was never written")
        return _State(reader, geometry, log, last, head, log.is_unmount(last))
    except LogError as error:
        return _State(reader, geometry, log, doubts=(f"{_DIRTY}: {error}",))


def _doubts_of(state: _State) -> list[str]:
    """Why the file system may be in no state to be relied upon, but for a log that is not empty."""
    doubts = list(state.doubts)
    if state.geometry.has(incompat=layout.INCOMPAT_NEEDS_REPAIR):
        doubts.append("the file system is marked as in need of repair")
    return doubts


def _replayed(volume: Source, state: _State, last: Record) -> tuple[Reader, int]:
    """The volume as it is after replaying, and how many transactions that were.

    Raises:
        LogError: if it cannot be done.
    """
    replayed = replay(state.reader, state.geometry, state.log, last, state.head)
    changed = Reader(volume, replayed.blocks)
    if read_geometry(changed).superblock.blocks != state.geometry.superblock.blocks:
        raise LogError("it makes the file system grow")
    return changed, replayed.transactions


def _dirty(volume: Source, state: _State, last: Record, doubts: list[str]) -> Allocation:
    """The map of a file system that was not unmounted."""
    geometry = state.geometry
    before = read_space(state.reader, geometry, forgive=True)
    doubts = [*doubts, *_check_age(before, last)]
    if not geometry.is_v5:
        # Its blocks do not say how old they are, and no kernel of today is there to be asked.
        doubts.append("the file system was not unmounted, and its version 4 does not prove its log")
    try:
        changed, transactions = _replayed(volume, state, last)
        after = read_space(changed, geometry)
    except (LogError, CorruptImageError) as error:
        doubts.append(f"{_DIRTY}: {error.args[0]}")
        return _allocation(volume, geometry, before.free, doubts)
    note = (
        "the file system was not unmounted: its log was replayed in memory, "
        f"transactions: {transactions}"
    )
    if before.partial:
        note += (
            f"; {before.partial} of its {geometry.superblock.group_count} groups contradict "
            "themselves on the disk"
        )
    return _allocation(volume, geometry, before.free & after.free, doubts, note)


def _allocation(
    volume: Source,
    geometry: Geometry,
    free: Runs,
    doubts: list[str],
    *notes: str,
) -> Allocation:
    """What is not free; the volume may go on behind the file system's end."""
    used = free.complement(volume.size)
    return Allocation(geometry.block_size, used, tuple(doubts), notes)


def _check_count(geometry: Geometry, space: Space) -> list[str]:
    """What is wrong with the free count of a superblock that was written when unmounting."""
    counted = geometry.superblock.free_blocks
    if counted == space.counted:
        return []
    return [f"the superblock counts {counted} free blocks, and its groups {space.counted}"]


def _check_age(space: Space, last: Record) -> list[str]:
    """What is wrong if structures are newer than the log, as in a copy of a running disk."""
    if space.newest <= last.header.lsn:
        return []
    return ["some structures are newer than the log: this is no state the file system was ever in"]


FILE_SYSTEM: Final = Xfs()
