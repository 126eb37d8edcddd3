"""Checking a QCOW2 image, and repairing its refcounts.

What is stored as refcounts is compared with the references that there really are. Counts
that are too high (leaks) only cost room; counts that are too low will make somebody overwrite
data. Repair never touches what the disk reads as:

* leaks alone are given back in place, each count going from one right value to another;
* otherwise all refcounts are written anew behind the end of the file, and one write of the
  header makes them valid.

``COPIED`` flags that are wrongly set are cleared before that, missing ones set after it.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, NamedTuple

from imprint.core.units import div_up
from imprint.formats.qcow2 import counts, header, layout
from imprint.formats.qcow2.census import Census, Findings
from imprint.formats.qcow2.tables import load, store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.core.events import Finding
    from imprint.formats.qcow2.header import HeaderArea


class Mismatch(NamedTuple):
    """A run of clusters whose stored refcount is not what it should be."""

    first: int
    clusters: int
    stored: int
    expected: int


def check(storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Check an image, and with ``repair`` put right what can be.

    Raises:
        FormatError: if not even the header makes sense.
    """
    area = header.read(storage)
    checker = _Checker(storage, area)
    checker.look()
    if repair:
        checker.repair()
    yield from checker.findings()


class _Checker:
    """One check of one image."""

    def __init__(self, storage: Storage, area: HeaderArea) -> None:
        self._storage = storage
        self._area = area
        self._census = Census(storage, area)
        self._mismatches: list[Mismatch] = []
        self._flags: list[_Flag] = []
        self._is_repaired = False
        self._notes = Findings()

    def look(self) -> None:
        """Find everything; change nothing."""
        incompatible = self._area.header.incompatible_features
        if incompatible & layout.INCOMPATIBLE_CORRUPT:
            self._notes.error("header", "the image is marked as corrupt")
        self._census.take()
        self._without_counts = self._census.references[:]
        self._table = self._census.count_refcount_structures()
        self._mismatches = list(_joined(self._compare_counts()))
        self._flags = list(self._wrong_flags())

    def findings(self) -> Iterator[Finding]:
        """What was found, and whether it is repaired now."""
        if self._area.header.incompatible_features & layout.INCOMPATIBLE_DIRTY:
            self._notes.warning(
                "header",
                "was not closed properly: refcounts may be stale",
                repaired=self._is_repaired,
            )
        yield from self._notes.take()
        yield from self._census.findings.take()
        kept = Findings()
        for mismatch in self._mismatches:
            last = mismatch.first + mismatch.clusters - 1
            where = f"cluster 0x{mismatch.first:x}" + (
                f" to 0x{last:x}" if mismatch.clusters > 1 else ""
            )
            if mismatch.stored > mismatch.expected:
                what = f"leaked: {mismatch.stored} counted, {mismatch.expected} referenced"
                kept.warning(where, what, repaired=self._is_repaired)
            else:
                what = f"refcount {mismatch.stored}, but {mismatch.expected} references"
                kept.error(where, what, repaired=self._is_repaired)
        for flag in self._flags:
            wish = "to be set" if flag.shall_be_set else "not to be set"
            kept.error(flag.where, f"expected the COPIED flag {wish}", repaired=self._is_repaired)
        yield from kept.take()

    def repair(self) -> None:
        """Put right refcounts and flags, if every reference makes sense."""
        is_dirty = self._area.header.incompatible_features & layout.INCOMPATIBLE_DIRTY
        if not (self._mismatches or self._flags or is_dirty):
            return
        if not self._census.is_sound:
            self._notes.error(
                "repair",
                "not done: there are references that lead nowhere, and what is free is unknown",
            )
            return
        too_high = max(self._census.references, default=0)
        if too_high >> self._area.refcount_bits:
            self._notes.error(
                "repair", f"not done: {too_high} references do not fit the width of the refcounts"
            )
            return
        self._write_flags(shall_be_set=False)
        if all(mismatch.stored > mismatch.expected for mismatch in self._mismatches):
            self._lower_in_place()
        else:
            self._rebuild()
        self._write_flags(shall_be_set=True)
        self._clear_dirty()
        self._is_repaired = True

    # Refcounts.

    def _compare_counts(self) -> Iterator[Mismatch]:
        """Where a stored refcount differs, cluster by cluster or in runs."""
        references = self._census.references
        per_block = self._area.cluster_size * 8 // self._area.refcount_bits
        for index in range(max(len(self._table), div_up(len(references), per_block))):
            first = index * per_block
            expected = references[first : first + per_block]
            offset = self._block_offset(index)
            if not offset:
                for at, value in enumerate(expected):
                    if value:
                        yield Mismatch(first + at, 1, 0, value)
                continue
            stored = self._load_block(offset)
            yield from self._compare_block(stored, expected, first, per_block)

    def _compare_block(
        self, stored: array.array[int], expected: array.array[int], first: int, per_block: int
    ) -> Iterator[Mismatch]:
        bits = self._area.refcount_bits
        expected = expected + array.array("I", [0]) * (per_block - len(expected))
        if counts.pack(expected, bits) == stored:
            return
        for at, value in enumerate(expected):
            found = counts.get(stored, at, bits)
            if found != value:
                yield Mismatch(first + at, 1, found, value)

    def _block_offset(self, index: int) -> int:
        """Where block ``index`` is; 0: nowhere that makes sense."""
        entry = self._table[index] if index < len(self._table) else 0
        size = self._area.cluster_size
        return entry if entry % size == 0 and entry + size <= self._storage.size else 0

    def _load_block(self, offset: int) -> array.array[int]:
        code = counts.width_of(self._area.refcount_bits)
        return load(self._storage, offset, self._area.cluster_size, code)

    def _lower_in_place(self) -> None:
        bits = self._area.refcount_bits
        per_block = self._area.cluster_size * 8 // bits
        changed: dict[int, array.array[int]] = {}
        for mismatch in self._mismatches:
            for cluster in range(mismatch.first, mismatch.first + mismatch.clusters):
                offset = self._block_offset(cluster // per_block)
                if offset not in changed:
                    changed[offset] = self._load_block(offset)
                delta = mismatch.expected - mismatch.stored
                counts.add(changed[offset], cluster % per_block, 1, delta, bits)
        for offset, block in sorted(changed.items()):
            store(self._storage, offset, block)
        self._storage.flush()

    def _rebuild(self) -> None:
        """Write all refcounts anew, behind everything that there is."""
        size, bits = self._area.cluster_size, self._area.refcount_bits
        values, per_block = self._without_counts, size * 8 // bits
        start, blocks, table_clusters = len(values), 0, 0
        while True:
            total = start + blocks + table_clusters
            needed = div_up(total, per_block)
            if needed == blocks and div_up(needed * 8, size) == table_clusters:
                break
            blocks, table_clusters = needed, div_up(needed * 8, size)
        values = values + array.array("I", [1]) * (blocks + table_clusters)
        values.extend([0] * (blocks * per_block - len(values)))
        for index in range(blocks):
            block = counts.pack(values[index * per_block : (index + 1) * per_block], bits)
            assert block is not None
            store(self._storage, (start + index) * size, block)
        table = array.array("Q", [0]) * (table_clusters * size // 8)
        for index in range(blocks):
            table[index] = (start + index) * size
        table_offset = (start + blocks) * size
        store(self._storage, table_offset, table)
        self._storage.flush()
        self._write_header(
            refcount_table_offset=table_offset, refcount_table_clusters=table_clusters
        )

    def _clear_dirty(self) -> None:
        bits = self._area.header.incompatible_features
        if bits & layout.INCOMPATIBLE_DIRTY:
            self._write_header(incompatible_features=bits & ~layout.INCOMPATIBLE_DIRTY)

    def _write_header(self, **changes: int) -> None:
        """One write that does not cross a sector: the old header or the new one."""
        self._area = self._area.with_header(**changes)
        self._storage.write(memoryview(self._area.pack_header()), 0)
        self._storage.flush()

    # COPIED flags.

    def _wrong_flags(self) -> Iterator[_Flag]:
        head = self._area.header
        if head.l1_table_offset + head.l1_size * 8 > self._storage.size:
            return  # the census has said so
        references, bits = self._census.references, self._area.header.cluster_bits
        l1 = load(self._storage, head.l1_table_offset, head.l1_size * 8) if head.l1_size else []
        seen: set[int] = set()
        for index, entry in enumerate(l1):
            offset = entry & layout.OFFSET_MASK
            cluster = offset >> bits
            if not offset or offset % self._area.cluster_size or cluster >= len(references):
                continue
            wish = references[cluster] == 1
            if bool(entry & layout.COPIED) != wish:
                place = head.l1_table_offset + index * 8
                yield _Flag(place, entry, shall_be_set=wish, where=f"L1 entry 0x{index:x}")
            if offset not in seen and offset + self._area.cluster_size <= self._storage.size:
                seen.add(offset)
                yield from self._wrong_flags_in(offset)

    def _wrong_flags_in(self, offset: int) -> Iterator[_Flag]:
        references, bits = self._census.references, self._area.header.cluster_bits
        table = load(self._storage, offset, self._area.cluster_size)
        for index in range(0, len(table), 2 if self._area.is_extended else 1):
            entry = table[index]
            start = entry & layout.OFFSET_MASK
            if not start:
                continue
            wish = False
            if not entry & layout.COMPRESSED:
                cluster = start >> bits
                in_file = cluster < len(references) and not start % self._area.cluster_size
                wish = self._area.has_data_file or (in_file and references[cluster] == 1)
            if bool(entry & layout.COPIED) != wish:
                where = f"L2 table at 0x{offset:x}, entry at byte 0x{index * 8:x}"
                yield _Flag(offset + index * 8, entry, shall_be_set=wish, where=where)

    def _write_flags(self, *, shall_be_set: bool) -> None:
        wanted = [flag for flag in self._flags if flag.shall_be_set == shall_be_set]
        for flag in wanted:
            entry = flag.entry | layout.COPIED if shall_be_set else flag.entry & ~layout.COPIED
            self._storage.write(memoryview(entry.to_bytes(8, "big")), flag.place)
        if wanted:
            self._storage.flush()


class _Flag(NamedTuple):
    """A ``COPIED`` flag that is wrong: where its entry is, and what it holds."""

    place: int
    entry: int
    shall_be_set: bool
    where: str


def _joined(mismatches: Iterator[Mismatch]) -> Iterator[Mismatch]:
    """Neighbours with the same counts, as one."""
    last: Mismatch | None = None
    for mismatch in mismatches:
        if (
            last is not None
            and last.first + last.clusters == mismatch.first
            and (last.stored, last.expected) == (mismatch.stored, mismatch.expected)
        ):
            last = last._replace(clusters=last.clusters + mismatch.clusters)
        else:
            if last is not None:
                yield last
            last = mismatch
    if last is not None:
        yield last
