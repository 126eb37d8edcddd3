"""Sparse extents, for reading: grains, the tables that place them, and the directory of those.

Three kinds of file share this: hosted sparse (``KDMV``), COWD and SESparse. They differ in the
size of their tables, and SESparse in the meaning of its entries, which are translated when a
table is loaded. A table's entry then is ``GTE_ABSENT``, ``GTE_ZERO`` or a sector.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TruncatedImageError
from imprint.core.extent import Extent, Kind
from imprint.core.limits import TABLE_CACHE_BYTES
from imprint.core.units import div_up
from imprint.formats.vmdk.layout import GRAIN_MARKER_BYTES, GTE_ABSENT, GTE_DATA, GTE_ZERO, SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Storage

_CUT_SLACK: Final = 64 << 10
"""How much longer than a grain its compressed form may be."""


@dataclass(frozen=True)
class Geometry:
    """What an extent's header says, checked.

    Attributes:
        size: of the part of the disk, in bytes.
        grain: in bytes.
        entries_per_table: grains that a table places.
        has_zeroed: whether ``GTE_ZERO`` is a grain of zeros; else it is damage.
        is_compressed: whether grains are compressed.
        has_markers: whether a marker stands before each.
    """

    size: int
    grain: int
    entries_per_table: int
    has_zeroed: bool = False
    is_compressed: bool = False
    has_markers: bool = False

    @property
    def grain_sectors(self) -> int:
        """The grain, in sectors."""
        return self.grain // SECTOR

    @property
    def grain_count(self) -> int:
        """The last one may be cut off by the disk's end."""
        return div_up(self.size, self.grain)

    @property
    def table_count(self) -> int:
        """Entries of the directory that count."""
        return div_up(self.grain_count, self.entries_per_table)


