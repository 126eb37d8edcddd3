"""Dates and times of DOS, which FAT and exFAT keep."""

from __future__ import annotations

import calendar
from functools import lru_cache
from typing import Final

NS: Final = 1_000_000_000
_EPOCH_YEAR: Final = 1980

_KEPT: Final = 1 << 12
"""Many files are of the same moments, and all of the same days."""


@lru_cache(_KEPT)
def moment_of(date: int, clock: int) -> int | None:
    """In ns since 1970, as if it were UTC; ``None``: it is none.

    Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, Date and Time Formats.
    """
    month, day = date >> 5 & 0xF, date & 0x1F
    if not (1 <= month <= 12 and day):
        return None
    hours, minutes, seconds = clock >> 11, clock >> 5 & 0x3F, 2 * (clock & 0x1F)
    return calendar.timegm((_EPOCH_YEAR + (date >> 9), month, day, hours, minutes, seconds)) * NS
