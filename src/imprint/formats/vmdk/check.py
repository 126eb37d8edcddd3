"""Comparing the tables of a VMDK with each other, and the files' sizes."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.core.events import Finding, Severity
from imprint.core.units import div_up
from imprint.formats.vmdk.descriptor import FLAT_KINDS
from imprint.formats.vmdk.headers import SparseFile, read_directory
from imprint.formats.vmdk.layout import GTE_DATA, SECTOR
from imprint.formats.vmdk.opening import find
from imprint.formats.vmdk.slots import Census, has_redundant
from imprint.formats.vmdk.sparse import GrainTables, SparsePart
from imprint.formats.vmdk.sparse_writer import to_disk
from imprint.formats.vmdk.storing import bring_home, store, stray

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.formats.vmdk.descriptor import ExtentLine

FINDINGS_MAX: Final = 1000
"""Grains that are named one by one; a table of garbage would name millions."""


def check(storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
    """Everything that can be wrong with an image whose headers are sound.

    ``repair`` writes redundant tables anew, as copies of the primary ones, which everybody
    reads, and corrects the size in an embedded descriptor, where the header counts.
    """
    found = find(storage, opener)
    try:
        for number, (line, file, sparse) in enumerate(found.lines):
            where = f"extent {number}"
            if sparse is not None and file is not None:
                yield from _check_sparse(file, sparse, where, repair=repair)
            elif line.kind in FLAT_KINDS and file is not None:
                yield from _check_flat(file, line, where)
        if found.own is not None and stray(found.own):
            what = f"expected it in sector 1, found it at 0x{found.descriptor.offset:x}"
            can = repair and bring_home(storage, found.own)
            yield Finding(Severity.WARNING, "descriptor", what, repaired=can)
            if can:
                return  # the rest of it is looked at where it is now
        if found.own is not None and len(found.lines) == 1:
            yield from _check_size(storage, found.own, repair=repair)
    finally:
        found.close_others()


def _check_flat(file: Storage, line: ExtentLine, where: str) -> Iterator[Finding]:
    expected = (line.offset + line.sectors) * SECTOR
    if file.size < expected:
        what = f"expected a file of at least {expected} bytes, found {file.size}"
        yield Finding(Severity.ERROR, f"{where}, {line.file}", what)


def _check_size(storage: Storage, own: SparseFile, *, repair: bool) -> Iterator[Finding]:
    descriptor = own.descriptor
    if descriptor is None or descriptor.sectors == own.geometry.size // SECTOR:
        return
    lines = [at for at, line in enumerate(descriptor.extents) if line.sectors]
    can = repair and len(lines) == 1
    what = f"expected {own.geometry.size // SECTOR} sectors, found {descriptor.sectors}"
    if can:
        store(storage, descriptor.with_sectors(lines[0], own.geometry.size // SECTOR))
        storage.flush()
    yield Finding(Severity.WARNING, "descriptor", what, repaired=can)


def _check_sparse(
    file: Storage, sparse: SparseFile, where: str, *, repair: bool
) -> Iterator[Finding]:
    wrong = 0
    items = _wrong_grains(file, sparse)
    for what in items:
        wrong += 1
        if wrong <= FINDINGS_MAX:
            yield Finding(Severity.ERROR, where, what)
    if wrong > FINDINGS_MAX:
        yield Finding(Severity.ERROR, where, f"and {wrong - FINDINGS_MAX} more")
    header = sparse.header
    if header is None or sparse.geometry.is_compressed:
        return
    if header.is_unclean:
        what = "it was not closed by the program that wrote it last"
        yield Finding(Severity.INFO, where, what)
    if has_redundant(header):
        yield from _check_redundant(file, sparse, where, repair=repair and not wrong)


def _wrong_grains(file: Storage, sparse: SparseFile) -> Iterator[str]:
    if sparse.header is not None and not sparse.geometry.is_compressed:
        for _, what in Census(file, sparse, None).wrong():
            yield what
        return
    shared = _shared_tables(sparse.tables.directory)
    if shared:  # one table may stand for a million, whose grains would all be looked at
        yield f"grain table {shared}: expected a place of its own, found another one's"
        return
    part = SparsePart(file, sparse.geometry, sparse.tables)
    geometry = sparse.geometry
    highest, backwards = 0, set[int]()
    for number in range(geometry.table_count):
        table = part.table(number)
        if table is None:
            continue
        first = number * geometry.entries_per_table
        for index, entry in enumerate(table[: geometry.grain_count - first], first):
            if entry < GTE_DATA:
                continue
            if entry * SECTOR >= file.size:
                yield f"grain {index}: expected a place inside the file, found 0x{entry:x}"
            elif not geometry.is_compressed:
                continue
            elif entry == highest or entry in backwards:
                yield f"grain {index}: expected a place of its own, found 0x{entry:x}"
            else:
                if entry < highest:  # a stream that was written by many threads at once
                    backwards.add(entry)
                highest = max(highest, entry)
                yield from _wrong_stored(part, index)


def _shared_tables(directory: array[int]) -> int:
    """The number of a table that has the place of an earlier one; 0: there is none."""
    seen: set[int] = set()
    for number, sector in enumerate(directory):
        if sector in seen:
            return number
        if sector:
            seen.add(sector)
    return 0


def _wrong_stored(part: SparsePart, index: int) -> Iterator[str]:
    """What is wrong with a compressed grain."""
    unit = part.unit(index * part.grain)
    try:
        part.decode(unit, memoryview(bytearray(unit.length)))
    except ImagingError as failure:
        yield f"grain {index}: {failure.args[0]}"


def _check_redundant(
    file: Storage, sparse: SparseFile, where: str, *, repair: bool
) -> Iterator[Finding]:
    header, tables = sparse.header, sparse.tables
    assert header is not None
    directory = read_directory(file, header.redundant_offset, len(tables.directory))
    copies = GrainTables(file, directory, sparse.geometry.entries_per_table)
    length = div_up(4 * sparse.geometry.entries_per_table, SECTOR) * SECTOR
    differing = 0
    # First what the primary tables have, then what only the copies have.
    for number, _ in chain(tables.written(), _readable(file, copies, length)):
        sector, copy = tables.directory[number], directory[number]
        if not sector or not copy or copy * SECTOR + length > file.size or copy == sector:
            continue
        table = tables.load(number, sector)
        if table == copies.load(number, copy):
            continue
        differing += 1
        if repair:
            file.write(to_disk(table), copy * SECTOR)
    if differing:
        if repair:
            file.flush()
        what = "expected redundant grain tables that equal the primary ones, found others"
        yield Finding(Severity.WARNING, where, what, repaired=repair)


def _readable(file: Storage, copies: GrainTables, length: int) -> Iterator[tuple[int, array[int]]]:
    """The copies that have content, unless one of them is not in the file."""
    if all(sector * SECTOR + length <= file.size for sector in copies.directory):
        yield from copies.written()
