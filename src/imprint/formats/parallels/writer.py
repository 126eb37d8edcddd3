"""Writing a Parallels image: free slots first, then new ones at the file's end.

What is on the disk is old or new at any moment:

1. New data goes to slots that the table in the file does not name; flush.
2. The table; flush. Each entry is old or new, and both are right.
3. Only now are slots free that the table has stopped to name: they become holes, are used
   again, or are cut off with the file's end.

The "in use" mark is not set: it tells other programs that the table may be wrong, which it
never is.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    RefusedError,
    TargetError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.tables import PagedTable, stored
from imprint.core.units import align_up, div_up
from imprint.formats.parallels.layer import ParallelsLayer, read_image
from imprint.formats.parallels.layout import (
    BAT_ENTRIES_MAX,
    IN_USE,
    SECTOR_BYTES,
    Header,
)
from imprint.formats.parallels.slots import Slots, table_room

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

FLAG_EMPTY: Final = 1
_ENTRY_MAX: Final = 0xFFFFFFFF


class WritableParallelsLayer(ParallelsLayer):
    """An image opened for writing; see :class:`~imprint.core.contracts.WritableLayer`."""

    def __init__(self, storage: Storage, header: Header, bat: PagedTable, slots: Slots) -> None:
        """``slots`` has taken what ``bat`` names."""
        super().__init__(storage, header, bat)
        self._slots = slots
        self._freed: list[int] = []
        self._stored: Header | None = header  # None: unknown, a write of it has failed

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten; they may lie in more than one cluster."""
        index, within = divmod(offset, self._header.cluster_size)
        if self._bat.entries[index] == 0:
            return None
        return self._place(offset, length, index, within)

    def allocate(self, offset: int, length: int) -> Extent:
        """Free slots in a row, for clusters that have none.

        Raises:
            TargetError: if the file would be larger than entries can say.
        """
        size = self._header.cluster_size
        index = offset // size
        wanted = self._bat.run(index, div_up(length, size))
        slot, count = self._slots.reserve(wanted)
        if self._slots.entry(slot + count - 1) > _ENTRY_MAX:
            raise TargetError("has no place left that its table can name", name=self._storage.name)
        position = self._slots.position(slot)
        return Extent(offset, min(length, count * size), Kind.DATA, self._storage, position)

    def link(self, extent: Extent) -> None:
        """Enter slots into the table."""
        index = extent.offset // self._header.cluster_size
        slot = (extent.storage_offset - self._slots.base) // self._header.cluster_size
        for step in range(div_up(extent.length, self._header.cluster_size)):
            self._bat.set(index + step, self._slots.entry(slot + step))

    def zero(self, offset: int, length: int) -> None:
        """Take clusters out of the table."""
        size = self._header.cluster_size
        index, end = offset // size, div_up(offset + length, size)
        while index < end:
            entry = self._bat.entries[index]
            if entry == 0:
                index += self._bat.run(index, end - index)
                continue
            self._freed.append(self._slots.slot(entry))
            self._bat.set(index, 0)
            index += 1

    def flush(self) -> None:
        """Write back the table in the order that the module describes."""
        self._complete_last_slot()
        if self._header != self._stored:
            self._write_header(self._header)
        self._storage.flush()
        if self._bat.dirty:
            self._bat.write_back(self._storage, Header.SIZE)
            self._storage.flush()
        self._release()

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros. Durable when this returns.

        Raises:
            UsageError: if the format cannot hold a disk of that size.
            UnsupportedFeatureError: if the table has no room to grow.
        """
        check_size(size, self._header)
        self.flush()
        if size < self.size:
            self._shrink(size)
        elif size > self.size:
            self._grow(size)

    def clear_empty_flag(self) -> None:
        """From the next flush on, the header no longer calls the disk empty."""
        self._header = self._header.replace(flags=self._header.flags & ~FLAG_EMPTY)

    def _complete_last_slot(self) -> None:
        """Let the file reach the last slot's end: a disk's last cluster may be written in part."""
        if self._storage.size < self._slots.end and self._slots.taken:
            self._storage.resize(self._slots.end)

    def _write_header(self, header: Header) -> None:
        """One sector, or a part of it: old or new."""
        self._stored = None
        self._storage.write(memoryview(header.pack()), 0)
        self._stored = self._header = header

    def _release(self) -> None:
        """Give back what the table in the file names no more."""
        if not self._freed:
            return
        freed, self._freed = self._freed, []
        for slot in self._slots.release(freed):
            self._storage.zero(self._slots.position(slot), self._header.cluster_size)
        if self._storage.size > self._slots.end:
            self._storage.resize(self._slots.end)

    def _shrink(self, size: int) -> None:
        """The header first: clusters behind the end may go only when it no longer counts them."""
        header = self._sized(size)
        gone = self._bat.entries[header.bat_entries :]
        self._switch(header, self._bat.entries[: header.bat_entries])
        self._freed += [self._slots.slot(entry) for entry in gone if entry]
        self._release()

    def _grow(self, size: int) -> None:
        header = self._sized(size)
        if header.bat_entries > table_room(self._slots.base, Header.SIZE):
            raise UnsupportedFeatureError(
                f"expected room for a table of {header.bat_entries} entries before the data at "
                f"0x{self._slots.base:x}",
                name=self._storage.name,
                advice="convert the image to one of the new size",
            )
        self._clear_tail()
        old_count = div_up(self.size, self._header.cluster_size)
        # A table may have more entries than the disk has clusters; they are forgotten here.
        gone = self._bat.entries[old_count:]
        bat = self._bat.entries[:old_count]
        bat.extend(array("I", [0]) * (header.bat_entries - old_count))
        # Behind what the old header counts, so that nobody sees it before the new one.
        self._storage.write(stored(bat[old_count:], "little"), Header.SIZE + 4 * old_count)
        self._storage.flush()
        self._switch(header, bat)
        self._freed += [self._slots.slot(entry) for entry in gone if entry]
        self._release()

    def _switch(self, header: Header, bat: array[int]) -> None:
        self._write_header(header)
        self._bat = PagedTable(bat, "little")
        self._storage.flush()

    def _sized(self, size: int) -> Header:
        sector_count = size // SECTOR_BYTES
        return self._header.replace(
            disk_sectors=sector_count,
            cylinders=cylinders(sector_count),
            bat_entries=div_up(size, self._header.cluster_size),
            # It would be computed from the table's length if it were 0.
            data_sector=self._header.data_sector or self._slots.base // SECTOR_BYTES,
        )

    def _clear_tail(self) -> None:
        """Zero what the last cluster has behind the disk's end: it becomes part of the disk."""
        index, within = divmod(self.size, self._header.cluster_size)
        if within and self._bat.entries[index]:
            start = self._bat.entries[index] * self._header.unit_bytes
            self._storage.zero(start + within, self._header.cluster_size - within)


