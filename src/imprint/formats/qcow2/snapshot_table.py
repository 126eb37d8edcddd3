"""The table of internal snapshots: read whole, written whole.

Source: QEMU ``docs/interop/qcow2.txt``, "Snapshots".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError, TruncatedImageError
from imprint.core.info import SnapshotInfo
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import align_up
from imprint.formats.qcow2 import layout
from imprint.formats.qcow2.layout import SnapshotEntry, SnapshotExtra

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.header import HeaderArea


@dataclass(frozen=True)
class Snapshot:
    """An entry of the table.

    Attributes:
        entry: the fixed part.
        extra: the extra data, of which we know the first 16 bytes.
        id: unique in the image.
        name: what the user called it.
    """

    entry: SnapshotEntry
    extra: bytes
    id: bytes
    name: bytes

    def disk_size(self, area: HeaderArea) -> int:
        """Bytes of the disk when it was taken; version 2 need not say: the disk's then."""
        if len(self.extra) < SnapshotExtra.SIZE:
            return area.header.size
        return SnapshotExtra.unpack(self.extra).disk_size

    @property
    def vm_state_size(self) -> int:
        """Bytes of a saved machine's memory."""
        if len(self.extra) < 8:
            return self.entry.vm_state_size
        return SnapshotExtra.unpack(self.extra.ljust(SnapshotExtra.SIZE, b"\0")).vm_state_size

    def info(self, area: HeaderArea) -> SnapshotInfo:
        """The same for users."""
        return SnapshotInfo(
            self.id.decode("utf-8", "replace"),
            self.name.decode("utf-8", "replace"),
            self.disk_size(area),
            self.entry.date_s + self.entry.date_ns / 1e9,
            self.vm_state_size,
        )

    def pack(self) -> bytes:
        """As it stands in the table, padded to the next entry."""
        entry = self.entry.replace(
            id_size=len(self.id), name_size=len(self.name), extra_data_size=len(self.extra)
        )
        data = entry.pack() + self.extra + self.id + self.name
        return data.ljust(align_up(len(data), 8), b"\0")


def read_table(storage: Storage, area: HeaderArea) -> tuple[Snapshot, ...]:
    """All snapshots of an image, oldest first.

    Raises:
        CorruptImageError: if the table does not lie in the file, or an entry makes no sense.
    """
    header = area.header
    if header.nb_snapshots == 0:
        return ()
    start = header.snapshots_offset
    length = min(storage.size - start, layout.SNAPSHOT_TABLE_BYTES_MAX)
    reader = _Reader(storage, start, max(0, length))
    return tuple(_read_entry(reader, storage, area) for _ in range(header.nb_snapshots))


class _Reader:
    """Reads ahead by blocks: a table of three entries should not cost 64 MiB."""

    def __init__(self, storage: Storage, start: int, length: int) -> None:
        self._storage = storage
        self._start = start
        self._length = length
        self._data = bytearray()
        self._position = 0

    @property
    def position(self) -> int:
        """Of the next byte, in the file."""
        return self._start + self._position

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        end = self._position + count
        if end > self._length:
            raise TruncatedImageError(
                f"snapshot table at 0x{self._start:x}: expected {count} bytes more, "
                "found the end of the file",
                name=self._storage.name,
                offset=self.position,
            )
        if end > len(self._data):
            more = min(self._length, align_up(end, 65536)) - len(self._data)
            piece = bytearray(more)
            self._storage.readinto(memoryview(piece), self._start + len(self._data))
            self._data += piece
        data = bytes(self._data[self._position : end])
        self._position = end
        return data

    def align(self) -> None:
        """Skip to the next multiple of 8."""
        self._position = align_up(self._position, 8)


def _read_entry(reader: _Reader, storage: Storage, area: HeaderArea) -> Snapshot:
    reader.align()
    at = reader.position
    entry = SnapshotEntry.unpack(reader.take(SnapshotEntry.SIZE))
    where = storage.name
    entry.require(
        "extra_data_size",
        entry.extra_data_size <= layout.SNAPSHOT_EXTRA_BYTES_MAX,
        f"at most 0x{layout.SNAPSHOT_EXTRA_BYTES_MAX:x}",
        where=where,
        at=at,
    )
    entry.require(
        "l1_size",
        entry.l1_size * 8 <= layout.L1_BYTES_MAX,
        f"at most 0x{layout.L1_BYTES_MAX // 8:x}",
        where=where,
        at=at,
    )
    snapshot = Snapshot(
        entry,
        reader.take(entry.extra_data_size),
        reader.take(entry.id_size),
        reader.take(entry.name_size),
    )
    if snapshot.disk_size(area) > DISK_SIZE_MAX:
        raise CorruptImageError(
            f"snapshot {snapshot.id!r}: expected a disk of at most 0x{DISK_SIZE_MAX:x} bytes",
            name=where,
            offset=at,
        )
    return snapshot
