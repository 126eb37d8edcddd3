"""Tar archives: the headers of what is written, and where the files of one are.

Source: POSIX.1-1988 *ustar*, the GNU tar manual, "Basic Tar Format" and "GNU Extensions", and
POSIX.1-2001 *pax*, whose headers are only read.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UsageError
from imprint.core.units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
"""What an archive is filled up to, as tar does."""

NAME_BYTES_MAX: Final = 100
OCTAL_MAX: Final = (1 << 33) - 1
"""Eleven octal digits: files from 8 GiB on need GNU's binary sizes."""

MEMBERS_MAX: Final = 4096
"""Real packages have below 20; an archive of a million empty files should not be walked."""

_EXTENSION_BYTES_MAX: Final = 1 << 16
"""Of a long name, or of a pax header: more is no name."""

_HEADER: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_POSIX: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \0"
_ZERO: Final = b"0000000\0"
_CHECKSUM: Final = slice(148, 156)
_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)[ \0]*\Z")
_PAX: Final = re.compile(rb"(\d+) ([^=\n]+)=")
_REGULAR: Final = b"0\0"
_LONG_NAME: Final = b"L"
_PAX_NEXT: Final = b"x"


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def header(name: str, size: int, time_s: int, *, is_gnu: bool = False) -> bytes:
    """The block before a file's bytes.

    It is *ustar* unless ``is_gnu``; a file of 8 GiB or more gets GNU's binary size and its
    magic either way: of what goes beyond ustar, it is what readers of OVAs understand.

    Raises:
        UsageError: for a time behind the year 2242.
    """
    packed_name = name.encode()
    assert 0 < len(packed_name) <= NAME_BYTES_MAX
    if time_s > OCTAL_MAX:
        raise UsageError(f"expected a time of at most {OCTAL_MAX} seconds, found {time_s}")
    is_gnu = is_gnu or size > OCTAL_MAX
    device = b"" if is_gnu else _ZERO
    block = bytearray(
        _HEADER.pack(
            packed_name,
            b"0000644\0",
            _ZERO,
            _ZERO,
            b"%011o\0" % size if size <= OCTAL_MAX else b"\x80" + size.to_bytes(11, "big"),
            b"%011o\0" % time_s,
            b" " * 8,
            b"0",
            b"",
            _GNU if is_gnu else _POSIX,
            b"",
            b"",
            device,
            device,
            b"",
        )
    )
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def end_of(position: int) -> int:
    """How long an archive is whose last file, filled up, ends at ``position``."""
    return align_up(position + 2 * BLOCK, RECORD)


def members(storage: Storage, limit: int = MEMBERS_MAX) -> Iterator[Member]:
    """The regular files of an archive, in order; reads the headers only.

    Raises:
        CorruptImageError: if it is no sound archive, or has more files than make sense.
    """
    position, count = 0, 0
    long_name: str | None = None
    long_size: int | None = None
    while (block := _block(storage, position)) is not None:
        count += 1
        if count > limit:
            raise CorruptImageError(f"expected at most {limit} files", name=storage.name)
        fields = _HEADER.unpack(block)
        size, kind = _number(fields[4], storage, position), fields[7]
        start = position + BLOCK
        if kind in (_LONG_NAME, _PAX_NEXT):
            extension = _extension(storage, start, size)
            if kind == _LONG_NAME:
                long_name = _text(extension)
            else:
                long_name, long_size = _pax(extension, long_name, long_size)
        else:
            size = size if long_size is None else long_size
            if start + size > storage.size:
                raise CorruptImageError(
                    f"expected {size} bytes of a file at 0x{start:x}, found the archive's end "
                    f"at 0x{storage.size:x}",
                    name=storage.name,
                    offset=start,
                )
            if kind in _REGULAR:
                yield Member(long_name or _name(fields), start, size)
            long_name = long_size = None
        position = start + align_up(size, BLOCK)


def _block(storage: Storage, position: int) -> bytes | None:
    """The header at ``position``; ``None`` at the end of the archive."""
    if position + BLOCK > storage.size:
        if position == storage.size or (position and position > storage.size):
            return None  # some programs leave out the blocks that mark the end
        raise CorruptImageError(
            "expected a tar archive, found an end inside a header", name=storage.name
        )
    block = bytearray(BLOCK)
    storage.readinto(memoryview(block), position)
    if not any(block):
        return None
    stored = _number(bytes(block[_CHECKSUM]), storage, position)
    block[_CHECKSUM], kept = b" " * 8, bytes(block[_CHECKSUM])
    if stored != sum(block):
        raise CorruptImageError(
            f"expected a tar header at 0x{position:x}, found a wrong checksum",
            name=storage.name,
            offset=position,
        )
    block[_CHECKSUM] = kept
    return bytes(block)


def _number(field: bytes, storage: Storage, position: int) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    found = _OCTAL.match(field)
    if found is None:
        raise CorruptImageError(
            f"expected an octal number in the tar header at 0x{position:x}, found {field!r}",
            name=storage.name,
            offset=position,
        )
    return int(found.group(1) or b"0", 8)


def _extension(storage: Storage, start: int, size: int) -> bytes:
    if size > min(_EXTENSION_BYTES_MAX, storage.size - start):
        raise CorruptImageError(
            f"expected an extended header of at most {_EXTENSION_BYTES_MAX} bytes, found {size}",
            name=storage.name,
            offset=start,
        )
    data = bytearray(size)
    storage.readinto(memoryview(data), start)
    return bytes(data)


def _pax(data: bytes, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    """What an extended header says of the next file's name and size."""
    position = 0
    while (found := _PAX.match(data, position)) is not None:
        length = int(found.group(1)[:9])
        value = data[found.end() : position + length - 1]
        if found.group(2) == b"path":
            name = _text(value)
        elif found.group(2) == b"size" and value.isdigit():
            size = int(value[:20])
        position += max(1, length)
    return name, size


def _name(fields: tuple[bytes, ...]) -> str:
    name = _text(fields[0])
    prefix = _text(fields[14]) if fields[9] == _POSIX else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
