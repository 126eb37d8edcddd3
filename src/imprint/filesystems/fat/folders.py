"""Folders of FAT, and changing what is in them.

An entry is 32 bytes within one sector, so that it is written whole or not at all. The short entry
makes a file appear; the pieces of its long name stand before it and mean nothing without it.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, TargetTooSmallError
from imprint.core.units import div_up
from imprint.filesystems.clusters import FIRST_CLUSTER, runs_of
from imprint.filesystems.fat.geometry import ENTRY_BYTES
from imprint.filesystems.fat.names import (
    DOTS,
    LONG_NAME,
    checksum,
    long_entries,
    long_part,
    long_text,
    short_name,
    short_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.fat.geometry import Geometry
    from imprint.filesystems.fat.table import EditableTable
    from imprint.filters.window import Editable

READ_ONLY: Final = 0x01
LABEL: Final = 0x08
FOLDER: Final = 0x10
ARCHIVE: Final = 0x20

ENTRIES_MAX: Final = 65_536
"""Of a folder: Microsoft's limit."""

_END: Final = 0
_DELETED: Final = 0xE5
_NAME_BYTES: Final = 11
_PLACE: Final = struct.Struct("<20x H 4x H I")
"""Of an entry: upper and lower half of the first cluster's number, and the size."""

_OLDEST_S: Final = 315_619_200  # 1980-01-02: in no time zone before 1980


class Record(NamedTuple):
    """A file or folder, as its entries say.

    Attributes:
        name: the long one if there is one.
        short: as it is stored.
        attributes: its bits.
        cluster: the first one; 0: it is empty, or (of ``..``) the root.
        size: in bytes; 0 for folders.
        first: number of its first entry in its folder.
        last: number of its short entry.
    """

    name: str
    short: bytes
    attributes: int
    cluster: int
    size: int
    first: int
    last: int

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return bool(self.attributes & FOLDER)

    @property
    def is_dot(self) -> bool:
        """Whether it stands for a folder itself, or the one above."""
        return self.short in DOTS


class NewFile(NamedTuple):
    """What the short entry of a new file or folder says besides its name.

    Attributes:
        attributes: its bits.
        cluster: the first one; 0: it has none.
        size: in bytes; 0 for folders.
        stamp: date and time, as :func:`stamp_of` makes them.
    """

    attributes: int
    cluster: int
    size: int
    stamp: tuple[int, int]

    def encode(self, short: bytes) -> bytes:
        """The entry."""
        clock, date = self.stamp
        low, high = self.cluster & 0xFFFF, self.cluster >> 16
        rest = (0, 0, clock, date, date, high, clock, date, low, self.size)
        return short + bytes([self.attributes]) + struct.pack("<BBHHHHHHHI", *rest)


