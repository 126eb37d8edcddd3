"""ext2, ext3 and ext4: what they use, told by the bitmaps of their groups.

Read: every feature of e2fsprogs 1.47 and Linux 6 but those refused: flex_bg, groups
without a bitmap, 64bit, bigalloc, meta_bg, sparse_super2, checksums of both kinds, journals
that have to be replayed, with fast commits. Refused: journals on other devices, compression,
snapshots, dirdata of Lustre, and what is not known. ``docs/filesystems/ext.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.filesystems.allocation import READ_BYTES_MAX, Allocation, VolumeReader
from imprint.filesystems.ext import features, layout
from imprint.filesystems.ext.fastcommit import fast_ranges
from imprint.filesystems.ext.files import file_runs
from imprint.filesystems.ext.geometry import Geometry, read_geometry
from imprint.filesystems.ext.journal import Log, read_log
from imprint.filesystems.ext.replayed import replayed
from imprint.filesystems.ext.ring import Ring
from imprint.filesystems.ext.space import read_space
from imprint.filesystems.ext.states import file_states
from imprint.filesystems.ext.trees import Trees
from imprint.filesystems.ext.walk import reached
from imprint.filesystems.states import States

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Ext:
    """ext2, ext3, ext4."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`.

        If the journal is to be replayed, it is what is in use before or after that.
        """
        reader = VolumeReader(volume)
        geometry = read_geometry(reader)
        state = _State(volume, geometry)
        doubts, notes = state.doubts, state.notes
        used = state.fast
        if state.log.copies:
            used |= read_space(reader, geometry, is_strict=False, is_settled=False).used
            reader = VolumeReader(replayed(volume, state.log.copies, geometry.block_size))
            geometry = read_geometry(reader)
        space = read_space(reader, geometry, is_strict=True, is_settled=not state.is_recovering)
        used |= space.used
        if geometry.superblock.last_orphan or geometry.has(ro_compat=features.ORPHAN_PRESENT):
            notes.append("files that were deleted while they were open still have their blocks")
        unit = geometry.block_size * geometry.ratio
        return Allocation(unit, used, (*doubts, *space.doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`. The journal is replayed."""
        geometry = read_geometry(VolumeReader(volume))
        log = _State(volume, geometry).log
        changed = replayed(volume, log.copies, geometry.block_size)
        reader = VolumeReader(changed, budget=volume.size)
        yield from reached(reader, read_geometry(reader))

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`. The journal is not replayed."""
        reader = VolumeReader(volume, budget=min(READ_BYTES_MAX, volume.size))
        return file_runs(reader, read_geometry(reader))

    def states(self, volume: Source) -> States:
        """See :class:`~imprint.filesystems.states.Dating`."""
        reader = VolumeReader(volume, budget=min(READ_BYTES_MAX, volume.size))
        geometry = read_geometry(reader)
        block = geometry.superblock
        state = _State(volume, geometry)
        doubts = state.doubts
        if state.is_recovering:
            doubts.append("the file system was not unmounted: its journal has to be replayed")
        if state.is_in_use:
            doubts.append("another machine may have it mounted")
        identity = (block.uuid, block.inode_size, block.inodes_per_group, geometry.block_size)
        seconds = block.write_time | block.write_time_high << 32
        return States(
            identity, tuple(doubts), seconds * 10**9 or None, file_states(reader, geometry)
        )


FILE_SYSTEM: Final = Ext()


class _State:
    """In what state the file system was left.

    Attributes:
        log: what of the journal is to be replayed.
        fast: what files were given by fast commits, in bytes.
        is_recovering: it was mounted, or not unmounted, with its journal.
        is_in_use: a machine says that it has it mounted.
        doubts, notes: see :class:`~imprint.filesystems.allocation.Allocation`.
    """

    def __init__(self, volume: Source, geometry: Geometry) -> None:
        self.log = Log()
        self.fast = Runs.of([])
        self.doubts: list[str] = []
        self.notes: list[str] = []
        self._volume = volume
        self._geometry = geometry
        self.is_recovering = geometry.has(incompat=features.RECOVER)
        self.is_in_use = False
        block = geometry.superblock
        if block.state & layout.HAS_ERRORS:
            self.doubts.append("the file system is marked as having errors")
        if not block.state & layout.IS_CLEAN:
            self.doubts.append("the file system was not unmounted")
        if block.error_count:
            self.notes.append(f"{block.error_count} errors were met since the last check")
        if geometry.has(compat=features.HAS_JOURNAL):
            self._read_journal()
        elif self.is_recovering:
            raise CorruptImageError(
                "superblock: expected a journal to replay, found none", name=geometry.where
            )
        if geometry.has(incompat=features.MMP):
            self._read_mmp()

    def _read_journal(self) -> None:
        ring = Ring(self._volume, self._geometry)
        if ring.superblock.error:
            self.doubts.append("the journal is marked as having met an error")
        if ring.superblock.start == 0:
            return
        if not self.is_recovering:
            self.doubts.append("the journal is not empty, and yet not to be replayed")
            return
        self.log = read_log(ring)
        self.doubts += self.log.doubts + self.log.remarks
        self.notes.append(f"{self.log.transactions} transactions of its journal were replayed")
        if ring.superblock.incompat & layout.JOURNAL_FAST_COMMIT:
            self._read_fast_commits(ring)

    def _read_fast_commits(self, ring: Ring) -> None:
        reader = VolumeReader(self._volume)
        ranges = fast_ranges(ring, Trees(reader, self._geometry), self.log.sequence)
        if ranges is None:
            self.doubts.append("the journal has fast commits of an unknown kind")
            return
        self.fast = Runs.of(ranges).scaled(self._geometry.block_size)
        if ranges:
            self.notes.append("blocks that fast commits gave to files are counted as used")

    def _read_mmp(self) -> None:
        place = self._geometry.superblock.mmp_block * self._geometry.block_size
        reader = VolumeReader(self._volume)
        sequence = reader.read(place + layout.MMP_OFFSET, 4, "block of MMP")
        if int.from_bytes(sequence, "little") != layout.MMP_CLEAN:
            self.is_in_use = True
            self.notes.append("another machine may have it mounted")
