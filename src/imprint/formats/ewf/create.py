"""Writing E01: chunks front to back, a table behind each group of them, file after file.

::

    header2 ×2 | header | volume | sectors, table, table2 | … | next        first segment
    data | sectors, table, table2 | … | error2, digest, hash, done          last segment

Nothing shows before all of it is whole, and the first segment, which is what people open,
shows last. It cannot be resumed: hashes of what was written are not kept.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from imprint.core.ascending import AscendingUnits
from imprint.core.buffers import is_zero
from imprint.core.contracts import FileMaking, Order, Reference, Traits
from imprint.core.errors import TargetError
from imprint.core.formats import Measure
from imprint.core.runs import Runs
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
from imprint.formats.ewf.naming import Names
from imprint.formats.ewf.options import plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.extent import Extent
    from imprint.core.formats import CreateSpec
    from imprint.formats.ewf.options import Plan

_ENTRIES_MAX_OLD: Final = 16_375
_ENTRIES_MAX: Final = 65_534
_TAIL_BYTES: Final = 4096
"""Room that is kept for what ends a segment, but for its tables and long lists."""

_ZEROS_AT_ONCE: Final = 4096
_ERROR_MAX: Final = 0xFFFF_FFFF


def create(storage: Storage, spec: CreateSpec) -> E01Target:
    """Begin a new image.

    Raises:
        UsageError: if the options make no sense.
        RefusedError: if a second segment is there of an image that may not be replaced.
    """
    made = plan(spec)
    old = old_segments(storage, spec.opener)
    marks = headers.marks(made, spec)
    return E01Target(storage, made, marks, spec.opener, old)


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Every chunk as it is; E01 has no holes, so all of the disk counts."""
    del source
    made = plan(spec)
    chunk = made.chunk_size + CHECKSUM_BYTES + 2 * 4
    groups = 2 + made.chunks // _ENTRIES_MAX_OLD + made.size // (OFFSET_MASK - made.chunk_size)
    segments = 1 + made.size // max(1, made.segment_size - _TAIL_BYTES - 2 * chunk)
    total = made.chunks * chunk + (groups + segments) * 1024 + segments * 2 * _TAIL_BYTES
    total += 2 * sum(len(value) for value in made.case.values())
    return Measure(total, total)


def old_segments(storage: Storage, opener: Opener) -> list[str]:
    """Names of the further segments of the image whose place ``storage`` will take.

    Raises:
        RefusedError: if there are some that may not be replaced: they would be taken for a
            part of the new image.
    """
    names = Names(storage.name)
    if not names.is_first or not isinstance(opener, FileMaking):
        return []
    found: list[str] = []
    for number in range(2, names.count_max + 1):
        name = names.name(number)
        if not _is_there(name, names.suffix(number), storage, opener):
            break
        found.append(name)
    if found:  # refused before the copy, and not after an hour
        opener.make_file(found[0], storage, is_extra=False).abort()
    return found


def _is_there(name: str, suffix: str, storage: Storage, opener: Opener) -> bool:
    is_there = False
    for sibling in opener.siblings(storage, suffix):
        is_there |= sibling.name.replace("\\", "/").rpartition("/")[2] == name
        sibling.close()
    return is_there


