"""Which blocks of the main area are valid: the segment information table with its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import count_bits, runs_of_bits
from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK, SIT_ENTRIES, SIT_ENTRY
from imprint.filesystems.f2fs.state import State, is_set

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader

_COUNT_MASK: Final = 0x3FF
_MAP_BYTES: Final = 64
_JOURNAL_ENTRY: Final = 4 + SIT_ENTRY
_TABLE_BLOCKS_AT_ONCE: Final = 256


def valid_blocks(reader: VolumeReader, state: State) -> tuple[Runs, int]:
    """The valid blocks of the main area, counted from its start, and how many there are.

    Raises:
        CorruptImageError: if an entry's count is not that of its bitmap.
    """
    count = state.block.main_segments
    bitmap = bytearray(count * _MAP_BYTES)
    for start, entries in _table(reader, state):
        for index in range(min(SIT_ENTRIES, count - start)):
            at = index * SIT_ENTRY
            _place(reader, bitmap, start + index, entries[at : at + SIT_ENTRY])
    for segment, entry in _journal(state):
        if segment < count:
            _place(reader, bitmap, segment, entry)
    runs = Runs.of(runs_of_bits(bitmap, 0, len(bitmap) * 8, lsb_first=False))
    return runs, runs.total


def _place(reader: VolumeReader, bitmap: bytearray, segment: int, entry: bytes) -> None:
    valid = int.from_bytes(entry[:2], "little") & _COUNT_MASK
    bits = entry[2 : 2 + _MAP_BYTES]
    if count_bits(bits) != valid:
        raise CorruptImageError(
            f"segment {segment}: expected {valid} valid blocks, found {count_bits(bits)}",
            name=reader.name,
        )
    bitmap[segment * _MAP_BYTES : (segment + 1) * _MAP_BYTES] = bits


def _table(reader: VolumeReader, state: State) -> list[tuple[int, bytes]]:
    """The blocks of the table that count, each with the number of its first segment."""
    needed = -(-state.block.main_segments // SIT_ENTRIES)
    second = state.block.sit_segments // 2 * state.segment_blocks
    found = []
    for first in range(0, needed, _TABLE_BLOCKS_AT_ONCE):
        count = min(_TABLE_BLOCKS_AT_ONCE, needed - first)
        where = (state.block.sit_block + first) * BLOCK
        copies = [
            reader.read(where + copy * second * BLOCK, count * BLOCK, "segment table")
            for copy in range(2)
        ]
        for index in range(count):
            copy = copies[is_set(state.sit_bitmap, first + index)]
            content = bytes(copy[index * BLOCK : (index + 1) * BLOCK])
            found.append(((first + index) * SIT_ENTRIES, content))
    return found


def _journal(state: State) -> list[tuple[int, bytes]]:
    """``(segment, entry)`` of what is newer than the table."""
    count = int.from_bytes(state.sit_journal[:2], "little")
    if count > (layout.JOURNAL_BYTES - 2) // _JOURNAL_ENTRY:
        raise CorruptImageError(f"journal of segments: expected some entries, found {count}")
    found = []
    for index in range(count):
        at = 2 + index * _JOURNAL_ENTRY
        segment = int.from_bytes(state.sit_journal[at : at + 4], "little")
        found.append((segment, state.sit_journal[at + 4 : at + _JOURNAL_ENTRY]))
    return found
