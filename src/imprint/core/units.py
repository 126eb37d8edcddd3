"""Sizes: parsing what users write, showing what they read. All units are powers of 1024."""

from __future__ import annotations

import re
import time
from typing import Final

from imprint.core.errors import UsageError

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

# No more digits than any size has: of some thousands, int() refuses to make a number.
_SIZE = re.compile(r"(\d{1,30})(?:\.(\d{1,30}))?\s*([KMGTPE]?)(?:I?B)?", re.IGNORECASE)
_UNITS: Final = "KMGTPE"


def counted(number: int, thing: str) -> str:
    """``1 area``, ``2 areas``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def parse_size(text: str) -> int:
    """Bytes in ``512``, ``64K``, ``1.5G`` or ``2TiB``.

    Raises:
        UsageError: if ``text`` is not a size, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"expected a size like 512, 64K or 10G, found {text!r}")
    whole, fraction, unit = match.groups()
    factor = 1 << (10 * (_UNITS.index(unit.upper()) + 1)) if unit else 1
    size = int(whole) * factor
    if fraction:
        part, rest = divmod(int(fraction) * factor, 10 ** len(fraction))
        if rest and not unit:
            raise UsageError(f"expected a whole number of bytes, found {text!r}")
        size += part
    return size


def format_size(size: int) -> str:
    """``size`` in the largest unit that keeps it at 1 or above: ``1.5 GiB``, ``512 bytes``."""
    if size < KIB:
        return f"{size} bytes" if size != 1 else "1 byte"
    value = float(size)
    unit = ""
    for unit in _UNITS:  # noqa: B007 - the last one is what is used
        value /= 1024
        text = f"{value:.1f}".removesuffix(".0")
        if text != "1024" and value < KIB:
            break
    return f"{text} {unit}iB"


def align_down(value: int, grain: int) -> int:
    """The largest multiple of ``grain`` that is not above ``value``."""
    return value - value % grain


def align_up(value: int, grain: int) -> int:
    """The smallest multiple of ``grain`` that is not below ``value``."""
    return -(-value // grain) * grain


def div_up(value: int, divisor: int) -> int:
    """``value / divisor``, rounded up."""
    return -(-value // divisor)


def utc_text(seconds: float | None = None) -> str:
    """A moment as ISO 8601 has it, in UTC, to the second.

    Args:
        seconds: since 1970; ``None``: now.

    Raises:
        OverflowError: if no calendar has it.
        OSError: the same.
        ValueError: the same.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
