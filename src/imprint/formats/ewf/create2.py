"""Writing Ex01: descriptors behind what they describe, linked backwards.

::

    device, case data | sector data, sector table | … | next                  every segment
    … | sessions, errors, MD5, SHA-1, done                                    the last one
"""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.formats import Measure
from imprint.core.tables import stored
from imprint.formats.ewf import codec, headers, headers2
from imprint.formats.ewf import layout2 as layout
from imprint.formats.ewf.layout import CHECKSUM_BYTES
from imprint.formats.ewf.layout2 import Descriptor2, FileHeader2, padded
from imprint.formats.ewf.options import plan
from imprint.formats.ewf.segmented import TAIL_BYTES, SegmentedTarget, fitting

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.formats import CreateSpec
    from imprint.core.runs import Runs
    from imprint.formats.ewf.options import Plan

_ENTRIES_MAX: Final = 65_534
"""Of one table; what libewf writes as well."""

_TABLE_BYTES: Final = layout.TABLE_HEADER_BYTES + layout.ALIGNMENT + 2 * Descriptor2.SIZE
"""Of a group, besides chunks and entries: header, checksum, two descriptors."""

_TABLE_PADDING: Final = 24
"""Behind the header and behind the checksum."""

_REACH: Final = (1 << 63) - 1
_NO_PATTERN: Final = b""
_ZEROS: Final = bytes(layout.PATTERN_BYTES)


