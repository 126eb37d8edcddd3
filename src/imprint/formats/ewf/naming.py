"""The names of segments: E01 to E99, then EAA to EZZ, FAA … to ZZZ.

Source: libewf's document, "Segment file extensions".
"""

from __future__ import annotations

import re
from typing import Final

from imprint.core.errors import UsageError

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBERED: Final = 99
_TAIL: Final = len(_LETTERS) ** 2

_UNFINISHED: Final = ".partial"
"""Files are named for what they will be, not for what they are while they are made."""

_SUFFIX: Final = re.compile(r"\.([els])(x?)01", re.IGNORECASE)


class Names:
    """What the segments of one set are called, by the name of the first."""

    def __init__(self, first: str) -> None:
        """``first``: path or address of the first segment."""
        self.first = re.split(r"[/\\]", first)[-1].removesuffix(_UNFINISHED)
        found = _SUFFIX.fullmatch(self.first[-5:]) or _SUFFIX.fullmatch(self.first[-4:])
        self.stem = self.first[: -len(found[0])] if found else self.first
        self._letter, self._is_second = (found[1], bool(found[2])) if found else ("", False)
        self._middle = found[2] if found else ""

    @property
    def is_first(self) -> bool:
        """Whether the name is one of a first segment."""
        return bool(self._letter)

    @property
    def count_max(self) -> int:
        """How many segments can have names."""
        start = _LETTERS.index("X" if self._is_second else self._letter.upper())
        return _NUMBERED + (len(_LETTERS) - start) * _TAIL

    def suffix(self, number: int) -> str:
        """The suffix of a segment, with its dot.

        Raises:
            UsageError: if there is no name for it.
        """
        if not self._letter:
            raise UsageError(
                "expected the name of a first segment, like disk.E01, for an image of several "
                f"files; found {self.first!r}"
            )
        if not 1 <= number <= self.count_max:
            raise UsageError(
                f"expected at most {self.count_max} segments",
                advice="make them larger with -o segment_size=SIZE",
            )
        if number <= _NUMBERED:
            return f".{self._letter}{self._middle}{number:02}"
        high, low = divmod(number - _NUMBERED - 1, _TAIL)
        pair = _LETTERS[low // len(_LETTERS)] + _LETTERS[low % len(_LETTERS)]
        moving = self._middle if self._is_second else self._letter
        moved = _LETTERS[_LETTERS.index(moving.upper()) + high]
        moved = moved.lower() if moving.islower() else moved
        pair = pair.lower() if self._letter.islower() else pair
        return f".{self._letter if self._is_second else ''}{moved}{pair}"

    def name(self, number: int) -> str:
        """The file name of a segment, without a folder.

        Raises:
            UsageError: if there is no name for it.
        """
        return self.first if number == 1 else self.stem + self.suffix(number)
