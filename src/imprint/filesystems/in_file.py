"""Where bytes of a volume lie in a file as they are, for a process that can read that itself."""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_right
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.contracts import HasDescriptor
from imprint.core.errors import ImagingError
from imprint.core.extent import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source

RUNS_MAX: Final = 1 << 14
"""Of one volume, 400 KB; what lies behind them is asked for."""

Run = tuple[int, int, int]
"""Offset in the volume, length, offset in the file; in bytes."""

_FD: Final = struct.Struct("<I")
_RUN: Final = struct.Struct("<3Q")


class InFile(NamedTuple):
    """Some bytes of a volume, those of most images without a container even all that are data.

    Attributes:
        fd: of the file.
        runs: what it has of the volume, ascending.
    """

    fd: int
    runs: Sequence[Run]

    def packed(self) -> bytes:
        """For :func:`unpacked`."""
        return _FD.pack(self.fd) + b"".join(_RUN.pack(*run) for run in self.runs)

    def read(self, offset: int, length: int) -> bytes | None:
        """Bytes of the volume; ``None`` if they have to be asked for."""
        index = bisect_right(self.runs, offset, key=_start) - 1
        if index < 0:
            return None
        start, there, position = self.runs[index]
        if offset + length > start + there:
            return None
        try:
            found = os.pread(self.fd, length, position + offset - start)
        except OSError:
            return None
        return found if len(found) == length else None


def _start(run: Run) -> int:
    return run[0]


def unpacked(data: bytes) -> InFile:
    """What another process has told, which has passed the descriptor on."""
    (fd,) = _FD.unpack_from(data)
    return InFile(fd, list(_RUN.iter_unpack(data[_FD.size :])))


def in_file(volume: Source) -> InFile | None:
    """What of a volume can be read in a file; ``None`` for nothing.

    Not of devices: failing ones take minutes, in which the process would seem to hang.
    """
    file: HasDescriptor | None = None
    runs: list[Run] = []
    with suppress(ImagingError):  # told when it is asked for
        for extent in islice(volume.extents(0, volume.size), RUNS_MAX):
            holder: object = extent.storage
            if extent.kind is not Kind.DATA or not isinstance(holder, HasDescriptor):
                continue
            file = file or holder
            if holder is file:
                runs.append((extent.offset, extent.length, extent.storage_offset))
    if file is None or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return None
    return InFile(file.fileno(), runs)
