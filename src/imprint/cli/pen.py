"""What can be drawn on a terminal: glyphs, columns, colours."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from imprint.cli.console import printable


@dataclass(frozen=True)
class Glyphs:
    """What a picture is made of, one column each.

    Attributes:
        levels: of data in a cell: nothing, up to a quarter, a half, three quarters, more.
        zero: a cell that is mostly zeros.
        unused: a cell of which most is in no file's use.
        bad: a cell with something unreadable in it.
        across: of horizontal lines.
        upright: between partitions.
        corners: left, middle and right of the upper, the middle and the lower line.
        more: where a text is cut off.
    """

    levels: tuple[str, ...]
    zero: str
    unused: str
    bad: str
    across: str
    upright: str
    corners: tuple[tuple[str, str, str], ...]
    more: str


UNICODE: Final = Glyphs(
    levels=(" ", "░", "▒", "▓", "█"),
    zero="·",
    unused="/",
    bad="!",
    across="─",
    upright="│",
    corners=(("┌", "┬", "┐"), ("├", "┼", "┤"), ("└", "┴", "┘")),
    more="…",
)
ASCII: Final = Glyphs(
    levels=(" ", ".", ":", "+", "#"),
    zero="0",
    unused="/",
    bad="!",
    across="-",
    upright="|",
    corners=(("+", "+", "+"),) * 3,
    more="~",
)


class Pen:
    """Turns texts into columns of a terminal."""

    def __init__(self, encoding: str, *, colour: bool) -> None:
        """``encoding`` is the stream's; ``colour`` allows ANSI colours."""
        self.glyphs = _glyphs_for(encoding)
        self._encoding = "ascii" if self.glyphs is ASCII else encoding
        self._has_colour = colour

    def clean(self, text: str) -> str:
        """The text without what the terminal cannot show, or must not be told."""
        return printable(text).encode(self._encoding, errors="replace").decode(self._encoding)

    def fit(self, text: str, width: int, *, right: bool = False) -> str:
        """The text in exactly ``width`` columns, cut off or padded."""
        if columns(text) > width:
            kept = ""
            for char in text:
                if columns(kept + char) > width - 1:
                    break
                kept += char
            text = (kept + self.glyphs.more)[: max(width, 0)]
        padding = " " * (width - columns(text))
        return padding + text if right else text + padding

    def paint(self, text: str, code: int) -> str:
        """The text in a colour, if there are any."""
        return f"\x1b[{code}m{text}\x1b[0m" if self._has_colour and text.strip() else text


def columns(text: str) -> int:
    """How many columns a terminal needs for it."""
    return sum(0 if unicodedata.combining(char) else 2 if _is_wide(char) else 1 for char in text)


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in ("W", "F")


def _glyphs_for(encoding: str) -> Glyphs:
    corners = (glyph for line in UNICODE.corners for glyph in line)
    glyphs = (*UNICODE.levels, UNICODE.zero, UNICODE.across, UNICODE.upright, *corners)
    try:
        "".join((*glyphs, UNICODE.more)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
