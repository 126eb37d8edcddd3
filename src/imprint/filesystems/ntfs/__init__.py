"""NTFS: what it uses, told by its bitmap.

What Windows has not unmounted, or hibernates with, leaves a doubt: the log is not replayed.
Blocks that shadow copies need are kept as well. ``docs/filesystems/ntfs.md`` says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.contents import file_runs
from imprint.filesystems.ntfs.files import Files
from imprint.filesystems.ntfs.geometry import read_geometry
from imprint.filesystems.ntfs.shadows import read_shadows
from imprint.filesystems.ntfs.space import read_space
from imprint.filesystems.ntfs.state import doubts_of, doubts_of_log
from imprint.filesystems.ntfs.states import file_states
from imprint.filesystems.ntfs.walk import reached
from imprint.filesystems.states import States

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Ntfs:
    """NTFS 1.1 to 3.1."""

    def allocation(self, volume: Source) -> Allocation:
        """See :class:`~imprint.filesystems.allocation.Allocating`."""
        files = _files(VolumeReader(volume))
        doubts = list(doubts_of(files))
        space = read_space(files)
        used, notes = space.used, list(space.notes)
        doubts += space.doubts
        try:
            shadows = read_shadows(VolumeReader(volume, budget=volume.size))
        except CorruptImageError as error:
            doubts.append(f"its shadow copies may need what is free: {error.args[0]}")
        else:
            used |= shadows.used.widened(files.geometry.cluster_size).clip(0, volume.size)
            if shadows.number:
                notes.append(f"what {shadows.number} shadow copies need of free clusters is kept")
        return Allocation(files.geometry.cluster_size, used, tuple(doubts), tuple(notes))

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """See :class:`~imprint.filesystems.allocation.Walking`."""
        return reached(_files(VolumeReader(volume, budget=volume.size)))

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """See :class:`~imprint.filesystems.files.Locating`."""
        return file_runs(_files(VolumeReader(volume)))

    def states(self, volume: Source) -> States:
        """See :class:`~imprint.filesystems.states.Dating`."""
        files = _files(VolumeReader(volume))
        geometry = files.geometry
        boot = files.reader.read(0, layout.STRIDE, "boot sector")
        identity = (bytes(boot), geometry.record_size, geometry.cluster_size)
        return States(identity, tuple(doubts_of(files)), None, file_states(files))


def _files(reader: VolumeReader) -> Files:
    return Files(reader, read_geometry(reader))


def has_log(volume: Source) -> bool:
    """Whether there may be something in its log that is not on the disk.

    Raises:
        CorruptImageError: if that cannot be told.
        ReadError: the same.
    """
    return any(doubts_of_log(_files(VolumeReader(volume))))


FILE_SYSTEM: Final = Ntfs()
