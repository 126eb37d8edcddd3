"""The table of internal snapshots: parsed, and laid out again.

Source: QEMU ``docs/interop/qcow2.txt``, *Snapshots*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError, TruncatedImageError
from imprint.core.info import SnapshotInfo
from imprint.core.units import KIB, align_up
from imprint.formats.qcow2 import layout
from imprint.formats.qcow2.layout import SnapshotEntry, SnapshotExtra
from imprint.formats.qcow2.mapping import L1View

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.header import HeaderArea

_READ_BYTES = 64 * KIB


@dataclass(frozen=True)
class Snapshot:
    """An entry of the snapshot table.

    Attributes:
        entry: the fixed part; its sizes are set anew by :meth:`pack`.
        extra: the extra data as it is, known fields and others.
        id: unique in the image.
        name: what the user called it.
    """

    entry: SnapshotEntry
    extra: bytes
    id: bytes
    name: bytes

    @property
    def disk_size(self) -> int | None:
        """Of the disk at that time; ``None`` where an old writer did not say it."""
        if len(self.extra) < SnapshotExtra.SIZE:
            return None
        return SnapshotExtra.unpack(self.extra).disk_size

    @property
    def vm_state_size(self) -> int:
        """Bytes of the saved machine state."""
        if len(self.extra) >= 8:
            return int.from_bytes(self.extra[:8], "big")
        return self.entry.vm_state_size

    def view(self, area: HeaderArea) -> L1View:
        """The L1 table of the snapshot; without a size of its own it has the disk's."""
        size = self.disk_size
        disk_size = area.header.size if size is None else size
        return L1View(self.entry.l1_table_offset, self.entry.l1_size, disk_size)

    def info(self, area: HeaderArea) -> SnapshotInfo:
        """For people."""
        return SnapshotInfo(
            id=self.id.decode("utf-8", "surrogateescape"),
            name=self.name.decode("utf-8", "surrogateescape"),
            size=self.view(area).disk_size,
            time_s=self.entry.date_s + self.entry.date_ns / 1e9,
            vm_state_size=self.vm_state_size,
        )

    def pack(self) -> bytes:
        """The whole entry, padded."""
        entry = self.entry.replace(
            id_size=len(self.id), name_size=len(self.name), extra_data_size=len(self.extra)
        )
        data = entry.pack() + self.extra + self.id + self.name
        return data.ljust(align_up(len(data), 8), b"\0")


def read(area: HeaderArea, storage: Storage) -> tuple[list[Snapshot], int]:
    """All snapshots in the order of the table, and the table's length in bytes.

    Raises:
        CorruptImageError: if the table is damaged.
    """
    reader = _Reader(storage, area.header.snapshots_offset)
    found = []
    for _ in range(area.header.nb_snapshots):
        start = reader.position
        entry = SnapshotEntry.unpack(reader.take(SnapshotEntry.SIZE))
        entry.require(
            "extra_data_size",
            entry.extra_data_size <= layout.SNAPSHOT_EXTRA_BYTES_MAX,
            f"at most 0x{layout.SNAPSHOT_EXTRA_BYTES_MAX:x}",
            where=storage.name,
            at=area.header.snapshots_offset + start,
        )
        entry.require(
            "l1_size",
            entry.l1_size * 8 <= layout.L1_BYTES_MAX,
            f"at most 0x{layout.L1_BYTES_MAX // 8:x}",
            where=storage.name,
            at=area.header.snapshots_offset + start,
        )
        extra = reader.take(entry.extra_data_size)
        found.append(
            Snapshot(entry, extra, reader.take(entry.id_size), reader.take(entry.name_size))
        )
        reader.skip_to(align_up(reader.position, 8))
        if reader.position > layout.SNAPSHOT_TABLE_BYTES_MAX:
            raise CorruptImageError(
                f"snapshot table: expected at most {layout.SNAPSHOT_TABLE_BYTES_MAX} bytes",
                name=storage.name,
            )
    return found, reader.position


class _Reader:
    """Reads ahead in blocks, since entries have no fixed length."""

    def __init__(self, storage: Storage, start: int) -> None:
        self._storage = storage
        self._start = start
        self._block = b""
        self._block_start = 0
        self.position = 0

    def take(self, length: int) -> bytes:
        begin = self.position - self._block_start
        if begin + length > len(self._block):
            self._fill(length)
            begin = 0
        self.position += length
        return self._block[begin : begin + length]

    def skip_to(self, position: int) -> None:
        self.position = position

    def _fill(self, length: int) -> None:
        offset = self._start + self.position
        size = min(max(length, _READ_BYTES), self._storage.size - offset)
        if size < length:
            raise TruncatedImageError(
                f"snapshot table: expected {length} bytes at 0x{offset:x}, found the file's end",
                name=self._storage.name,
                offset=offset,
            )
        block = bytearray(size)
        self._storage.readinto(memoryview(block), offset)
        self._block = bytes(block)
        self._block_start = self.position