def cylinders(sector_count: int) -> int:
    """Of a disk with 16 heads and 32 sectors per track, which is what QEMU writes."""
    return min(sector_count // (16 * 32), 0xFFFFFFFF)


def check_size(size: int, header: Header) -> None:
    """Refuse a disk that the format cannot hold.

    Raises:
        UsageError: if it cannot.
    """
    if size % SECTOR_BYTES:
        raise UsageError(
            f"parallels: expected a size in whole sectors of 512 bytes, found {size}",
            advice=f"pad the disk with zeros first, to {align_up(size, SECTOR_BYTES)} bytes",
        )
    limit = BAT_ENTRIES_MAX * header.cluster_size
    if header.is_v1:
        limit = min(limit, _ENTRY_MAX * SECTOR_BYTES)
    if size > limit:
        raise UsageError(
            f"parallels: expected at most {limit} bytes in clusters of {header.cluster_size}, "
            f"found {size}"
        )


def edit_layer(storage: Storage) -> WritableParallelsLayer:
    """Open for writing: every entry of the table is checked.

    Raises:
        CorruptImageError: also if two clusters share a place, or one is not in the file.
        RefusedError: if another program has it open, or has not closed it.
        UnsupportedFeatureError: also if it has an extension, which would become wrong.
    """
    header, bat = read_image(storage)
    if header.in_use == IN_USE:
        raise RefusedError(
            "is in use, or was not closed properly",
            name=storage.name,
            advice="imprint check --repair clears the mark if the image is sound",
        )
    if header.extension_sector:
        raise UnsupportedFeatureError(
            "has an extension (dirty bitmaps) that would become wrong",
            name=storage.name,
            advice="convert it into a new image",
        )
    slots = Slots(storage, header)
    for index, problem in slots.take_all(bat.entries):
        raise CorruptImageError(
            f"cluster {index}: {problem}",
            name=storage.name,
            offset=Header.SIZE + 4 * index,
            advice="it can be read, and copied into a new image",
        )
    del slots.taken[slots.taken.rfind(1) + 1 :]
    layer = WritableParallelsLayer(storage, header, bat, slots)
    layer.clear_empty_flag()
    return layer
