"""Which legs of a mirrored logical volume can be trusted: their superblocks say it.

Source: Linux ``drivers/md/dm-raid.c``, ``struct dm_raid_superblock``; ``drivers/md/md-bitmap.h``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.buffers import is_zero
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB, MIB, div_up
from imprint.volumes.members import read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source

MAGIC: Final = b"DmRd"
BITMAP_MAGIC: Final = b"bitm"
BITMAP_AT: Final = 4 * KIB
BITMAP_BYTES_MAX: Final = 1 * MIB
"""Of one leg: eight million regions; LVM2 makes them larger long before."""

_BAD_STATE: Final = 0b11
ALL_DONE: Final = (1 << 64) - 1
"""As a position up to which something has come: it has come to the end."""


class Superblock(Structure, size=64, endian="<"):
    """The start of the metadata volume beside each leg."""

    magic: bytes = raw(4, at=0, doc="MAGIC")
    leg_count: int = uint(4, at=8, doc="of the array")
    position: int = uint(4, at=12, doc="of this leg")
    events: int = uint(8, at=16, doc="counts changes of the superblock")
    failed_legs: int = uint(8, at=24, doc="bits by position")
    recovered_to: int = uint(8, at=32, doc="sectors of this leg; ALL_DONE: it is in sync")
    synced_to: int = uint(8, at=40, doc="sectors of the array; ALL_DONE: all legs are equal")


class Bitmap(Structure, size=256, endian="<"):
    """What tells in which regions legs may differ after a crash; bits follow it."""

    magic: bytes = raw(4, at=0, doc="BITMAP_MAGIC")
    sectors: int = uint(8, at=40, doc="of a leg")
    state: int = uint(4, at=48, doc="bit 0: stale, bit 1: could not be written")
    chunk: int = uint(4, at=52, doc="bytes of a region")


class Legs(NamedTuple):
    """What the superblocks say.

    Attributes:
        sound: positions of legs that can be read.
        are_equal: whether all of these hold the same bytes.
    """

    sound: tuple[int, ...]
    are_equal: bool


def legs(metadata: Sequence[Source | None]) -> Legs:
    """Judge the legs by their metadata volumes; ``None`` for those that are not at hand."""
    blocks = {}
    for position, source in enumerate(metadata):
        if source is None or source.size < Superblock.SIZE:
            continue
        block = Superblock.unpack(read_bytes(source, 0, Superblock.SIZE))
        if (block.magic, block.position) == (MAGIC, position):
            blocks[position] = block
    newest = max((block.events for block in blocks.values()), default=0)
    failed = 0
    for block in blocks.values():
        if block.events == newest:
            failed |= block.failed_legs
    sound = [
        position
        for position, block in blocks.items()
        if block.events == newest
        and block.recovered_to == ALL_DONE
        and block.leg_count == len(metadata)
        and not failed >> position & 1
    ]
    are_equal = all(
        blocks[position].synced_to == ALL_DONE and _is_clean(metadata[position])
        for position in sound
    )
    return Legs(tuple(sound), are_equal)


def _is_clean(source: Source | None) -> bool:
    """Whether the bitmap of a leg says that nothing was being written."""
    if source is None or source.size < BITMAP_AT + Bitmap.SIZE:
        return False
    bitmap = Bitmap.unpack(read_bytes(source, BITMAP_AT, Bitmap.SIZE))
    if bitmap.magic != BITMAP_MAGIC or bitmap.state & _BAD_STATE or bitmap.chunk == 0:
        return False
    start = BITMAP_AT + Bitmap.SIZE
    length = div_up(div_up(bitmap.sectors * 512, bitmap.chunk), 8)
    if not 0 < length <= min(BITMAP_BYTES_MAX, source.size - start):
        return False
    return is_zero(memoryview(read_bytes(source, start, length)))
