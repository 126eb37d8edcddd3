"""Where bytes of a volume lie in a file as they are, for a process that can read that itself."""

from __future__ import annotations

import os
import stat
import struct
import time
from bisect import bisect_right
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.contracts import HasDescriptor
from imprint.core.errors import ImagingError
from imprint.core.extent import Kind
from imprint.core.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent

RUNS_MAX: Final = 1 << 14
"""Of one volume, 400 KB; what lies behind them is asked for."""

_LOOK_BYTES: Final = GIB
"""Of a volume at once; one of the tables of most images describes less."""

_LOOK_S: Final = 0.25
_EXTENTS_MAX: Final = 4 * RUNS_MAX
_WITH_BYTES: Final = (Kind.DATA, Kind.ENCODED)

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

    Not of devices: failing ones take minutes, in which the process would seem to hang. Nor is all
    of a volume looked through if its map takes long, or has nothing in files where it begins: it
    may be somewhere else, and large.
    """
    runs: list[Run] = []
    file: HasDescriptor | None = None
    has_bytes = False
    until = time.monotonic() + _LOOK_S
    with suppress(ImagingError):  # told when it is asked for
        for extent in islice(_extents(volume), _EXTENTS_MAX):
            if extent.offset >= _LOOK_BYTES and (
                (has_bytes and file is None) or time.monotonic() > until
            ):
                break
            has_bytes = has_bytes or extent.kind in _WITH_BYTES
            holder: object = extent.storage
            if extent.kind is not Kind.DATA or not isinstance(holder, HasDescriptor):
                continue
            file = file or holder
            if holder is file:
                _add(runs, (extent.offset, extent.length, extent.storage_offset))
                if len(runs) >= RUNS_MAX:
                    break
    if file is None or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return None
    return InFile(file.fileno(), runs)


def _extents(volume: Source) -> Iterator[Extent]:
    """All of a volume, a part at a time: what is all alike may be one, and take long to tell."""
    size = volume.size
    for start in range(0, size, _LOOK_BYTES):
        yield from volume.extents(start, min(_LOOK_BYTES, size - start))


def _add(runs: list[Run], run: Run) -> None:
    """Behind those that are there; with the last, if it goes on with that."""
    if runs:
        start, length, position = runs[-1]
        if (start + length, position + length) == (run[0], run[2]):
            runs[-1] = (start, length + run[1], position)
            return
    runs.append(run)
