"""Zip archives over a storage, for reading: every size is compared with the file first.

Only what AFF4 uses: members that are stored or deflated, ZIP64, no encryption, no spanning.
The directory is kept as it is in the file, with a table of where each name's entry begins.

Source: PKWARE *APPNOTE* 6.3, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to
4.3.16 (ends), 4.5.3 (ZIP64 extra field).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.codecs import deflate
from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
ENTRY: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
END: Final = struct.Struct("<4sHHHHIIH")
END64: Final = struct.Struct("<4sQHHIIQQQQ")
LOCATOR: Final = struct.Struct("<4sIQI")

LOCAL_MAGIC: Final = b"PK\3\4"
ENTRY_MAGIC: Final = b"PK\1\2"
END_MAGIC: Final = b"PK\5\6"
END64_MAGIC: Final = b"PK\6\6"
LOCATOR_MAGIC: Final = b"PK\6\7"

FULL: Final = 0xFFFFFFFF
EXTRA_ZIP64: Final = 1
STORED: Final = 0
DEFLATED: Final = 8

_DIRECTORY_BYTES_MAX: Final = 48 * MIB
"""About 300,000 members: 4 TiB of stored chunks. Half a second of parsing, 150 MiB of memory."""

_TAIL_BYTES: Final = 64 * KIB
_COMMENT_MAX: Final = 0xFFFF


@dataclass(frozen=True)
class Member:
    """A file in the archive.

    Attributes:
        name: as in the directory.
        method: ``STORED`` or ``DEFLATED``.
        crc: CRC-32 of its bytes.
        stored: bytes that it takes up.
        size: its bytes.
        offset: of its local header.
    """

    name: str
    method: int
    crc: int
    stored: int
    size: int
    offset: int


class Archive:
    """An archive's directory. Thread-safe."""

    def __init__(self, storage: Storage) -> None:
        """Read the directory.

        Raises:
            CorruptImageError: if there is none, or it contradicts itself or the file.
            UnsupportedFeatureError: if it is larger than what is read.
        """
        self.storage = storage
        offset, size, self.comment = _find_directory(storage)
        if size > _DIRECTORY_BYTES_MAX:
            raise UnsupportedFeatureError(
                f"expected an archive directory of at most {_DIRECTORY_BYTES_MAX} bytes, "
                f"found {size}",
                name=storage.name,
            )
        self._directory = read_range(storage, offset, size, "archive directory")
        self._places = self._index()

    def __contains__(self, name: str) -> bool:
        return _encoded(name) in self._places

    @property
    def names(self) -> list[str]:
        """Of all members."""
        return [name.decode("utf-8", "surrogateescape") for name in self._places]

    def member(self, name: str) -> Member:
        """What the directory says of it.

        Raises:
            CorruptImageError: if there is none, or its entry makes no sense.
        """
        at = self._places.get(_encoded(name))
        if at is None:
            raise self._error(f"expected a member {name!r}, found none")
        fields = ENTRY.unpack_from(self._directory, at)
        method, crc, stored, size = fields[4], fields[7], fields[8], fields[9]
        name_size, extra_size, offset = fields[10], fields[11], fields[16]
        if fields[3] & 1:
            raise UnsupportedFeatureError(
                f"member {name!r}: expected no encryption, found some", name=self.storage.name
            )
        wide = [size, stored, offset]
        if FULL in wide:
            start = at + ENTRY.size + name_size
            wide = self._widened(wide, self._directory[start : start + extra_size], name)
        size, stored, offset = wide
        if method not in (STORED, DEFLATED):
            raise UnsupportedFeatureError(
                f"member {name!r}: expected method 0 or 8, found {method}", name=self.storage.name
            )
        if method == STORED and stored != size:
            raise self._error(f"member {name!r}: expected {size} stored bytes, found {stored}")
        if offset + LOCAL.size + stored > self.storage.size:
            raise TruncatedImageError(
                f"member {name!r}: expected 0x{stored:x} bytes at 0x{offset:x} inside the file's "
                f"0x{self.storage.size:x}",
                name=self.storage.name,
                offset=offset,
            )
        return Member(name, method, crc, stored, size, offset)

    def place(self, member: Member) -> int:
        """Where in the file its bytes begin.

        Raises:
            CorruptImageError: if there is no local header for it.
        """
        header = read_range(self.storage, member.offset, LOCAL.size, f"member {member.name!r}")
        fields = LOCAL.unpack(header)
        start: int = member.offset + LOCAL.size + fields[9] + fields[10]
        if fields[0] != LOCAL_MAGIC:
            raise self._error(
                f"member {member.name!r}: expected a header at 0x{member.offset:x}, found none"
            )
        if start + member.stored > self.storage.size:
            raise self._error(f"member {member.name!r}: expected its end inside the file")
        return start

    def read(self, name: str, size_max: int) -> bytes:
        """All bytes of a member; its CRC-32 is compared.

        Raises:
            CorruptImageError: if it is missing or damaged.
            UnsupportedFeatureError: if it has more than ``size_max`` bytes.
        """
        member = self.member(name)
        if max(member.size, member.stored) > size_max:
            raise UnsupportedFeatureError(
                f"member {name!r}: expected at most {size_max} bytes, found {member.size}",
                name=self.storage.name,
            )
        stored = read_range(self.storage, self.place(member), member.stored, f"member {name!r}")
        if member.method == STORED:
            content = bytes(stored)
        else:
            content = deflate.decompress(stored, member.size)
        if zlib.crc32(content) != member.crc:
            raise self._error(f"member {name!r}: expected the CRC-32 0x{member.crc:08x}")
        return content

    def _index(self) -> dict[bytes, int]:
        places: dict[bytes, int] = {}
        directory, at, end = self._directory, 0, len(self._directory)
        unpack, entry_size = ENTRY.unpack_from, ENTRY.size
        while at + entry_size <= end:
            fields = unpack(directory, at)
            if fields[0] != ENTRY_MAGIC:
                break
            start = at + entry_size
            stop = start + fields[10]
            after = stop + fields[11] + fields[12]
            if after > end:
                raise self._error("expected the archive directory to end with an entry")
            name = bytes(directory[start:stop])
            if name in places:
                # Readers do not agree which of the two counts, so an image could show two disks.
                raise self._error(f"expected each member once, found {name[:80]!r} again")
            places[name] = at
            at = after
        return places

    def _widened(self, values: list[int], extra: bytearray, name: str) -> list[int]:
        """Values of 64 bits from the extra field, for those that did not fit into 32."""
        at = 0
        while at + 4 <= len(extra):
            kind, size = struct.unpack_from("<HH", extra, at)
            if kind == EXTRA_ZIP64:
                field = bytes(extra[at + 4 : at + 4 + size])
                for index, value in enumerate(values):
                    if value == FULL:
                        if len(field) < 8:
                            break
                        values[index] = int.from_bytes(field[:8], "little")
                        field = field[8:]
                return values
            at += 4 + size
        raise self._error(f"member {name!r}: expected a ZIP64 field, found none")

    def _error(self, message: str) -> CorruptImageError:
        return CorruptImageError(message, name=self.storage.name)


