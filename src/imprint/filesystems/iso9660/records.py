"""Records of folders, as ISO 9660 has them.

Source: ECMA-119 (ISO 9660), 9.1 (directory records), 8.4 (primary volume descriptor); the Joliet
Specification 1995.
"""

from __future__ import annotations

import calendar
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

SECTOR: Final = 2 * KIB
"""No record crosses the border of one."""

DIRECTORY: Final = 0x02
ASSOCIATED: Final = 0x04
GOES_ON: Final = 0x80
"""Another record follows, with a further extent of the file."""

_PIECE_BYTES: Final = 32 * SECTOR
_HEAD: Final = struct.Struct("<BBI4xI4x7sBBB4xB")
NS: Final = 1_000_000_000


class Volume(Structure, size=SECTOR, endian="<"):
    """A volume descriptor, as far as it tells of folders."""

    type: int = uint(1, at=0, doc="1 primary, 2 supplementary, 255 the last")
    mark: bytes = raw(5, at=1, doc="CD001")
    block_count: int = uint(4, at=80, doc="of the volume, from the start of its session")
    escapes: bytes = raw(32, at=88, doc="of Joliet")
    block_size: int = uint(2, at=128, doc="512, 1024 or 2048")
    root: bytes = raw(34, at=156, doc="its record")


class Record(NamedTuple):
    """A record of a folder.

    Attributes:
        place: of it, in bytes of the volume.
        extent: where its content begins, in blocks.
        attributes: blocks before that with further facts.
        size: of this extent, in bytes.
        date: 7 bytes.
        flags: of it.
        is_interleaved: the content has gaps.
        name: as it stands.
        system: what systems have put there: Rock Ridge.
    """

    place: int
    extent: int
    attributes: int
    size: int
    date: bytes
    flags: int
    is_interleaved: bool
    name: bytes
    system: bytes


def record_at(data: bytes, at: int, end: int, place: int) -> Record | None:
    """The record at a place of a piece of a folder; ``None`` if it does not end before ``end``."""
    end = min(end, len(data))
    if at + _HEAD.size > end:
        return None
    length, attributes, extent, size, date, flags, unit, gap, count = _HEAD.unpack_from(data, at)
    if length < _HEAD.size + count or at + length > end:
        return None
    start = at + _HEAD.size
    rest = start + count + (count + 1) % 2
    return Record(
        place,
        extent,
        attributes,
        size,
        date,
        flags,
        bool(unit or gap),
        data[start : start + count],
        data[rest : at + length],
    )


def records_of(reader: VolumeReader, offset: int, size: int) -> Iterator[Record]:
    """All records of a folder, read in pieces.

    Raises:
        CorruptImageError: if they are outside of the volume, or no records.
        ReadError: if they cannot be read.
    """
    for start in range(offset, offset + size, _PIECE_BYTES):
        length = min(_PIECE_BYTES, offset + size - start)
        data = bytes(reader.read(start, length, "folder"))
        at = 0
        while at < length:
            if data[at] == 0:  # the rest of the sector is empty
                at += SECTOR - at % SECTOR
                continue
            record = record_at(data, at, at + SECTOR - at % SECTOR, start + at)
            if record is None:
                raise CorruptImageError(
                    f"expected a record of a folder at 0x{start + at:x}", name=reader.name
                )
            yield record
            at += data[at]


def time_of(date: bytes) -> int | None:
    """In ns since 1970, of 7 bytes: year since 1900 to second, and quarters of an hour east."""
    year, month, day, hour, minute, second, zone = struct.unpack("6Bb", date)
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return None
    seconds = calendar.timegm((1900 + year, month, day, hour, minute, second, 0, 0, 0))
    return (seconds - int(zone) * 900) * NS


def long_time_of(date: bytes) -> int | None:
    """The same of 17 bytes: 16 digits, to hundredths of a second, and the zone."""
    digits, zone = date[:16], int(struct.unpack("b", date[16:17])[0])
    if not digits.isdigit() or digits[:14] == b"0" * 14:
        return None
    parts = [int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, 16, 2))]
    if not parts[0] or not 1 <= parts[1] <= 12 or not 1 <= parts[2] <= 31:
        return None
    seconds = calendar.timegm((*parts[:6], 0, 0, 0))
    return (seconds - zone * 900) * NS + parts[6] * 10_000_000
