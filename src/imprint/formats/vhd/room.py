"""What of a VHD's file is in use, and what is free between it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import align_up
from imprint.formats.vhd.layout import SECTOR_BYTES, Footer, Header
from imprint.formats.vhd.locators import locator_ranges

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vhd.layer import State

GAPS_MAX: Final = 1 << 16
"""Gaps that are remembered and used again."""


def metadata(storage: Storage, state: State) -> list[tuple[int, int]]:
    """Start and end of all tables but the footer at the end, in bytes, ascending."""
    header, footer = state.header, state.footers.active
    assert header is not None
    table_end = header.table_offset + 4 * header.table_entries
    found = [
        (0, Footer.SIZE),
        (footer.data_offset, footer.data_offset + Header.SIZE),
        (header.table_offset, align_up(table_end, SECTOR_BYTES)),
    ]
    if footer.has_parent:
        found += locator_ranges(header, storage.size)
    return sorted(found)


def metadata_end(storage: Storage, state: State) -> int:
    """The first byte behind all tables but the footer at the end."""
    return max(end for _, end in metadata(storage, state))


def find_room(storage: Storage, state: State) -> tuple[list[int], int]:
    """Starts of gaps that a block fits into, and where the room behind everything begins.

    Raises:
        CorruptImageError: if a block overlaps another or a table, or is not in the file.
    """
    header = state.header
    assert header is not None
    stride = header.stride
    sectors = sorted(start for _, start in state.table.used())
    tables = metadata(storage, state)
    gaps: list[int] = []
    position = 0
    for start in sectors:
        while tables and tables[0][0] < start + stride:
            first, end = tables.pop(0)
            if end > start and first < start + stride:
                raise _overlap(storage, start, f"of the table at 0x{first:x}")
            _add_gaps(gaps, position, first, stride)
            position = max(position, align_up(end, SECTOR_BYTES))
        if start < position:
            raise _overlap(storage, start, "of another block")
        # Only the last block may be cut off, by what stands for the footer.
        if start + header.bitmap_bytes > storage.size:
            raise CorruptImageError(
                f"expected a block at 0x{start:x}, found a file of {storage.size} bytes",
                name=storage.name,
                offset=start,
            )
        _add_gaps(gaps, position, start, stride)
        position = start + stride
    end = max([position, *(end for _, end in tables)])
    return gaps, align_up(end, SECTOR_BYTES)


def _add_gaps(gaps: list[int], start: int, end: int, stride: int) -> None:
    """What fits between two things that are in use; in a file full of holes, not all of it."""
    room = GAPS_MAX - len(gaps)
    gaps.extend(itertools.islice(range(start, end - stride + 1, stride), room))


def _overlap(storage: Storage, start: int, whose: str) -> CorruptImageError:
    return CorruptImageError(
        f"expected room of its own for the block at 0x{start:x}, found that {whose}",
        name=storage.name,
        offset=start,
        advice="it can be read, and copied into a new image",
    )