def read_range(storage: Storage, offset: int, length: int, what: str) -> bytearray:
    """Bytes of a file that has them.

    Raises:
        TruncatedImageError: if it has not.
    """
    if offset < 0 or offset + length > storage.size:
        raise TruncatedImageError(
            f"{what}: expected 0x{length:x} bytes at 0x{offset:x} inside the file's "
            f"0x{storage.size:x}",
            name=storage.name,
            offset=offset,
            length=length,
        )
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return buffer


def find_end(tail: bytes | bytearray) -> int:
    """Where in the last bytes of a file the end record is whose comment ends the file; or -1."""
    at = tail.rfind(END_MAGIC)
    while at >= 0:
        if at + END.size <= len(tail):
            size = END.unpack_from(tail, at)[7]
            if at + END.size + size == len(tail):
                return at
        at = tail.rfind(END_MAGIC, 0, at)
    return -1


def _find_directory(storage: Storage) -> tuple[int, int, bytes]:
    """Offset and size of the directory, and the archive's comment."""
    length = min(storage.size, END.size + _COMMENT_MAX + LOCATOR.size)
    tail_at = storage.size - length
    tail = read_range(storage, tail_at, length, "end of the archive")
    at = find_end(tail)
    if at < 0:
        raise CorruptImageError("expected the end of a zip archive, found none", name=storage.name)
    fields = END.unpack_from(tail, at)
    comment = bytes(tail[at + END.size :])
    size, offset = fields[5], fields[6]
    locator = bytes(tail[max(0, at - LOCATOR.size) : at])
    if locator.startswith(LOCATOR_MAGIC):
        place = LOCATOR.unpack(locator)[2]
        wide = read_range(storage, place, END64.size, "ZIP64 end of the archive")
        if not wide.startswith(END64_MAGIC):
            raise CorruptImageError(
                f"expected a ZIP64 end record at 0x{place:x}, found none", name=storage.name
            )
        size, offset = END64.unpack(wide)[8:10]
    if offset + size > tail_at + at:
        raise CorruptImageError(
            "expected the archive directory before its end record", name=storage.name
        )
    return offset, size, comment


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
