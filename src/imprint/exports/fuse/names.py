"""Names of an image as names that a mounted file system can have."""

from __future__ import annotations

import zlib
from typing import Final

BYTES_MAX: Final = 255
"""Of a name: ``NAME_MAX`` of Linux, which the kernel holds FUSE to as well."""

_CUT_CHARS: Final = 48  # of a name that is too long: of 4 bytes each at most, and room for a mark
_WHOLE: Final = {"": "%", ".": "%2E", "..": "%2E%2E"}
_BYTE_CHARS: Final = range(0xDC80, 0xDD00)


def carried(name: str) -> str:
    """The name, with ``%`` and a number for what no name may have: ``/``, NUL, half a character.

    A name that is too long is cut off, and ends in a checksum of all of it.
    """
    if name in _WHOLE:
        return _WHOLE[name]
    if "/" in name or "\0" in name:
        name = name.replace("/", "%2F").replace("\0", "%00")
    try:
        size = len(encoded(name))
    except UnicodeEncodeError:
        name = "".join(map(_escaped, name))
        size = len(encoded(name))
    if size <= BYTES_MAX:
        return name
    return f"{name[:_CUT_CHARS]}%{zlib.crc32(encoded(name)):08x}"


def encoded(name: str) -> bytes:
    """As the kernel has it: what was no UTF-8 is the bytes that it was."""
    return name.encode("utf-8", "surrogateescape")


class Distinct:
    """Gives each name of a folder once: a damaged one may have one name many times."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def take(self, name: str) -> str:
        """A name that can be carried; ``NAME~2``, ``NAME~3`` where others have it."""
        found = wanted = carried(name)
        while found in self._numbers:
            number = self._numbers[wanted] = self._numbers[wanted] + 1
            mark = f"~{number}"
            found = f"{wanted}{mark}"
            if len(encoded(found)) > BYTES_MAX:
                found = f"{wanted[:_CUT_CHARS]}{mark}"
        self._numbers[found] = 1
        return found


def _escaped(char: str) -> str:
    """Lone surrogates, but for those that stand for bytes: UTF-16 has them, UTF-8 has not."""
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF and code not in _BYTE_CHARS:  # noqa: PLR2004 - Unicode 15, 3.8
        return f"%u{code:04X}"
    return char
