"""Comparing the tables of a VHDX with each other and with the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.events import Finding, Severity
from imprint.core.units import MIB, div_up
from imprint.formats.vhdx.bat import Bat, place_of
from imprint.formats.vhdx.header import write_regions
from imprint.formats.vhdx.journal import HeaderPair, replay_to_file
from imprint.formats.vhdx.layer import Tables, read_tables
from imprint.formats.vhdx.layout import (
    FULLY_PRESENT,
    HEADER_OFFSETS,
    PARTIALLY_PRESENT,
    REGION_TABLE_OFFSETS,
    STATE_MASK,
    STATES,
)
from imprint.formats.vhdx.space import Space, fixed_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

FINDINGS_MAX: Final = 1000
"""Blocks that are named one by one; a table of garbage would name millions."""


def check(storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Everything that can be wrong with an image that can be opened.

    ``repair`` replays the log on the file, and writes a header or region table anew whose
    twin is sound. Which of two blocks owns a place cannot be known.
    """
    tables = read_tables(storage)
    if tables.headers.is_dirty:
        if repair:
            replay_to_file(storage, tables.headers)
        yield Finding(
            Severity.WARNING,
            f"log at 0x{tables.headers.header.log_offset:x}",
            "expected an empty log, found changes that have to be replayed",
            repaired=repair,
        )
        if repair:
            tables = read_tables(storage)
    yield from _check_copies(storage, tables, repair=repair)
    bat = Bat.load(tables.storage, tables.regions.bat, tables.metadata)
    yield from _check_blocks(tables, bat)


def _check_copies(storage: Storage, tables: Tables, *, repair: bool) -> Iterator[Finding]:
    """Each of the two headers and region tables."""
    if not all(tables.headers.valid):
        if repair:
            HeaderPair(storage, tables.headers).update()
        at = HEADER_OFFSETS[tables.headers.valid.index(False)]
        yield _copy_finding("header", at, repaired=repair)
    if not all(tables.regions.valid):
        if repair:
            write_regions(storage, tables.regions.entries, tables.regions.valid)
        at = REGION_TABLE_OFFSETS[tables.regions.valid.index(False)]
        yield _copy_finding("region table", at, repaired=repair)


def _copy_finding(what: str, at: int, *, repaired: bool) -> Finding:
    text = "expected a copy with the right CRC-32C; the other one is sound"
    return Finding(Severity.WARNING, f"{what} at 0x{at:x}", text, repaired=repaired)


def _check_blocks(tables: Tables, bat: Bat) -> Iterator[Finding]:
    """Every entry of the BAT, and what of the file nothing refers to."""
    storage, metadata = tables.storage, tables.metadata
    space = Space(storage.name, storage.size)
    for region in fixed_parts(tables):
        if region.length:
            try:
                space.claim(region.offset, region.length)
            except CorruptImageError as error:
                yield Finding(Severity.ERROR, f"region at 0x{region.offset:x}", str(error))
    wrong = 0
    for where, what in _wrong_entries(tables, bat, space):
        wrong += 1
        if wrong <= FINDINGS_MAX:
            yield Finding(Severity.ERROR, where, what)
    if wrong > FINDINGS_MAX:
        rest = f"and {wrong - FINDINGS_MAX} more entries that cannot be right"
        yield Finding(Severity.ERROR, "BAT", rest)
    needed = 8 * metadata.entry_count
    if space.unused():
        yield Finding(
            Severity.INFO,
            storage.name,
            f"{space.unused()} MiB of {div_up(storage.size, MIB)} are not referred to; "
            "they are used again when the image is written to",
        )
    if not wrong and tables.regions.bat.length < needed:
        yield Finding(Severity.ERROR, "BAT", f"expected a region of {needed} bytes")


def _wrong_entries(tables: Tables, bat: Bat, space: Space) -> Iterator[tuple[str, str]]:
    metadata, block = tables.metadata, 0
    while block < metadata.block_count:
        entry = bat.payload(block)
        state = entry & STATE_MASK
        where = f"block {block}, BAT entry at 0x{bat.region.offset + 8 * bat.slot(block):x}"
        if state in (FULLY_PRESENT, PARTIALLY_PRESENT):
            has_bits = metadata.has_parent and bat.bitmap(block) & STATE_MASK == FULLY_PRESENT
            if state == PARTIALLY_PRESENT and not has_bits:
                yield where, "expected a parent and a sector bitmap for a block here in part"
            if space.is_free(place_of(entry), metadata.block_size):
                space.claim(place_of(entry), metadata.block_size)
            else:
                place = place_of(entry)
                yield where, f"expected a place of its own in the file, found 0x{place:x}"
            block += 1
            continue
        run = bat.run(block, metadata.block_count - block)
        if state not in STATES:
            yield where, f"expected one of the states {STATES}, found {state}"
        block += run
    for slot, entry in bat.bitmaps(metadata.block_count):
        if space.is_free(place_of(entry), MIB):
            space.claim(place_of(entry), MIB)
        else:
            where = f"sector bitmap, BAT entry at 0x{bat.region.offset + 8 * slot:x}"
            yield where, f"expected a place of its own in the file, found 0x{place_of(entry):x}"