def records_in(content: bytes | bytearray, *, bits: int) -> Iterator[Record]:
    """What the entries of a folder say: files, folders, ``.`` and ``..``, and labels.

    The pieces of a long name count down to 1, and all have the short one's checksum: else they are
    left of another file, and do not count.

    Args:
        content: of the folder, all of it.
        bits: of an entry of the allocation table.
    """
    data = bytes(content)
    pieces: list[bytes] = []
    first = check = before = 0
    for number in range(len(data) // ENTRY_BYTES):
        entry = data[number * ENTRY_BYTES : (number + 1) * ENTRY_BYTES]
        if entry[0] == _END:
            return
        if entry[0] == _DELETED:
            pieces = []
        elif entry[_NAME_BYTES] & 0x3F == LONG_NAME:
            order = entry[0] & 0x3F
            if entry[0] & 0x40:
                pieces, first, check, before = [], number, entry[13], order + 1
            elif not pieces or entry[13] != check:
                before = 0
            pieces = [*pieces, long_part(entry)] if 0 < order == before - 1 else []
            before = order
        else:
            is_long = pieces and before == 1 and checksum(entry[:_NAME_BYTES]) == check
            name = long_text(pieces[::-1]) if is_long else short_text(entry)
            yield record_of(name, entry, first if is_long else number, number, bits=bits)
            pieces = []


def record_of(name: str, entry: bytes, first: int, last: int, *, bits: int) -> Record:
    """What a short entry says of a file, or folder, of a name."""
    high, cluster, size = _PLACE.unpack(entry)
    if bits == 32:
        cluster |= (high & 0x0FFF) << 16
    return Record(name, entry[:_NAME_BYTES], entry[_NAME_BYTES], cluster, size, first, last)


class Folder:
    """A folder: all of its entries in memory, changed there and on the volume."""

    def __init__(
        self, volume: Editable, place: Geometry, table: EditableTable, cluster: int | None
    ) -> None:
        """``cluster`` is its first one; ``None``: the root.

        Raises:
            CorruptImageError: if it is larger than a folder can be, or its chain is damaged.
            ReadError: if it cannot be read.
        """
        self._volume = volume
        self._place = place
        self._table = table
        self._extents: list[tuple[int, int]] = []
        self._clusters: list[int] = []
        if cluster is None and place.root_size:
            self._extents = [(place.root_at, place.root_size)]
        else:
            self._clusters = table.chain(place.root_cluster if cluster is None else cluster)
            self._place_clusters()
        size = sum(length for _, length in self._extents)
        if size > ENTRIES_MAX * ENTRY_BYTES:
            raise CorruptImageError(
                f"expected a folder of at most {ENTRIES_MAX} entries, found {size // ENTRY_BYTES}",
                name=volume.name,
            )
        self._content = bytearray(size)
        at = 0
        for start, length in self._extents:
            volume.readinto(memoryview(self._content)[at : at + length], start)
            at += length

    @property
    def clusters(self) -> list[int]:
        """Its chain; of the root of FAT12 and FAT16, none."""
        return self._clusters

    def records(self) -> Iterator[Record]:
        """What is in it, ``.`` and ``..`` included, labels left out."""
        for record in records_in(self._content, bits=self._place.bits):
            if not record.attributes & LABEL:
                yield record

    def find(self, name: str) -> Record | None:
        """What has that name, in whatever case, long or short; ``None``: nothing."""
        wanted = name.casefold()
        for record in self.records():
            short = short_text(record.short + bytes(2))
            if not record.is_dot and wanted in (record.name.casefold(), short.casefold()):
                return record
        return None

    def add(self, name: str, file: NewFile) -> None:
        """Add an entry; it is durable and visible when this returns.

        Raises:
            TargetTooSmallError: if there is no room for it.
        """
        short, is_exact = short_name(name, {record.short for record in self.records()})
        entries = [*([] if is_exact else long_entries(name, short)), file.encode(short)]
        first = self._room(len(entries))
        for number, entry in enumerate(entries[:-1], first):
            self._write(number, entry)
        if len(entries) > 1:
            self._volume.flush()
        self._write(first + len(entries) - 1, entries[-1])
        self._volume.flush()

    def update(self, record: Record, file: NewFile) -> None:
        """Let a file have another content, by one write; durable when this returns."""
        old = self._entry(record.last)
        new = bytearray(file.encode(record.short))
        new[12:18] = old[12:18]  # the case of its name, and when it was created
        self._write(record.last, bytes(new))
        self._volume.flush()

    def remove(self, record: Record) -> None:
        """Let a file disappear, by one write; durable when this returns."""
        for number in range(record.last, record.first - 1, -1):
            entry = bytearray(self._entry(number))
            entry[0] = _DELETED
            self._write(number, bytes(entry))
            if number == record.last:
                self._volume.flush()
        self._volume.flush()

    def _entry(self, number: int) -> bytes:
        return bytes(self._content[number * ENTRY_BYTES : (number + 1) * ENTRY_BYTES])

    def _room(self, count: int) -> int:
        """The first of so many entries that are free, one behind the other."""
        free = start = 0
        total = len(self._content) // ENTRY_BYTES
        for number in range(total):
            mark = self._content[number * ENTRY_BYTES]
            if mark == _END:
                start = number - free
                if total - start >= count:
                    self._end_at(start + count)
                    return start
                free = total - start
                break
            free = free + 1 if mark == _DELETED else 0
            if free == count:
                return number - count + 1
        self._grow(count - free)
        return total - free

    def _end_at(self, number: int) -> None:
        """See to it that what was behind the end, and may be anything, is so still."""
        if number * ENTRY_BYTES < len(self._content) and self._entry(number)[0] != _END:
            self._write(number, bytes(ENTRY_BYTES))
            self._volume.flush()

    def _grow(self, count: int) -> None:
        """Append clusters, zeros, for so many entries more."""
        if not self._clusters or len(self._content) // ENTRY_BYTES + count > ENTRIES_MAX:
            raise TargetTooSmallError(
                "its folder has no room for more files", name=self._volume.name
            )
        unit = self._place.cluster_size
        added = self._table.allocate(div_up(count * ENTRY_BYTES, unit))
        zeros = memoryview(bytes(unit))
        for cluster in added:
            self._volume.write(zeros, self._offset(cluster))
        self._table.write()  # first what is new, then the link to it
        self._table[self._clusters[-1]] = added[0]
        self._table.write()
        self._clusters += added
        self._place_clusters()
        self._content += bytes(unit * len(added))

    def _place_clusters(self) -> None:
        unit = self._place.cluster_size
        self._extents = [
            (self._offset(first), count * unit) for first, count in runs_of(self._clusters)
        ]

    def _offset(self, cluster: int) -> int:
        return self._place.data_at + (cluster - FIRST_CLUSTER) * self._place.cluster_size

    def _write(self, number: int, entry: bytes) -> None:
        at = number * ENTRY_BYTES
        self._content[at : at + ENTRY_BYTES] = entry
        for start, length in self._extents:
            if at < length:
                self._volume.write(memoryview(entry), start + at)
                return
            at -= length


def stamp_of(seconds: float) -> tuple[int, int]:
    """Time and date as entries have them: local time, in steps of 2 s, from 1980 to 2107."""
    at = time.localtime(max(seconds, _OLDEST_S))
    date = min(at.tm_year, 2107) - 1980 << 9 | at.tm_mon << 5 | at.tm_mday
    return at.tm_hour << 11 | at.tm_min << 5 | min(at.tm_sec, 59) // 2, date