def create(storage: Storage, spec: CreateSpec) -> Ex01Target:
    """Begin a new image.

    Raises:
        UsageError: if the options make no sense.
        RefusedError: if a second segment is there of an image that may not be replaced.
    """
    made = plan(spec)
    return Ex01Target(storage, made, headers.marks(made, spec), spec.opener)


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Every chunk as it is; holes need entries only, but are not looked for."""
    del source
    made = plan(spec)
    chunk = made.chunk_size + layout.ALIGNMENT + layout.ENTRY_BYTES
    head = 4096 + 4 * sum(len(value) for value in made.case.values())
    segments = 1 + made.size // max(1, made.segment_size - head - TAIL_BYTES - 2 * chunk)
    groups = 2 + made.chunks // _ENTRIES_MAX
    total = made.chunks * chunk + (groups + segments) * 512 + segments * (head + TAIL_BYTES)
    return Measure(total, total)


class Ex01Target(SegmentedTarget):
    """A new image of version 2."""

    def __init__(self, storage: Storage, made: Plan, marks: headers.Marks, opener: Opener) -> None:
        """Writes what is in front of the chunks."""
        self._entries = array("Q")
        self._first = 0  # chunk of the table at hand
        self._padding = 0  # in the group at hand
        self._previous = 0  # descriptor
        self._md5 = hashlib.md5(usedforsecurity=False)
        super().__init__(storage, made, marks, opener)

    def _packed(self, chunk: memoryview) -> bytes:
        """Packed or stored; 8 bytes, as nothing else has, are a pattern that fills it."""
        if self._made.level is None:
            return codec.store(chunk)
        return _pattern_of(chunk) or codec.pack(chunk, self._made.level)

    def _zeros(self, length: int) -> bytes:
        return _ZEROS if self._made.packs_zeros else codec.store(memoryview(bytes(length)))

    def _sizes(self, units: list[bytes]) -> list[int]:
        return [
            0 if len(unit) == layout.PATTERN_BYTES else len(unit) + -len(unit) % layout.ALIGNMENT
            for unit in units
        ]

    def _fitting(self, ends: list[int]) -> int:
        held = len(self._entries) // 2
        return fitting(
            ends,
            room=_ENTRIES_MAX - held,
            reach=_REACH,
            table_bytes=_TABLE_BYTES + layout.ENTRY_BYTES * held,
            entry_bytes=layout.ENTRY_BYTES,
            limit=self._made.segment_size,
        )

    def _is_full(self, length: int) -> bool:
        needed = length + _TABLE_BYTES + layout.ENTRY_BYTES + TAIL_BYTES
        return self._position + needed > self._made.segment_size

    def _put(self, units: list[bytes], ends: list[int]) -> None:
        parts = []
        for number, unit in enumerate(units):
            if len(unit) == layout.PATTERN_BYTES:
                flags = layout.CHUNK_COMPRESSED | layout.CHUNK_PATTERN
                self._entries.extend((int.from_bytes(unit, "little"), flags << 32))
                continue
            is_stored = self._is_stored(unit, self._next_unit + number)
            flags = layout.CHUNK_CHECKSUMMED if is_stored else layout.CHUNK_COMPRESSED
            self._entries.extend((ends[number], flags << 32 | len(unit)))
            parts += [unit, bytes(-len(unit) % layout.ALIGNMENT)]
            self._padding += len(parts[-1])
        data = b"".join(parts)
        self._md5.update(data)
        self._append(data)

    def _begin_segment(self, number: int) -> None:
        header = FileHeader2(
            signature=layout.MAGIC_EX01,
            compression=layout.COMPRESSION_ZLIB,
            segment=number,
            set_id=self._marks.set_id,
        )
        self._append(header.pack())
        self._previous = 0
        for kind, text in (
            (layout.DEVICE, headers2.device(self._made, self._marks)),
            (layout.CASE, headers2.case_data(self._made, self._marks)),
        ):
            self._append_section(kind, padded(text), -len(text) % layout.ALIGNMENT)

    def _begin_group(self) -> None:
        self._start = self._position
        self._first = self._next_unit
        self._entries = array("Q")
        self._padding = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def _finish_group(self) -> None:
        """Write the descriptor behind the chunks, and their table."""
        if not self._entries:
            return
        length = self._position - self._start
        self._append_descriptor(layout.SECTOR_DATA, self._md5.digest(), length, self._padding)
        entries = bytes(stored(self._entries, "little"))
        table = headers2.table(self._first, entries, len(self._entries) // 2)
        self._append_section(layout.SECTOR_TABLE, table, _TABLE_PADDING)
        self._entries = array("Q")

    def _finish_set(self) -> None:
        needed = layout.ENTRY_BYTES * len(self._bad) + 32 * len(self._made.tracks) + TAIL_BYTES
        if self._position + needed > self._made.segment_size:
            self._next_segment()
        if self._made.tracks:
            tracks = headers2.sessions(self._made.tracks)
            self._append_section(layout.SESSIONS, tracks, _TABLE_PADDING)
        if self._bad:
            self._append_section(layout.ERRORS, headers2.errors(self._bad), _TABLE_PADDING)
        for name, kind in (("md5", layout.MD5), ("sha1", layout.SHA1)):
            if name in self._hashes:
                data = headers2.digest(self._hashes[name])
                used = len(self._hashes[name]) // 2 + CHECKSUM_BYTES
                self._append_section(kind, data, len(data) - used)
        self._end_segment(is_last=True)

    def _end_segment(self, *, is_last: bool) -> None:
        self._append_section(layout.DONE if is_last else layout.NEXT, b"", 0)

    def _append_section(self, kind: int, data: bytes, padding: int) -> None:
        """Append a section; of its data, which is padded, ``padding`` bytes are none."""
        self._append(data)
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        self._append_descriptor(kind, md5, len(data), padding)

    def _append_descriptor(self, kind: int, md5: bytes, length: int, padding: int) -> None:
        at = self._position
        self._append(layout.describe(kind, md5, length, padding=padding, previous=self._previous))
        self._previous = at

    def _sectors(self, bad: Runs) -> list[tuple[int, int]]:
        sector = self._made.sector_size
        return [
            (start // sector, min(length, self.size - start) // sector)
            for start, length in bad.widened(sector)
        ]


def _pattern_of(chunk: memoryview) -> bytes:
    """The 8 bytes that fill a chunk again and again; empty if there are none."""
    pattern = bytes(chunk[: layout.PATTERN_BYTES])
    if chunk[layout.PATTERN_BYTES : 2 * layout.PATTERN_BYTES] != pattern:
        return _NO_PATTERN  # nearly always: the rest is not looked at
    whole = len(chunk) // layout.PATTERN_BYTES * pattern
    return pattern if whole == chunk else _NO_PATTERN
