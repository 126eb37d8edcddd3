"""Segments of AFF files: named pieces, one after the other.

::

    magic | head, name, data, tail | head, name, data, tail | …

Source: *The Advanced Forensic Format* (Garfinkel et al., 2006), section 4; AFFLIB's manual.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import MIB

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

MAGIC: Final = b"AFF10\r\n\0"
HEAD_MAGIC: Final = b"AFF\0"
TAIL_MAGIC: Final = b"ATT\0"

COMPRESSED: Final = 0x01
METHOD_MASK: Final = 0xF0
METHOD_ZLIB: Final = 0x00
METHOD_BZIP2: Final = 0x10
METHOD_LZMA: Final = 0x20
METHOD_ZERO: Final = 0x30

PAGE_BYTES_MAX: Final = 32 * MIB
"""AFFLIB makes pages of 16 MiB. A page is decoded in memory, twice."""

SEGMENTS_MAX: Final = 1 << 18
"""4 TiB in pages of 16 MiB; about a second of walking."""

_NAME_BYTES_MAX: Final = 64
_TEXT_BYTES_MAX: Final = 4096
_PAGE_NUMBER_MAX: Final = 1 << 40


class Head(Structure, size=16, endian=">"):
    """Before a segment's name."""

    magic: bytes = raw(4, at=0, doc="AFF")
    name_size: int = uint(4, at=4, doc="bytes of the name; 0: the segment was deleted")
    data_size: int = uint(4, at=8, doc="bytes of the data")
    argument: int = uint(4, at=12, doc="a number, or flags of a page")


class Tail(Structure, size=8, endian=">"):
    """Behind a segment's data."""

    magic: bytes = raw(4, at=0, doc="ATT")
    size: int = uint(4, at=4, doc="bytes of the segment, head and tail included")


@dataclass(frozen=True)
class Page:
    """A piece of the disk.

    Attributes:
        storage: that holds it.
        offset: of its data there.
        length: of its data there.
        flags: how it is packed.
    """

    storage: Storage
    offset: int
    length: int
    flags: int

    @property
    def method(self) -> int | None:
        """How it is packed; ``None``: not at all."""
        return self.flags & METHOD_MASK if self.flags & COMPRESSED else None


@dataclass
class Contents:
    """What the segments of a file, or of several, say.

    Attributes:
        pages: by number.
        numbers: arguments of segments without data.
        values: data of short segments.
        faults: what is wrong with the file's structure.
    """

    pages: dict[int, Page] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def quad(self, name: str) -> int | None:
        """A number of 64 bits, the lower half first."""
        value = self.values.get(name)
        if value is None or len(value) != 8:
            return None
        return int.from_bytes(value[:4], "big") | int.from_bytes(value[4:], "big") << 32

    def text(self, name: str) -> str:
        """A text; empty if there is none."""
        return self.values.get(name, b"").decode("utf-8", "replace").strip('\0 "')


def walk(storage: Storage, contents: Contents) -> None:
    """Add the segments of a file; where they end too early, that is a fault.

    Raises:
        CorruptImageError: if it is no AFF file, or has a page twice.
        UnsupportedFeatureError: if it has more segments than are read, or is encrypted.
    """
    if _bytes(storage, 0, len(MAGIC)) != MAGIC:
        raise CorruptImageError("expected the head of an AFF file, found none", name=storage.name)
    position, count = len(MAGIC), 0
    while position < storage.size:
        start = _bytes(storage, position, Head.SIZE + _NAME_BYTES_MAX)
        if len(start) < Head.SIZE or not start.startswith(HEAD_MAGIC):
            contents.faults.append(f"expected a segment at 0x{position:x}, found none")
            return
        head = Head.unpack(start)
        data_at = position + Head.SIZE + head.name_size
        end = data_at + head.data_size + Tail.SIZE
        tail = _bytes(storage, end - Tail.SIZE, Tail.SIZE)
        if tail != TAIL_MAGIC + (end - position).to_bytes(8, "big")[4:]:
            contents.faults.append(f"expected the end of a segment at 0x{end - Tail.SIZE:x}")
            return
        count += 1
        if count > SEGMENTS_MAX:
            raise UnsupportedFeatureError(
                f"expected at most {SEGMENTS_MAX} segments, found more", name=storage.name
            )
        if head.name_size <= _NAME_BYTES_MAX:
            name = start[Head.SIZE : Head.SIZE + head.name_size].decode("ascii", "replace")
            _add(contents, storage, name, head, data_at)
        position = end


def _add(contents: Contents, storage: Storage, name: str, head: Head, data_at: int) -> None:
    if name.startswith("affkey") or name.endswith("/aes256"):
        raise UnsupportedFeatureError("is encrypted, which cannot be read", name=storage.name)
    digits = name[4:] if name.startswith("page") else name[3:] if name.startswith("seg") else ""
    if digits.isascii() and digits.isdigit() and len(digits) <= 13:
        number = int(digits)
        if number > _PAGE_NUMBER_MAX:
            raise CorruptImageError(f"expected a page number, found {number}", name=storage.name)
        if number in contents.pages:
            raise CorruptImageError(
                f"expected each page once, found page {number} again", name=storage.name
            )
        contents.pages[number] = Page(storage, data_at, head.data_size, head.argument)
    elif not head.data_size:
        contents.numbers.setdefault(name, head.argument)
    elif head.data_size <= _TEXT_BYTES_MAX and name and "/" not in name:
        contents.values.setdefault(name, _bytes(storage, data_at, head.data_size))


def _bytes(storage: Storage, offset: int, length: int) -> bytes:
    """What there is of a range."""
    buffer = bytearray(max(0, min(length, storage.size - offset)))
    if buffer:
        storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)
