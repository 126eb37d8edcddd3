"""Changing files on FAT12, FAT16 and FAT32, so that a crash leaves the old state or the new one.

::

    put       content into free clusters; flush; their chain into all FATs; flush; the entry
    replace   the same, then one write of the entry; only then the old chain is given up
    remove    the entry; flush; then the chain is given up

What a crash can leave are clusters that belong to no file, which every checker gives back, and the
mark that says that somebody was writing. What was marked so before stays marked.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    NotFoundError,
    ReadError,
    RefusedError,
    TargetTooSmallError,
    UsageError,
)
from imprint.core.limits import SPAN_BYTES
from imprint.core.units import div_up
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.clusters import FIRST_CLUSTER, runs_of
from imprint.filesystems.fat.folders import (
    ARCHIVE,
    FOLDER,
    READ_ONLY,
    Folder,
    NewFile,
    Record,
    stamp_of,
)
from imprint.filesystems.fat.geometry import read_geometry
from imprint.filesystems.fat.names import check_name
from imprint.filesystems.fat.table import EditableTable

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.filters.window import Editable

FILE_BYTES_MAX: Final = (1 << 32) - 1
"""Of one file: its size has 32 bits."""

_DEPTH_MAX: Final = 128
_DIRTY: Final = 0x01
_EXTENDED_MARKS: Final = (0x28, 0x29)
_INFO_MARKS: Final = ((0, 0x41615252), (484, 0x61417272))


class FatEditor:
    """An open FAT file system; :meth:`close` has to be called, whatever happens.

    Paths have ``/`` between names, and are looked up in whatever case. For one thread.
    """

    def __init__(self, volume: Editable) -> None:
        """Reads its tables; changes nothing yet.

        Raises:
            CorruptImageError: if it is no FAT file system, or one that has to be checked first.
            ReadError: if it cannot be read.
        """
        self._volume = volume
        self._place = read_geometry(VolumeReader(volume))
        self._table = EditableTable(volume, self._place)
        self._state_at = self._find_state()
        self._is_begun = False
        self._is_half_done = False

    def mkdir(self, path: str, seconds: float) -> None:
        """Make a folder, in one that exists.

        Args:
            path: of it.
            seconds: when, since 1970.

        Raises:
            RefusedError: if something has that name.
            NotFoundError: if the folder above does not exist.
            TargetTooSmallError: if there is no room.
            UsageError: if nothing can have such a name.
        """
        above, name, record = self._look_up(path)
        if record is not None or not name:
            raise RefusedError("exists already", name=path)
        check_name(name)
        (cluster,) = self._table.allocate(1)
        self._begin()
        stamp = stamp_of(seconds)
        content = bytearray(self._place.cluster_size)
        parent = above.clusters[0] if above.clusters else 0
        if self._place.bits == 32 and parent == self._place.root_cluster:
            parent = 0  # the root is called so by what is in it
        content[:32] = NewFile(FOLDER, cluster, 0, stamp).encode(b".".ljust(11))
        content[32:64] = NewFile(FOLDER, parent, 0, stamp).encode(b"..".ljust(11))
        self._volume.write(memoryview(content), self._offset(cluster))
        self._volume.flush()
        self._table.write()
        self._add(above, name, NewFile(FOLDER, cluster, 0, stamp), [cluster])
        self._is_half_done = False

    def put(self, path: str, content: Source, seconds: float, *, may_replace: bool) -> None:
        """Store a file.

        Args:
            path: of it, in a folder that exists.
            content: its bytes.
            seconds: when they were changed last, since 1970.
            may_replace: whether a file that has that name may go.

        Raises:
            RefusedError: if something has that name and may not be replaced, or is a folder.
            NotFoundError: if the folder does not exist.
            TargetTooSmallError: if there is no room: for the new file beside the old one.
            UsageError: if nothing can have such a name, or be so large.
        """
        above, name, record = self._look_up(path)
        if not name or (record is not None and (record.is_folder or not may_replace)):
            raise RefusedError("exists already", name=path, advice=_advice(record))
        if record is not None and record.attributes & READ_ONLY:
            raise RefusedError("is marked as read-only", name=path)
        check_name(name)
        if content.size > FILE_BYTES_MAX:
            raise UsageError("expected a file below 4 GiB: FAT has no larger ones", name=path)
        clusters = self._table.allocate(div_up(content.size, self._place.cluster_size))
        first = clusters[0] if clusters else 0
        new = NewFile(ARCHIVE, first, content.size, stamp_of(seconds))
        self._begin()
        try:
            self._store(content, clusters)
        except ReadError:  # of what is to be put: nothing of the file is there yet
            self._give_back(clusters)
            raise
        if record is None:
            self._add(above, name, new, clusters)
        else:
            above.update(record, new)
            self._give_up(record)
        self._is_half_done = False

    def remove(self, path: str, *, with_content: bool = False) -> None:
        """Remove a file, or a folder.

        Args:
            path: of it.
            with_content: of a folder: all that is in it too; else it has to be empty.

        Raises:
            NotFoundError: if there is no such file.
            RefusedError: if it is the root, or a folder that is not empty.
        """
        above, name, record = self._look_up(path)
        if not name:
            raise RefusedError("is the root", name=path)
        if record is None:
            raise NotFoundError("no such file or folder", name=path)
        if record.is_folder and not with_content:
            folder = self._folder(record.cluster)
            if any(not item.is_dot for item in folder.records()):
                raise RefusedError(
                    "is a folder that is not empty", name=path, advice="-r removes it"
                )
        self._begin()
        self._remove(above, record, 0)
        self._is_half_done = False

    def is_folder(self, path: str) -> bool | None:
        """Whether it is one; ``None``: there is nothing.

        Raises:
            NotFoundError: if the folder above does not exist.
        """
        _, name, record = self._look_up(path)
        if not name:
            return True
        return None if record is None else record.is_folder

    @property
    def free_bytes(self) -> int:
        """Of its free clusters."""
        return self._table.free_count * self._place.cluster_size

    def close(self) -> None:
        """Say that all is written, unless a change was not; calling again changes nothing."""
        if self._is_begun and not self._is_half_done:
            self._is_begun = False
            self._count_free()
            self._table.write()
            self._mark(is_dirty=False)

    def _begin(self) -> None:
        if not self._is_begun:
            self._mark(is_dirty=True)
            self._is_begun = True
        self._is_half_done = True

    def _find_state(self) -> int | None:
        """Where the boot sector says whether somebody is writing; ``None``: not for us to change.

        Linux's place for it, which is there if what follows it is. Windows has a bit in the FAT
        as well; where that is not set, mtools refuse to read.
        """
        at = 65 if self._place.bits == 32 else 37
        field = memoryview(bytearray(2))
        self._volume.readinto(field, at)
        return at if field[1] in _EXTENDED_MARKS and not field[0] & _DIRTY else None

    def _mark(self, *, is_dirty: bool) -> None:
        if self._state_at is not None:
            field = memoryview(bytearray(1))
            self._volume.readinto(field, self._state_at)
            field[0] = field[0] & ~_DIRTY | (_DIRTY if is_dirty else 0)
            self._volume.write(field, self._state_at)
            self._volume.flush()

    def _look_up(self, path: str) -> tuple[Folder, str, Record | None]:
        """The folder that a path leads into, the last name, and what has it; the root: no name."""
        names = [name for name in path.split("/") if name]
        folder = self._folder(None)
        for number, name in enumerate(names):
            record = folder.find(name)
            if number == len(names) - 1:
                return folder, name, record
            if record is None or not record.is_folder:
                raise NotFoundError("no such folder", name="/" + "/".join(names[: number + 1]))
            folder = self._folder(record.cluster)
        return folder, "", None

    def _folder(self, cluster: int | None) -> Folder:
        return Folder(self._volume, self._place, self._table, cluster)

    def _store(self, content: Source, clusters: list[int]) -> None:
        """The content, then its chain, both durable."""
        unit = self._place.cluster_size
        buffer = memoryview(bytearray(SPAN_BYTES))
        done = 0
        for first, count in runs_of(clusters):
            end = min(done + count * unit, content.size)
            offset = self._offset(first)
            while done < end:
                part = buffer[: min(len(buffer), end - done)]
                content.readinto(part, done)
                self._volume.write(part, offset)
                offset += len(part)
                done += len(part)
        self._volume.flush()
        self._table.write()

    def _add(self, above: Folder, name: str, new: NewFile, clusters: list[int]) -> None:
        try:
            above.add(name, new)
        except TargetTooSmallError:  # nothing was written: the folder cannot grow
            self._give_back(clusters)
            raise

    def _give_back(self, clusters: list[int]) -> None:
        """They were to become a file, and did not."""
        self._table.release(clusters)
        self._is_half_done = False

    def _remove(self, above: Folder, record: Record, depth: int) -> None:
        if depth > _DEPTH_MAX:
            raise CorruptImageError("folders are too deep in each other", name=self._volume.name)
        if record.is_folder:
            folder = self._folder(record.cluster)
            for item in list(folder.records()):
                if not item.is_dot:
                    self._remove(folder, item, depth + 1)
        above.remove(record)
        self._give_up(record)

    def _give_up(self, record: Record) -> None:
        """The clusters of a file that has no entry any more."""
        self._table.release(self._table.chain(record.cluster))
        self._table.write()

    def _count_free(self) -> None:
        """FAT32 keeps how many clusters are free, as a hint (FSInfo)."""
        sector = self._place.info_at
        if sector is None:
            return
        info = memoryview(bytearray(512))
        self._volume.readinto(info, sector)
        if all(struct.unpack_from("<I", info, at)[0] == mark for at, mark in _INFO_MARKS):
            struct.pack_into("<I", info, 488, self._table.free_count)
            self._volume.write(info, sector)

    def _offset(self, cluster: int) -> int:
        return self._place.data_at + (cluster - FIRST_CLUSTER) * self._place.cluster_size


def _advice(record: Record | None) -> str | None:
    return None if record is None or record.is_folder else "--force replaces it"
