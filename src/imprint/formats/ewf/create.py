"""Writing E01: chunks front to back, a table behind each group of them, file after file.

::

    header2 ×2 | header | volume | sectors, table, table2 | … | next        first segment
    data | sectors, table, table2 | … | error2, digest, hash, done          last segment
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TargetError
from imprint.core.formats import Measure
from imprint.core.tables import stored
from imprint.formats.ewf import codec, headers
from imprint.formats.ewf.layout import (
    CHECKSUM_BYTES,
    FLAG_COMPRESSED,
    MAGIC_E01,
    OFFSET_MASK,
    Descriptor,
    FileHeader,
    TableHeader,
    describe,
    sealed,
    section,
    with_checksum,
)
from imprint.formats.ewf.options import plan
from imprint.formats.ewf.segmented import TAIL_BYTES, SegmentedTarget, fitting

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.formats import CreateSpec
    from imprint.core.runs import Runs
    from imprint.formats.ewf.options import Plan

_ENTRIES_MAX_OLD: Final = 16_375
_ENTRIES_MAX: Final = 65_534
_ERROR_MAX: Final = 0xFFFF_FFFF
_ENTRY_BYTES: Final = 4


def create(storage: Storage, spec: CreateSpec) -> E01Target:
    """Begin a new image.

    Raises:
        UsageError: if the options make no sense.
        RefusedError: if a second segment is there of an image that may not be replaced.
    """
    made = plan(spec)
    return E01Target(storage, made, headers.marks(made, spec), spec.opener)


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Every chunk as it is; E01 has no holes, so all of the disk counts."""
    del source
    made = plan(spec)
    chunk = made.chunk_size + CHECKSUM_BYTES + 2 * _ENTRY_BYTES
    groups = 2 + made.chunks // _ENTRIES_MAX_OLD + made.size // (OFFSET_MASK - made.chunk_size)
    segments = 1 + made.size // max(1, made.segment_size - TAIL_BYTES - 2 * chunk)
    total = made.chunks * chunk + (groups + segments) * 1024 + segments * 2 * TAIL_BYTES
    total += 2 * sum(len(value) for value in made.case.values())
    return Measure(total, total)


class E01Target(SegmentedTarget):
    """A new image of version 1."""

    def __init__(self, storage: Storage, made: Plan, marks: headers.Marks, opener: Opener) -> None:
        """Writes what is in front of the chunks."""
        self._packed_zeros: dict[int, bytes] = {}
        self._entries = array("I")
        super().__init__(storage, made, marks, opener)

    def _zeros(self, length: int) -> bytes:
        found = self._packed_zeros.get(length)
        if found is None:
            zeros = memoryview(bytes(length))
            level = self._made.level if self._made.level is not None else codec.FAST_LEVEL
            found = codec.pack(zeros, level) if self._made.packs_zeros else codec.store(zeros)
            self._packed_zeros[length] = found
        return found

    def _sizes(self, units: list[bytes]) -> list[int]:
        return list(map(len, units))

    def _fitting(self, ends: list[int]) -> int:
        is_old = self._made.is_old
        held = len(self._entries)
        tables = 2 * (Descriptor.SIZE + TableHeader.SIZE + CHECKSUM_BYTES + _ENTRY_BYTES * held)
        return fitting(
            ends,
            room=(_ENTRIES_MAX_OLD if is_old else _ENTRIES_MAX) - held,
            reach=OFFSET_MASK if is_old else self._start + OFFSET_MASK,
            table_bytes=tables,
            entry_bytes=2 * _ENTRY_BYTES,
            limit=self._made.segment_size,
        )

    def _is_full(self, length: int) -> bool:
        needed = length + 3 * Descriptor.SIZE + 2 * (TableHeader.SIZE + 8) + TAIL_BYTES
        return self._position + needed > self._made.segment_size

    def _put(self, units: list[bytes], ends: list[int]) -> None:
        base = 0 if self._made.is_old else self._start
        for number, unit in enumerate(units):
            is_stored = self._is_stored(unit, self._next_unit + number)
            self._entries.append(ends[number] - base | (0 if is_stored else FLAG_COMPRESSED))
        self._append(b"".join(units))

    def _begin_segment(self, number: int) -> None:
        self._append(FileHeader(signature=MAGIC_E01, segment=number).pack())
        if number == 1:
            self._append(headers.head(self._made, self._marks, self._position))
        else:
            self._append_data()

    def _begin_group(self) -> None:
        self._start = self._position
        self._entries = array("I")
        self._position += Descriptor.SIZE

    def _finish_group(self) -> None:
        """Write the descriptor in front of the chunks and both tables behind them."""
        if not self._entries:
            self._position = self._start
            return
        length = self._position - self._start - Descriptor.SIZE
        described = describe(b"sectors", self._start, length)
        self._files[-1].write(memoryview(described), self._start)
        base = 0 if self._made.is_old else self._start
        table = sealed(TableHeader(entries=len(self._entries), base=base))
        table += with_checksum(bytes(stored(self._entries, "little")))
        self._append(section(b"table", table, self._position))
        self._append(section(b"table2", table, self._position))
        self._entries = array("I")

    def _finish_set(self) -> None:
        needed = 8 * len(self._bad) + 32 * len(self._made.tracks) + TAIL_BYTES
        if self._position + needed > self._made.segment_size:
            self._next_segment()
        if len(self._files) == 1:
            self._append_data()
        if self._made.tracks:
            self._append(headers.sessions(self._made.tracks, self._position))
        if self._bad:
            self._append(headers.errors(self._bad, self._position))
        self._append(headers.hashes(self._made, self._hashes, self._position))
        self._end_segment(is_last=True)

    def _end_segment(self, *, is_last: bool) -> None:
        kind = b"done" if is_last else b"next"
        self._append(describe(kind, self._position, 0, is_last=True))

    def _append_data(self) -> None:
        self._append(headers.volume(b"data", self._made, self._marks, self._position))

    def _sectors(self, bad: Runs) -> list[tuple[int, int]]:
        sector = self._made.sector_size
        found = []
        for start, length in bad.widened(sector):
            first, count = start // sector, min(length, self.size - start) // sector
            if first > _ERROR_MAX or count > _ERROR_MAX:
                raise TargetError(
                    f"e01 can name bad sectors up to {_ERROR_MAX} only, found {first}",
                    name=self.name,
                    advice="larger sectors (-o sector_size=4096), or another format",
                )
            found.append((first, count))
        return found