class GrainTables:
    """Tables by their number, loaded when asked for. Thread-safe.

    Attributes:
        directory: the sector of each table; 0: it has none.
    """

    def __init__(
        self,
        storage: Storage,
        directory: array[int],
        entries_per_table: int,
        *,
        entry_bytes: int = 4,
        translate: Callable[[array[int]], array[int]] | None = None,
    ) -> None:
        """``translate`` makes entries what this module calls entries."""
        self.directory = directory
        self._storage = storage
        self._table_bytes = entries_per_table * entry_bytes
        self._entry_bytes = entry_bytes
        self._translate = translate
        self._cache: OrderedDict[int, array[int]] = OrderedDict()
        self._cache_max = max(1, TABLE_CACHE_BYTES // (self._table_bytes + 128))
        self._lock = threading.Lock()

    def table(self, number: int) -> array[int] | None:
        """Its entries; ``None`` if the directory has no such table.

        Raises:
            TruncatedImageError: if the file ends before it does.
        """
        if not self.directory[number]:
            return None
        with self._lock:
            found = self._cache.get(number)
            if found is not None:
                self._cache.move_to_end(number)
                return found
        found = self.load(number, self.directory[number])
        with self._lock:
            found = self._cache.setdefault(number, found)
            while len(self._cache) > self._cache_max:
                self._cache.popitem(last=False)
        return found

    def empty_run(self, number: int, limit: int) -> int:
        """How many tables from ``number`` on, at most ``limit``, are a hole of the file: zeros.

        A disk of 30 TiB has half a million tables, most of which nobody has ever written.
        """
        start, step = self.directory[number] * SECTOR, self._table_bytes // SECTOR
        length = min(limit * self._table_bytes, self._storage.size - start)
        if not start or length < self._table_bytes or self._table_bytes % SECTOR:
            return 0
        hole = next(iter(self._storage.extents(start, length)))
        if hole.kind is not Kind.HOLE:
            return 0
        most, run = hole.length // self._table_bytes, 0
        while run < most and self.directory[number + run] == self.directory[number] + run * step:
            run += 1
        return run

    def written(self) -> Iterator[tuple[int, array[int]]]:
        """Number and content of each table that is not empty, read anew."""
        number, count = 0, len(self.directory)
        while number < count:
            sector = self.directory[number]
            table = self.load(number, sector) if sector else None
            number += 1
            if table is not None and any(table):
                yield number - 1, table
            elif number < count:
                number += self.empty_run(number, count - number)

    def forget(self) -> None:
        """Load all tables anew."""
        with self._lock:
            self._cache.clear()

    def load(self, number: int, sector: int) -> array[int]:
        """Read the table that is at ``sector``."""
        start = sector * SECTOR
        if start + self._table_bytes > self._storage.size:
            raise TruncatedImageError(
                f"grain table {number}: expected 0x{self._table_bytes:x} bytes at 0x{start:x}, "
                f"found a file of 0x{self._storage.size:x}",
                name=self._storage.name,
                offset=start,
            )
        entries = array("I" if self._entry_bytes == 4 else "Q", bytes(self._table_bytes))
        self._storage.readinto(memoryview(entries).cast("B"), start)
        if sys.byteorder == "big":
            entries.byteswap()
        return entries if self._translate is None else self._translate(entries)


def placed_tables(
    storage: Storage,
    directory: array[int],
    per_table: int,
    *,
    entry_bytes: int = 4,
    translate: Callable[[array[int]], array[int]] | None = None,
) -> GrainTables:
    """The tables that ``directory`` places, unless some of them have to be the same.

    Raises:
        CorruptImageError: if the file has no room for so many: one would stand for millions.
    """
    count = len(directory) - directory.count(0)
    if count * per_table * entry_bytes > storage.size:
        raise CorruptImageError(
            f"grain directory: expected at most {storage.size // (per_table * entry_bytes)} "
            f"tables in a file of {storage.size} bytes, found {count}",
            name=storage.name,
        )
    return GrainTables(storage, directory, per_table, entry_bytes=entry_bytes, translate=translate)


class SparsePart:
    """A sparse extent, for reading."""

    def __init__(self, storage: Storage, geometry: Geometry, tables: GrainTables) -> None:
        self._storage = storage
        self._geometry = geometry
        self._tables = tables

    @property
    def size(self) -> int:
        """As the header says."""
        return self._geometry.size

    @property
    def grain(self) -> int:
        """As the header says."""
        return self._geometry.grain

    @property
    def geometry(self) -> Geometry:
        """The header's facts."""
        return self._geometry

    @property
    def storages(self) -> tuple[Storage, ...]:
        """The file."""
        return (self._storage,)

    def table(self, number: int) -> array[int] | None:
        """A table's entries as they are now."""
        return self._tables.table(number)

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many grains of its table as lie alike.

        Raises:
            TruncatedImageError: if its grain begins behind the end of the file.
            CorruptImageError: if its entry makes no sense.
        """
        grain = self._geometry.grain
        index, within = divmod(offset, grain)
        number, first = divmod(index, self._geometry.entries_per_table)
        table = self.table(number)
        if table is None:
            run = self._missing_tables(number, first, div_up(within + length, grain))
            return Extent(offset, min(length, run * grain - within), Kind.HOLE)
        limit = min(len(table) - first, div_up(within + length, grain))
        entry = table[first]
        if entry == GTE_ZERO and not self._geometry.has_zeroed:
            raise self._wrong_entry(index, entry)
        if entry < GTE_DATA:
            run = _constant_run(table, first, limit)
            if entry == GTE_ABSENT and first + run == len(table):
                run += self._empty_grains(number + 1, div_up(within + length, grain) - run)
            kind = Kind.HOLE if entry == GTE_ABSENT else Kind.ZERO
            return Extent(offset, min(length, run * grain - within), kind)
        position = entry * SECTOR
        self._check_position(index, position)
        if self._geometry.is_compressed:
            run = 1
            while run < limit and table[first + run] >= GTE_DATA:
                run += 1
            inside = min(length, run * grain - within)
            return Extent(offset, inside, Kind.ENCODED, self._storage, position)
        run = self._data_run(table, first, limit)
        inside = min(length, run * grain - within)
        return Extent(offset, inside, Kind.DATA, self._storage, position + within)

    def unit(self, offset: int) -> Extent:
        """The compressed grain around ``offset``."""
        geometry = self._geometry
        index = offset // geometry.grain
        number, within = divmod(index, geometry.entries_per_table)
        table = self.table(number)
        entry = 0 if table is None else table[within]
        if entry < GTE_DATA:
            raise self._wrong_entry(index, entry)
        self._check_position(index, entry * SECTOR)
        start = index * geometry.grain
        length = min(geometry.grain, geometry.size - start)
        return Extent(start, length, Kind.ENCODED, self._storage, entry * SECTOR)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Inflate a grain.

        Raises:
            CorruptImageError: if its marker is another one's, or it is no sound zlib stream.
        """
        start = unit.storage_offset
        length = self._geometry.grain + _CUT_SLACK
        if self._geometry.has_markers:
            start += GRAIN_MARKER_BYTES
            length = self._marked_length(unit)
        stored = bytearray(max(0, min(length, self._storage.size - start)))
        self._storage.readinto(memoryview(stored), start)
        from imprint.formats.vmdk import inflate  # loads what only compressed extents need

        try:
            data = inflate.inflate(stored, self._geometry.grain)
        except CorruptImageError as failure:
            raise CorruptImageError(
                f"grain at 0x{unit.storage_offset:x}: {failure}",
                name=self._storage.name,
                offset=unit.storage_offset,
            ) from failure
        if len(data) < unit.length:
            raise CorruptImageError(
                f"grain at 0x{unit.storage_offset:x}: expected {unit.length} bytes, "
                f"found {len(data)}",
                name=self._storage.name,
                offset=unit.storage_offset,
            )
        buffer[:] = memoryview(data)[: unit.length]

    def _marked_length(self, unit: Extent) -> int:
        marker = bytearray(GRAIN_MARKER_BYTES)
        self._storage.readinto(memoryview(marker), unit.storage_offset)
        sector = int.from_bytes(marker[:8], "little")
        length = int.from_bytes(marker[8:], "little")
        if sector != unit.offset // SECTOR or not 0 < length <= self._geometry.grain + _CUT_SLACK:
            raise CorruptImageError(
                f"grain marker at 0x{unit.storage_offset:x}: expected sector "
                f"{unit.offset // SECTOR} and a length, found {sector} and {length}",
                name=self._storage.name,
                offset=unit.storage_offset,
            )
        return length

    def _missing_tables(self, number: int, first: int, limit: int) -> int:
        """Grains from ``first`` of a missing table on that are in no table, about ``limit``."""
        directory, per_table = self._tables.directory, self._geometry.entries_per_table
        run, end = per_table - first, self._geometry.table_count
        number += 1
        while run < limit and number < end and not directory[number]:
            run += per_table
            number += 1
        return run

    def _empty_grains(self, number: int, limit: int) -> int:
        """Grains of tables from ``number`` on that are known to be empty, about ``limit``."""
        per_table = self._geometry.entries_per_table
        tables = min(div_up(limit, per_table), self._geometry.table_count - number)
        return self._tables.empty_run(number, tables) * per_table if tables > 0 else 0

    def _data_run(self, table: array[int], first: int, limit: int) -> int:
        """Entries from ``first`` on that follow each other in the file."""
        step, entry, run = self._geometry.grain_sectors, table[first], 1
        while run < limit and table[first + run] == entry + run * step:
            run += 1
        return run

    def _check_position(self, index: int, position: int) -> None:
        if position >= self._storage.size:
            raise TruncatedImageError(
                f"grain {index}: expected data at 0x{position:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )

    def _wrong_entry(self, index: int, entry: int) -> CorruptImageError:
        return CorruptImageError(
            f"grain {index}: expected 0 or the sector of its data, found {entry}",
            name=self._storage.name,
        )


def _constant_run(table: array[int], first: int, limit: int) -> int:
    """Entries from ``first`` on that are equal."""
    entry, run = table[first], 1
    if first == 0 and limit == len(table) and table.count(entry) == limit:
        return limit
    while run < limit and table[first + run] == entry:
        run += 1
    return run