class E01Target(AscendingUnits):
    """A new image; see :class:`~imprint.core.contracts.Encoding` and ``Documenting``."""

    wanted_hashes = ("md5", "sha1")

    def __init__(
        self,
        storage: Storage,
        made: Plan,
        marks: headers.Marks,
        opener: Opener,
        old: list[str],
    ) -> None:
        """Writes what is in front of the chunks; ``old`` are files to remove in the end."""
        super().__init__(made.chunk_size)
        self._files = [storage]
        self._made = made
        self._marks = marks
        self._opener = opener
        self._old = old
        self._names = Names(storage.name)
        self._packed_zeros: dict[int, bytes] = {}
        self._entries = array("I")
        self._start = 0  # of the group at hand
        self._position = 0
        self._hashes: Mapping[str, str] = {}
        self._bad: list[tuple[int, int]] = []
        self._append(FileHeader(signature=MAGIC_E01, segment=1).pack())
        self._append(headers.head(made, marks, self._position))
        self._begin_group()

    @property
    def name(self) -> str:
        """Path or address of the first segment."""
        return self._files[0].name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._made.size

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out is zeros."""
        return Traits(
            grain=self._grain,
            logical_sector=self._made.sector_size,
            order=Order.ASCENDING,
            reads_zero=True,
        )

    def document(self, hashes: Mapping[str, str], bad: Iterable[Extent]) -> None:
        """Keep hashes and bad areas of the disk, to be written in the end.

        Raises:
            TargetError: if an area lies where the format cannot name it.
        """
        self._hashes = hashes
        self._bad = self._sectors(Runs.of((extent.offset, extent.length) for extent in bad))

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Pack chunks; an empty one stands for zeros."""
        assert offset % self._grain == 0
        level = self._made.level
        units = []
        for start in range(0, len(data), self._grain):
            chunk = data[start : start + self._grain]
            if is_zero(chunk):
                units.append(b"")
            else:
                units.append(codec.store(chunk) if level is None else codec.pack(chunk, level))
        return units

    def commit(self) -> None:
        """Write what ends the set, and let all segments take their names, the first one last."""
        self._finish_partial()
        self._append_units([], self._made.chunks)
        self._finish_group()
        self._finish_set()
        for file in self._files[1:]:
            file.flush()
        for file in (*self._files[1:], self._files[0]):
            file.commit()
        self._remove_old()

    def abort(self) -> None:
        """Remove all segments."""
        for file in self._files:
            file.abort()

    def _append_units(self, units: list[bytes], index: int) -> None:
        """Append chunks from number ``index`` on, and zeros up to there."""
        while self._next_unit < index:
            count = min(_ZEROS_AT_ONCE, index - self._next_unit)
            self._add([b""] * count)
        self._add(units)

    def _add(self, units: list[bytes]) -> None:
        """Append chunks, in as few writes as groups and segments permit."""
        units = [
            unit or self._zeros(self._length(number))
            for number, unit in enumerate(units, self._next_unit)
        ]
        done = 0
        while done < len(units):
            ends = list(accumulate(map(len, units[done:]), initial=self._position))
            count = self._fitting(ends)
            if not count:
                self._finish_group()
                if self._is_full(len(units[done])):
                    self._next_segment()
                self._begin_group()
                continue
            last = self._made.chunks - 1
            stored_length = self._grain + CHECKSUM_BYTES
            base = 0 if self._made.is_old else self._start
            for number, at in enumerate(ends[:count], done):
                is_last = self._next_unit == last
                as_is = self._length(last) + CHECKSUM_BYTES if is_last else stored_length
                flag = 0 if len(units[number]) == as_is else FLAG_COMPRESSED
                self._entries.append(at - base | flag)
                self._next_unit += 1
            self._append(b"".join(units[done : done + count]))
            done += count

    def _fitting(self, ends: list[int]) -> int:
        """How many chunks have room in group and segment; ``ends`` begins with the position."""
        made = self._made
        room = (_ENTRIES_MAX_OLD if made.is_old else _ENTRIES_MAX) - len(self._entries)
        count = min(len(ends) - 1, room)
        reach = OFFSET_MASK if made.is_old else self._start + OFFSET_MASK
        while count:
            tables = 2 * (Descriptor.SIZE + TableHeader.SIZE + CHECKSUM_BYTES)
            tables += 2 * 4 * (len(self._entries) + count)
            if ends[count] + tables + _TAIL_BYTES <= made.segment_size and ends[count] <= reach:
                return count
            count -= 1
        return 0

    def _is_full(self, length: int) -> bool:
        """Whether not even one chunk more fits into the segment."""
        needed = length + 3 * Descriptor.SIZE + 2 * (TableHeader.SIZE + 8) + _TAIL_BYTES
        return self._position + needed > self._made.segment_size

    def _zeros(self, length: int) -> bytes:
        """A chunk of zeros as it is stored."""
        found = self._packed_zeros.get(length)
        if found is None:
            zeros = memoryview(bytes(length))
            level = self._made.level if self._made.level is not None else codec.FAST_LEVEL
            found = codec.pack(zeros, level) if self._made.packs_zeros else codec.store(zeros)
            self._packed_zeros[length] = found
        return found

    def _length(self, chunk: int) -> int:
        return min(self._grain, self.size - chunk * self._grain)

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

    def _next_segment(self) -> None:
        self._append(describe(b"next", self._position, 0, is_last=True))
        number = len(self._files) + 1
        name = self._names.name(number)
        first = self._files[0]
        if isinstance(self._opener, FileMaking):
            self._files.append(self._opener.make_file(name, first, is_extra=False))
        else:
            self._files.append(self._opener.data_file(Reference(name, format="raw"), first))
        self._position = 0
        self._append(FileHeader(signature=MAGIC_E01, segment=number).pack())
        self._append(headers.volume(b"data", self._made, self._marks, self._position))

    def _finish_set(self) -> None:
        """The sections that only the last segment has."""
        needed = 8 * len(self._bad) + 32 * len(self._made.tracks) + _TAIL_BYTES
        if self._position + needed > self._made.segment_size:
            self._next_segment()
        if len(self._files) == 1:
            self._append(headers.volume(b"data", self._made, self._marks, self._position))
        if self._made.tracks:
            self._append(headers.sessions(self._made.tracks, self._position))
        if self._bad:
            self._append(headers.errors(self._bad, self._position))
        self._append(headers.hashes(self._made, self._hashes, self._position))
        self._append(describe(b"done", self._position, 0, is_last=True))

    def _sectors(self, bad: Runs) -> list[tuple[int, int]]:
        """Areas of the disk as sectors and their number."""
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

    def _remove_old(self) -> None:
        """Remove segments of the old image that the new one has not replaced."""
        if isinstance(self._opener, FileMaking):
            for name in self._old[len(self._files) - 1 :]:
                self._opener.remove_file(name, self._files[0])

    def _append(self, data: bytes) -> None:
        if data:
            self._files[-1].write(memoryview(data), self._position)
            self._position += len(data)
