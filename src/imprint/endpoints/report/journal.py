"""Hashes of files that are done, beside a report that is not: what lets it be resumed.

A report is made again from the beginning, but for the hashes, which take most of the time. The
journal begins with a line of JSON, which says of what it is; records follow. Each has the
digests of some files, names their batch by a digest of all that is told of its files, and has a
checksum: what a crash has torn is not believed.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import TargetError
from imprint.core.system import reason_of

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.endpoints.report.results import Results

VERSION: Final = 1
INTERVAL_S: Final = 2.0
"""Between two records."""

_HEAD: Final = struct.Struct("<4s32sII")
"""Mark, name of the batch, number of files, CRC-32 of what follows and of the name."""

_MARK: Final = b"HASH"
_INDEX: Final = struct.Struct("<I")
_LINE_MAX: Final = 1 << 16
_FILES_MAX: Final = 1 << 20


class Journal:
    """Beside one report, while it is made."""

    def __init__(self, path: Path, facts: dict[str, Any], width: int, *, resume: bool) -> None:
        """Begin a new one, or go on with one of the same facts.

        Args:
            path: of it.
            facts: that identify the report: another image, or other hashes, make it another one.
            width: of the digests of a file, in bytes.
            resume: go on with what is there.

        Raises:
            TargetError: if it cannot be written.
        """
        self._path = path
        self._size = _INDEX.size + width
        self._fresh: list[bytes] = []
        self._batch = b""
        self._found: dict[bytes, list[tuple[int, int]]] = {}
        self._told = time.monotonic()
        line = json.dumps({"version": VERSION, **facts}, sort_keys=True).encode() + b"\n"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.fdopen(os.open(path, flags, 0o666), "r+b")
            self._end = self._read(line) if resume else 0
            self._file.truncate(self._end)
            self._file.seek(self._end)
            if not self._end:
                self._file.write(line)
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(path)) from failure

    def begin(self, name: bytes, results: Results) -> int:
        """A batch of files, whose digests that are known are put where they belong.

        Args:
            name: 32 bytes, the same for the same files with the same facts only.
            results: of the batch; what is done from now on goes into the journal.

        Returns:
            How many were known.
        """
        self._batch = name
        self._fresh = []
        count, size = 0, self._size
        for offset, files in self._found.get(name, ()):
            self._file.seek(offset)
            data = self._file.read(files * size)
            for at in range(0, len(data), size):
                (number,) = _INDEX.unpack_from(data, at)
                if number < len(results.states):
                    results.store(number, data[at + _INDEX.size : at + size])
                    count += 1
        self._file.seek(0, os.SEEK_END)
        results.on_done = self._note
        return count

    def end(self) -> None:
        """Write what is done of the batch."""
        if not self._fresh:
            return
        name = self._batch
        data = b"".join(self._fresh)
        head = _HEAD.pack(_MARK, name, len(self._fresh), zlib.crc32(data, zlib.crc32(name)))
        self._fresh = []
        try:
            self._file.write(head + data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(self._path)) from failure

    def close(self) -> None:
        """Leave it for a later attempt."""
        self._file.close()

    def discard(self) -> None:
        """Remove it."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _note(self, number: int, row: bytes) -> None:
        self._fresh.append(_INDEX.pack(number) + row)
        if len(self._fresh) & 255 == 0 or len(self._fresh) == 1:
            now = time.monotonic()
            if now - self._told >= INTERVAL_S or len(self._fresh) >= _FILES_MAX:
                self._told = now
                self.end()

    def _read(self, line: bytes) -> int:
        """Where the last sound record ends; 0 if it is of something else."""
        file = self._file
        if file.readline(_LINE_MAX) != line:
            return 0
        end = file.tell()
        while True:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return end
            mark, name, files, checksum = _HEAD.unpack(head)
            if mark != _MARK or files > _FILES_MAX:
                return end
            data = file.read(files * self._size)
            if len(data) < files * self._size:
                return end
            if zlib.crc32(data, zlib.crc32(name)) != checksum:
                return end
            self._found.setdefault(name, []).append((end + _HEAD.size, files))
            end = file.tell()
