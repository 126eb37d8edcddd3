"""When files of exFAT were changed, looked at and made: each time has a zone of its own.

Source: Microsoft, "exFAT file system specification", 7.4.5 to 7.4.10.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.dos_times import NS, moment_of
from imprint.filesystems.exfat.geometry import read_geometry
from imprint.filesystems.tree import Times

if TYPE_CHECKING:
    from imprint.core.contracts import Source

_ENTRY: Final = struct.Struct("<B7xIIIBBBBB7x")
"""Type; stamps of making, changing, looking at; hundredths of the first two; zones of all."""

_FILE: Final = 0x05
_IN_USE: Final = 0x80
_HAS_ZONE: Final = 0x80
_QUARTER_S: Final = 15 * 60
_BLOCK_BYTES: Final = 512
"""No disk loses less."""

_BLOCKS_KEPT: Final = 64
_FIRST_INODE: Final = 3
"""To The Sleuth Kit, of the first entry that the first cluster could have."""


class EntryTimes:
    """Reads them of the entries of folders."""

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if its boot sector contradicts itself.
            ReadError: if that cannot be read.
        """
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        self._start = read_geometry(self._reader).heap_at
        self._block = lru_cache(_BLOCKS_KEPT)(self._read_block)

    def of(self, inode: int) -> Times | None:
        """Of what has a number of The Sleuth Kit's; ``None`` if it is no file."""
        at = self._start + (inode - _FIRST_INODE) * _ENTRY.size
        if inode < _FIRST_INODE or at + _ENTRY.size > self._reader.size:
            return None
        number, inside = divmod(at, _BLOCK_BYTES)
        block = self._block(number)
        if block is None or inside + _ENTRY.size > len(block):
            return None
        entry = _ENTRY.unpack_from(block, inside)
        kind, created, modified, accessed, more_created, more_modified, *zones = entry
        if kind & ~_IN_USE != _FILE:
            return None
        return Times(
            _time(modified, more_modified, zones[1]),
            _time(accessed, 0, zones[2]),
            None,
            _time(created, more_created, zones[0]),
        )

    def _read_block(self, number: int) -> bytes | None:
        """Entries that lie side by side; ``None`` if they cannot be read."""
        start = number * _BLOCK_BYTES
        length = min(_BLOCK_BYTES, self._reader.size - start)
        try:
            return bytes(self._reader.read(start, length, "entries of a folder"))
        except ReadError:
            return None


def _time(stamp: int, hundredths: int, zone: int) -> int | None:
    """Without a zone it is local time of nobody knows where, taken for UTC."""
    local = moment_of(stamp >> 16, stamp & 0xFFFF)
    if local is None:
        return None
    quarters = (zone & 0x7F) - (zone << 1 & 0x80) if zone & _HAS_ZONE else 0
    return local + min(hundredths, 199) * (NS // 100) - quarters * _QUARTER_S * NS
