"""What is in a folder: file identifier descriptors, one behind the other.

Source: ECMA-167, 4/14.4; OSTA UDF 2.60, 2.3.4.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.units import KIB, MIB
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.icbs import Address, address_of
from imprint.filesystems.udf.layout import problem_of
from imprint.filesystems.udf.text import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source

DELETED: Final = 1 << 2
PARENT: Final = 1 << 3

FOLDER_BYTES_MAX: Final = 1 << 30

_TRIED_MAX: Final = 1 << 16
_TRIED_BYTES_MAX: Final = 64 * MIB
"""What is looked at, of one folder, in search of the next name behind what is none: as many places,
and as many bytes of which a checksum is taken."""

_PIECE: Final = 64 * KIB
_HEAD: Final = struct.Struct("<16xHBB16sH")
_LONGEST: Final = _HEAD.size + 255 + 0xFFFF + 3
_MARK: Final = struct.pack("<H", layout.NAME)


class Name(NamedTuple):
    """A name in a folder.

    Attributes:
        text: as it is shown.
        flags: DELETED, PARENT and others.
        entry: where its file's entry is.
        problem: what is wrong with its tag; ``None``: nothing.
    """

    text: str
    flags: int
    entry: Address
    problem: str | None


def names_of(contents: Sequence[Source], size_max: int) -> Iterator[Name | str]:
    """All names of a folder; in between, what could not be followed.

    Args:
        contents: of the folder; those behind the first are copies.
        size_max: that it may have, in bytes: it has no holes.

    Raises:
        CorruptImageError: if it is larger than any folder, or too much of it is none.
        ReadError: if it cannot be read.
    """
    size = contents[0].size
    if size > min(size_max, FOLDER_BYTES_MAX):
        raise CorruptImageError(
            f"expected a folder of at most {min(size_max, FOLDER_BYTES_MAX)} bytes, found {size}"
        )
    search = _Search()
    data, start, at = b"", 0, 0
    while at + _HEAD.size <= size:
        if at + _LONGEST > start + len(data) and start + len(data) < size:
            data = _read(contents, at, min(max(_PIECE, 2 * _LONGEST), size - at))
            start = at
        length, found = _name_at(data, at - start)
        if found is not None:
            yield found
            at += length
            continue
        following = search.next(data, at - start + 4)
        if following is None:
            following = max(len(data) - _HEAD.size + 1, at - start + 4) // 4 * 4
        yield f"expected a name at byte {at} of it, found none in {start + following - at} bytes"
        at = start + following


def _read(contents: Sequence[Source], offset: int, length: int) -> bytes:
    """From the first of several that can be read."""
    buffer = bytearray(length)
    for number, content in enumerate(contents):
        try:
            content.readinto(memoryview(buffer), offset)
        except ReadError:
            if number == len(contents) - 1:
                raise
            continue
        break
    return bytes(buffer)


def _name_at(data: bytes, at: int) -> tuple[int, Name | None]:
    """Length of the descriptor there, and what it says; ``None`` if it is none."""
    if data[at : at + 2] != _MARK:
        return 0, None
    _, flags, name_bytes, icb, use_bytes = _HEAD.unpack_from(data, at)
    length = (_HEAD.size + use_bytes + name_bytes + 3) & ~3
    if at + length - 3 > len(data):
        return 0, None
    name = at + _HEAD.size + use_bytes
    text = name_of(data[name : name + name_bytes])
    problem = problem_of(data[at : at + length], None)
    return length, Name(text, flags, address_of(icb), problem)


class _Search:
    """Looks for names in a folder that is damaged."""

    def __init__(self) -> None:
        self._tried = 0
        self._tried_bytes = 0

    def next(self, data: bytes, at: int) -> int | None:
        """Where the next sound descriptor begins, at a multiple of 4 from there.

        Raises:
            CorruptImageError: if too much looked like one, and was none.
        """
        first = at % 4
        while (at := data.find(_MARK, at)) >= 0 and at + _HEAD.size <= len(data):
            if at % 4 == first:
                length, found = _name_at(data, at)
                if length and found is not None and found.problem is None:
                    return at
                self._tried += 1
                self._tried_bytes += length
                if self._tried > _TRIED_MAX or self._tried_bytes > _TRIED_BYTES_MAX:
                    raise CorruptImageError("expected names, found too much that is none")
            at += 1
        return None
