"""Which places of a sparse extent file are taken: by a grain, or by anything else.

A place (slot) is as long as a grain. VMDK keeps no list of free ones: it is made anew, from
all tables, when an extent is opened for writing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import CorruptImageError, TargetError, UnsupportedFeatureError
from imprint.core.units import div_up
from imprint.formats.vmdk.layout import FLAG_REDUNDANT, GTE_DATA, GTE_ZERO, SECTOR, SECTOR_MAX

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.vmdk.headers import SparseFile
    from imprint.formats.vmdk.layout import SparseHeader

SLOTS_MAX: Final = 1 << 26
"""At a byte each: twice what a file of 2 TiB has in grains of 64 KiB."""

TABLES_MAX: Final = 1 << 20

_PHASE_TABLES: Final = 4096
"""Tables that are searched for a grain; one of them will do, unless all are of zeros."""

_FREE: Final = b"\0"
_TABLES: Final = 1
_GRAIN: Final = 2


class Slots:
    """Gives out places, the first free one first."""

    def __init__(self, name: str, grain_sectors: int, phase: int, taken: bytearray) -> None:
        """``phase`` is the sector of slot 0."""
        self._name = name
        self._grain_sectors = grain_sectors
        self._phase = phase
        self._taken = taken
        self._first_free = 0

    @classmethod
    def fresh(cls, name: str, grain_sectors: int, overhead: int) -> Self:
        """Of an extent without grains, whose tables end at the sector ``overhead``."""
        return cls(name, grain_sectors, 0, bytearray([_TABLES]) * div_up(overhead, grain_sectors))

    @property
    def end(self) -> int:
        """Bytes that a file has that holds all slots."""
        return self.sector(len(self._taken)) * SECTOR

    def sector(self, slot: int) -> int:
        """Where a slot begins."""
        return self._phase + slot * self._grain_sectors

    def take(self, count: int) -> tuple[int, int]:
        """The first sector of some slots that lie together, and how many they are."""
        at = self._taken.find(_FREE, self._first_free)
        if at < 0:
            self._first_free = len(self._taken)
            return self.append(count), count
        run = 1
        while run < count and at + run < len(self._taken) and not self._taken[at + run]:
            run += 1
        self._taken[at : at + run] = bytes([_GRAIN]) * run
        self._first_free = at + run
        return self.sector(at), run

    def append(self, count: int) -> int:
        """The first sector of ``count`` slots behind all others.

        Raises:
            TargetError: if the file would be longer than its entries can say.
        """
        first = len(self._taken)
        if self.sector(first + count) > SECTOR_MAX:
            raise TargetError("expected an extent file of at most 2 TiB", name=self._name)
        self._taken.extend(bytes([_GRAIN]) * count)
        return self.sector(first)

    def give_back(self, sector: int) -> None:
        """Let the slot at ``sector`` be taken again."""
        slot = (sector - self._phase) // self._grain_sectors
        self._taken[slot] = 0
        self._first_free = min(self._first_free, slot)


class Census:
    """Reads all tables of an extent and notes what they place where."""

    def __init__(self, storage: Storage, file: SparseFile, redundant: array[int] | None) -> None:
        """Raises what :meth:`take_in` does not find.

        Raises:
            UnsupportedFeatureError: if the extent is too large to be told apart in memory.
        """
        assert file.header is not None
        self._storage = storage
        self._file = file
        self._redundant = redundant
        geometry = file.geometry
        self.phase = self._find_phase()
        sectors = div_up(storage.size, SECTOR)
        self.count = max(0, div_up(sectors - self.phase, geometry.grain_sectors))
        if self.count > SLOTS_MAX or len(file.tables.directory) > TABLES_MAX:
            raise UnsupportedFeatureError(
                "is too large to be changed", name=storage.name, advice="copy it into a new image"
            )
        self.taken = bytearray(self.count)
        for start, length in self._metadata(file.header):
            self._mark(start, length)

    def slots(self) -> Slots:
        """What is free.

        Raises:
            CorruptImageError: for the first thing that is wrong.
        """
        for _, what in self.wrong():
            raise CorruptImageError(
                what,
                name=self._storage.name,
                advice="it can be read, and copied into a new image",
            )
        return Slots(self._storage.name, self._file.geometry.grain_sectors, self.phase, self.taken)

    def wrong(self) -> Iterator[tuple[int, str]]:
        """Take in all grains; each that is not sound, with its number."""
        tables, per_table = self._file.tables, self._file.geometry.entries_per_table
        seen: set[int] = set()
        is_shared = False
        for number, sector in enumerate(tables.directory):
            if sector in seen:
                is_shared = True
                what = f"expected a place of its own, found 0x{sector:x}"
                yield number * per_table, f"grain table {number}: {what}"
            elif sector:
                seen.add(sector)
        if is_shared:  # one table may stand for a million: its grains would be all wrong
            return
        for number, table in tables.written():
            yield from self._wrong_entries(number * per_table, table)

    def _wrong_entries(self, first: int, table: array[int]) -> Iterator[tuple[int, str]]:
        geometry, step, phase = self._file.geometry, self._file.geometry.grain_sectors, self.phase
        for index, entry in enumerate(table[: geometry.grain_count - first], first):
            if entry < GTE_DATA:
                if entry == GTE_ZERO and not geometry.has_zeroed:
                    yield index, f"grain {index}: expected 0 or a sector, found 1"
                continue
            slot, rest = divmod(entry - phase, step)
            what = ""
            if rest:
                what = f"a sector that is {phase} above a multiple of {step}"
            elif not 0 <= slot < self.count:
                what = f"a place inside the file of {self._storage.size} bytes"
            elif self.taken[slot]:
                what = "a place of its own"
            else:
                self.taken[slot] = _GRAIN
            if what:
                yield index, f"grain {index}: expected {what}, found sector 0x{entry:x}"

    def _find_phase(self) -> int:
        """The sector of slot 0: where the grains' borders are, seen from the file's start."""
        for _, table in islice(self._file.tables.written(), _PHASE_TABLES):
            found = next((entry for entry in table if entry >= GTE_DATA), 0)
            if found:
                return found % self._file.geometry.grain_sectors
        return 0

    def _metadata(self, header: SparseHeader) -> Iterator[tuple[int, int]]:
        """First sector and length of all that is no grain."""
        yield 0, 1
        if header.descriptor_offset:
            yield header.descriptor_offset, header.descriptor_size
        directory = self._file.tables.directory
        sectors = div_up(4 * len(directory), SECTOR)
        table = div_up(4 * self._file.geometry.entries_per_table, SECTOR)
        yield header.directory_offset, sectors
        yield from ((sector, table) for sector in directory if sector)
        if self._redundant is not None:
            yield header.redundant_offset, sectors
            yield from ((sector, table) for sector in self._redundant if sector)

    def _mark(self, start: int, length: int) -> None:
        step = self._file.geometry.grain_sectors
        first = max(0, (start - self.phase) // step)
        last = min(self.count, div_up(start + length - self.phase, step))
        if first < last:
            self.taken[first:last] = bytes([_TABLES]) * (last - first)


def has_redundant(header: SparseHeader) -> bool:
    """Whether there is a second directory, with tables of its own."""
    return bool(
        header.flags & FLAG_REDUNDANT
        and header.redundant_offset
        and header.redundant_offset != header.directory_offset
    )


def runs(numbers: Iterable[int], directory: array[int], step: int, limit: int) -> Iterator[range]:
    """Numbers of tables that follow each other, and whose places do, ``limit`` at most."""
    start = last = -1
    for number in numbers:
        follows = (
            start >= 0
            and number == last + 1
            and directory[number] == directory[last] + step
            and number - start < limit
        )
        if not follows:
            if start >= 0:
                yield range(start, last + 1)
            start = number
        last = number
    if start >= 0:
        yield range(start, last + 1)
