"""Names in FAT: eleven bytes of a code page, and long ones in entries of their own.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, FAT Long Directory Entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

LONG_NAME: Final = 0x0F
"""The attributes of an entry that holds a piece of a long name."""

DOTS: Final = frozenset({b".".ljust(11), b"..".ljust(11)})
"""Short names of what stands for a folder itself, and for the one above."""

_LAST: Final = 0x40
_UNITS: Final = 13
_NAME_UNITS_MAX: Final = 255
_FORBIDDEN: Final = frozenset('"*/:<>?\\|')
_SHORT_BESIDES: Final = frozenset("$%'-_@~`!(){}^#&")
_CODE_PAGE: Final = "cp437"
_KANJI: Final = 0x05  # stands for 0xE5 as first byte, which would mean deleted
_TAIL_MAX: Final = 999_999


def check_name(name: str) -> None:
    """Refuse what no file of a FAT file system can be called.

    Raises:
        UsageError: if it is such a name.
    """
    units = len(name.encode("utf-16-le", "surrogatepass")) // 2
    problem = None
    if name in ("", ".", ".."):
        problem = "a name"
    elif any(char < " " or char in _FORBIDDEN for char in name):
        problem = 'a name without control characters and without " * / : < > ? \\ |'
    elif name[-1] in " .":
        problem = "a name that does not end with a blank or a dot"
    elif units > _NAME_UNITS_MAX:
        problem = f"a name of at most {_NAME_UNITS_MAX} characters"
    if problem is not None:
        raise UsageError(f"expected {problem}, found {name!r:.60}")


def short_name(name: str, taken: Collection[bytes]) -> tuple[bytes, bool]:
    """Eleven bytes for a name, and whether they say all of it.

    Args:
        name: as the user has it.
        taken: the short names that are in the folder.
    """
    base, _, extension = name.rpartition(".")
    if not base:
        base, extension = name, ""
    plain = _encoded(base), _encoded(extension)
    found = _packed(*plain)
    if len(plain[0]) <= 8 and len(plain[1]) <= 3:
        said = short_text(found + bytes(2))
        if said == name:
            return found, True
        if said == name.upper() and found not in taken:
            return found, False
    for number in range(1, _TAIL_MAX):
        tail = b"~%d" % number
        found = _packed(plain[0][: 8 - len(tail)] + tail, plain[1][:3])
        if found not in taken:
            return found, False
    raise UsageError(f"expected fewer files with names such as {name!r:.60}")


def long_entries(name: str, short: bytes) -> list[bytes]:
    """The entries that hold a long name, in the order in which they precede the short one's."""
    units = name.encode("utf-16-le", "surrogatepass")
    if len(units) % (2 * _UNITS):
        units += b"\0\0"
        units += b"\xff" * (-len(units) % (2 * _UNITS))
    check = checksum(short)
    entries = []
    for number in range(len(units) // (2 * _UNITS)):
        part = units[number * 2 * _UNITS :][: 2 * _UNITS]
        is_last = (number + 1) * 2 * _UNITS == len(units)
        order = number + 1 | (_LAST if is_last else 0)
        entries.append(
            bytes([order])
            + part[:10]
            + bytes([LONG_NAME, 0, check])
            + part[10:22]
            + bytes(2)
            + part[22:]
        )
    return entries[::-1]


def long_part(entry: bytes) -> bytes:
    """The thirteen units that an entry holds of a long name, as UTF-16."""
    return entry[1:11] + entry[14:26] + entry[28:32]


def long_text(parts: list[bytes]) -> str:
    """A long name of its parts, the first one first."""
    return b"".join(parts).decode("utf-16-le", "surrogatepass").partition("\0")[0]


def short_text(entry: bytes) -> str:
    """The name that a short entry has by itself, with the case that Windows NT keeps for it."""
    raw = (b"\xe5" + entry[1:11]) if entry[0] == _KANJI else entry[:11]
    base, extension = raw[:8].rstrip().decode(_CODE_PAGE), raw[8:].rstrip().decode(_CODE_PAGE)
    if entry[12] & 0x08:
        base = base.lower()
    if entry[12] & 0x10:
        extension = extension.lower()
    return f"{base}.{extension}" if extension else base


def checksum(short: bytes) -> int:
    """Of a short name: what its long name's entries must have."""
    value = 0
    for byte in short:
        value = ((value >> 1) + (value << 7 & 0x80) + byte) & 0xFF
    return value


def _encoded(text: str) -> bytes:
    """What a short name can have of it: without blanks and dots, in capitals."""
    found = bytearray()
    for char in text.upper():
        if char in " .":
            continue
        plain = char.isascii() and (char.isalnum() or char in _SHORT_BESIDES)
        try:
            found += char.encode(_CODE_PAGE) if plain or not char.isascii() else b"_"
        except UnicodeEncodeError:
            found += b"_"
    return bytes(found) or b"_" if text else b""


def _packed(base: bytes, extension: bytes) -> bytes:
    found = base.ljust(8) + extension.ljust(3)
    return bytes([_KANJI]) + found[1:] if found[0] == 0xE5 else found
