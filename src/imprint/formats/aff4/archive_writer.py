"""Zip archives written front to back, one member after the other; all headers are ZIP64.

A member's header is written twice: with zeros before its bytes, and again when its size is known.

Source: PKWARE *APPNOTE* 6.3; *AFF4 Standard* 1.0, section 5.4 (all headers are ZIP64).
"""

from __future__ import annotations

import struct
import time
import zlib
from typing import TYPE_CHECKING, Final

from imprint.formats.aff4.archive import (
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    ENTRY,
    ENTRY_MAGIC,
    EXTRA_ZIP64,
    FULL,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
    STORED,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Storage

_VERSION: Final = 45
_EXTRA_SIZES: Final = struct.Struct("<HHQQ")
_EXTRA_ALL: Final = struct.Struct("<HHQQQ")
_END64_REST: Final = END64.size - 12
_FIRST_YEAR: Final = 1980
_LAST_YEAR: Final = 2107


class ArchiveWriter:
    """An archive that is being made."""

    def __init__(self, storage: Storage, time_s: int) -> None:
        """``time_s``: of all members, in seconds since 1970."""
        self._storage = storage
        self._time, self._date = _dos_time(time_s)
        self._position = 0
        self._name = b""
        self._start = 0
        self._crc = 0
        self._size = 0
        self._directory: list[bytes] = []

    @property
    def position(self) -> int:
        """Where the next byte goes."""
        return self._position

    def add(self, name: str, content: bytes) -> None:
        """A member as a whole."""
        self.begin(name)
        self.append((content,))
        self.end()

    def begin(self, name: str) -> None:
        """Begin a member, whose bytes follow."""
        self._name, self._start = name.encode(), self._position
        self._crc = self._size = 0
        self._write(self._header())

    def append(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Bytes of the member, in one write."""
        data = b"".join(pieces)
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._write(data)

    def end(self) -> None:
        """Finish the member: its header gets its size and checksum."""
        self._storage.write(memoryview(self._header()), self._start)
        extra = _EXTRA_ALL.pack(EXTRA_ZIP64, 24, self._size, self._size, self._start)
        entry = ENTRY.pack(
            ENTRY_MAGIC,
            _VERSION,
            _VERSION,
            0,
            STORED,
            self._time,
            self._date,
            self._crc,
            FULL,
            FULL,
            len(self._name),
            len(extra),
            0,
            0,
            0,
            0,
            FULL,
        )
        self._directory.append(entry + self._name + extra)

    def finish(self, comment: bytes) -> None:
        """Write the directory and the end records."""
        start, count = self._position, len(self._directory)
        directory = b"".join(self._directory)
        size, place = len(directory), start + len(directory)
        wide = END64.pack(
            END64_MAGIC, _END64_REST, _VERSION, _VERSION, 0, 0, count, count, size, start
        )
        locator = LOCATOR.pack(LOCATOR_MAGIC, 0, place, 1)
        few = min(count, 0xFFFF)
        end = END.pack(END_MAGIC, 0, 0, few, few, min(size, FULL), FULL, len(comment))
        self._write(directory + wide + locator + end + comment)

    def _header(self) -> bytes:
        extra = _EXTRA_SIZES.pack(EXTRA_ZIP64, 16, self._size, self._size)
        header = LOCAL.pack(
            LOCAL_MAGIC,
            _VERSION,
            0,
            STORED,
            self._time,
            self._date,
            self._crc,
            FULL,
            FULL,
            len(self._name),
            len(extra),
        )
        return header + self._name + extra

    def _write(self, data: bytes) -> None:
        self._storage.write(memoryview(data), self._position)
        self._position += len(data)


def _dos_time(time_s: int) -> tuple[int, int]:
    """Time and date as MS-DOS had them, in UTC."""
    now = time.gmtime(max(0, min(time_s, 1 << 36)))
    if not _FIRST_YEAR <= now.tm_year <= _LAST_YEAR:
        now = time.gmtime(315532800)  # 1980-01-01
    clock = now.tm_hour << 11 | now.tm_min << 5 | now.tm_sec // 2
    return clock, (now.tm_year - _FIRST_YEAR) << 9 | now.tm_mon << 5 | now.tm_mday
