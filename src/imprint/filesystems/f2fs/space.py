"""Which blocks of the main area are valid: the segment information table with its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import count_bits
from imprint.core.errors import CorruptImageError
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK, SIT_ENTRIES, SIT_ENTRY
from imprint.filesystems.f2fs.state import State, is_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.runs import Runs
    from imprint.filesystems.allocation import VolumeReader

_COUNT_MASK: Final = 0x3FF
_MAP_BYTES: Final = 64
_JOURNAL_ENTRY: Final = 4 + SIT_ENTRY
_TABLE_BLOCKS_AT_ONCE: Final = 256
_UNUSED: Final = bytes(BLOCK)


def valid_blocks(reader: VolumeReader, state: State) -> tuple[Runs, int]:
    """The valid blocks of the main area, counted from its start, and how many there are.

    Raises:
        CorruptImageError: if an entry's count is not that of its bitmap.
    """
    newer = _journal(state)
    valid = CollectedRuns()
    total = 0
    for start, blocks in _table(reader, state):
        count = min(len(blocks) * SIT_ENTRIES, state.block.main_segments - start)
        bitmap = bytearray(count * _MAP_BYTES)
        for number, block in enumerate(blocks):
            if block == _UNUSED:
                continue
            first = number * SIT_ENTRIES
            for index in range(min(SIT_ENTRIES, count - first)):
                at = index * SIT_ENTRY
                _place(reader, bitmap, start, first + index, block[at : at + SIT_ENTRY])
        for segment, entry in newer:
            if start <= segment < start + count:
                _place(reader, bitmap, start, segment - start, entry)
        total += count_bits(bitmap)
        bit_count = len(bitmap) * 8
        valid.add_bits(bitmap, start * _MAP_BYTES * 8, bit_count, lsb_first=False)
    return valid.runs(), total


def _place(reader: VolumeReader, bitmap: bytearray, start: int, index: int, entry: bytes) -> None:
    """Put what an entry says where the bitmap, which begins with segment ``start``, has it."""
    valid = int.from_bytes(entry[:2], "little") & _COUNT_MASK
    bits = entry[2 : 2 + _MAP_BYTES]
    if count_bits(bits) != valid:
        raise CorruptImageError(
            f"segment {start + index}: expected {valid} valid blocks, found {count_bits(bits)}",
            name=reader.name,
        )
    bitmap[index * _MAP_BYTES : (index + 1) * _MAP_BYTES] = bits


def _table(reader: VolumeReader, state: State) -> Iterator[tuple[int, list[bytes]]]:
    """Blocks of the table that count, with the number of the first one's first segment."""
    needed = -(-state.block.main_segments // SIT_ENTRIES)
    second = state.block.sit_segments // 2 * state.segment_blocks
    reader.expect(needed * BLOCK, "segment table")
    for first in range(0, needed, _TABLE_BLOCKS_AT_ONCE):
        count = min(_TABLE_BLOCKS_AT_ONCE, needed - first)
        chosen = [is_set(state.sit_bitmap, first + index) for index in range(count)]
        where = (state.block.sit_block + first) * BLOCK
        copies = {
            copy: bytes(reader.read(where + copy * second * BLOCK, count * BLOCK, "segment table"))
            for copy in sorted(set(chosen))
        }
        blocks = [
            copies[copy][index * BLOCK : (index + 1) * BLOCK] for index, copy in enumerate(chosen)
        ]
        yield first * SIT_ENTRIES, blocks


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
