"""Names, targets of links and times, as UDF writes them.

Source: OSTA UDF 2.60, 2.1.1 (compressed unicode), 2.1.3 (dstrings), 2.3.4.2 (deleted names),
3.3.2 (permissions); ECMA-167, 1/7.3 (timestamps), 4/14.16 (path components).
"""

from __future__ import annotations

import calendar
import struct
from typing import Final

_ENCODINGS: Final = {8: "latin-1", 254: "latin-1", 16: "utf-16-be", 255: "utf-16-be"}
"""By the first byte of a name; the higher ones are of names that were deleted."""

_TIME: Final = struct.Struct("<Hh8B")
_NO_ZONE: Final = -2047
_LOCAL: Final = 1
_ROOT: Final = 2
_PARTS: Final = {3: "..", 4: "."}
_NAMED: Final = 5


def name_of(raw: bytes) -> str:
    """Compressed unicode: its first byte says how wide characters are; empty if it does not."""
    encoding = _ENCODINGS.get(raw[0]) if raw else None
    return "" if encoding is None else raw[1:].decode(encoding, "replace")


def dstring(field: bytes) -> str:
    """Text in a field of fixed size, with its length in the last byte."""
    return name_of(field[: max(1, min(field[-1], len(field) - 1))])


def time_of(stamp: bytes) -> int | None:
    """In ns since 1970, of 12 bytes: local time, and minutes east of UTC in 12 bits."""
    kind, year, month, day, hour, minute, second, *parts = _TIME.unpack(stamp)
    if not 1 <= year <= 9999 or not 1 <= month <= 12 or not 1 <= day <= 31:
        return None
    seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    zone = (kind & 0x7FF) - (kind & 0x800)
    if kind >> 12 == _LOCAL and zone != _NO_ZONE:
        seconds -= zone * 60
    micro = parts[0] * 10_000 + parts[1] * 100 + parts[2]
    return (seconds * 1_000_000 + (micro if micro < 1_000_000 else 0)) * 1000


def mode_of(permissions: int) -> int:
    """As Unix has it: of each five bits the lower three."""
    return permissions & 7 | permissions >> 2 & 0o70 | permissions >> 4 & 0o700


def target_of(data: bytes) -> str:
    """Where a symbolic link leads, from its path components."""
    parts: list[str] = []
    at = 0
    while at + 4 <= len(data):
        kind, length = data[at], data[at + 1]
        if kind == _ROOT or (kind == 1 and length == 0):
            parts = [""]
        elif kind == _NAMED:
            parts.append(name_of(data[at + 4 : at + 4 + length]))
        elif kind in _PARTS:
            parts.append(_PARTS[kind])
        at += 4 + length
    return "/" if parts == [""] else "/".join(parts)
