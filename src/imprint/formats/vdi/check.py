"""Comparing the block map of a VDI with itself, the header and the file's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.events import Finding, Severity
from imprint.core.units import div_up
from imprint.formats.vdi.blockmap import BlockMap
from imprint.formats.vdi.layout import read_header
from imprint.formats.vdi.writer import SLOT_COUNT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.vdi.layout import Header

FINDINGS_MAX: Final = 1000
"""Blocks that are named one by one; a map of garbage would name millions."""


def check(storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Everything that can be wrong with a map whose header is sound.

    ``repair`` corrects the header's count of slots, and nothing else: which of two blocks
    owns a slot cannot be known.
    """
    header = read_header(storage)
    blocks = BlockMap.load(storage, header)
    in_file = max(0, div_up(storage.size - header.data_offset, header.stride))
    taken = bytearray(min(in_file, SLOT_COUNT_MAX))
    highest = -1
    wrong = 0
    for index, slot in blocks.used_slots():
        what = ""
        if slot >= in_file:
            what = f"expected one of the file's {in_file} slots, found slot {slot}"
        elif slot >= len(taken):
            what = f"expected a slot below {len(taken)}, found slot {slot}"
        elif taken[slot]:
            what = f"expected a slot of its own, found slot {slot}, which another block has"
        else:
            taken[slot] = 1
            highest = max(highest, slot)
        if what:
            wrong += 1
            if wrong <= FINDINGS_MAX:
                yield Finding(Severity.ERROR, _entry(header, index), what)
    if wrong > FINDINGS_MAX:
        rest = f"and {wrong - FINDINGS_MAX} more blocks without a slot of their own"
        yield Finding(Severity.ERROR, "block map", rest)
    yield from _check_end(storage, header, highest)
    yield from _check_counts(header, used=taken.count(1), highest=highest)
    if highest + 1 != header.blocks_allocated:
        if repair:
            storage.write(memoryview(header.replace(blocks_allocated=highest + 1).pack()), 0)
            storage.flush()
        yield Finding(
            # A count that is too small makes other programs overwrite data.
            Severity.ERROR if header.blocks_allocated <= highest else Severity.WARNING,
            "Header.blocks_allocated at 0x184",
            f"expected {highest + 1}, found {header.blocks_allocated}",
            repaired=repair,
        )


def _check_end(storage: Storage, header: Header, highest: int) -> Iterator[Finding]:
    end = header.slot_offset(highest + 1)
    if highest >= 0 and storage.size < end:
        yield Finding(
            Severity.WARNING,
            f"slot {highest} at 0x{header.slot_offset(highest):x}",
            f"expected a file of at least {end} bytes, found {storage.size}",
        )


def _check_counts(header: Header, *, used: int, highest: int) -> Iterator[Finding]:
    free = highest + 1 - used
    if free:
        yield Finding(
            Severity.WARNING,
            f"slots at 0x{header.data_offset:x}",
            f"expected no free slot before the last one, found {free}; "
            "they are reused when the image is next changed",
        )
    needed = div_up(header.disk_size, header.block_size)
    if header.block_count != needed:
        yield Finding(
            Severity.INFO,
            "Header.block_count at 0x180",
            f"expected {needed} blocks for the disk, found {header.block_count}",
        )


def _entry(header: Header, index: int) -> str:
    return f"block {index}, map entry at 0x{header.map_offset + 4 * index:x}"
