"""What Google Compute Engine imports: one file ``disk.raw`` in a tar archive, compressed by gzip.

The archive has to be in the old GNU format, the file to be called so, and its size to be whole
GiB. It is written in one pass, since its size is known before; the windows of the disk are
compressed apart from each other, by all workers.

Source: Google Cloud, Compute Engine documentation, "Requirements to import: images" (the tar
file has to be made with ``--format=oldgnu``).
"""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from imprint.codecs import gzip, tar
from imprint.core.buffers import ZEROS
from imprint.core.contracts import Order, Traits
from imprint.core.errors import TargetError
from imprint.core.events import Finding, Severity
from imprint.core.units import GIB, align_up, format_size
from imprint.endpoints.appliance.common import level_of, open_all, options_of, plan_of, to_file
from imprint.endpoints.appliance.kinds import GCE
from imprint.endpoints.copying import CopyRequest, Outcome, Plan, copy_to, tell_left_behind
from imprint.endpoints.location import Where

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.transfer.report import Report

MEMBER: Final = "disk.raw"

_UNIT: Final = struct.Struct("<II")
"""What goes before the compressed bytes, from workers to the writer: length and checksum."""

_ZERO_LEVEL: Final = 9
"""Of pieces without content, of which there may be many: each is compressed once."""

_ZEROS_AT_ONCE: Final = 256


class GceTarget:
    """A target that compresses; see :class:`~imprint.core.contracts.Encoding`."""

    def __init__(self, storage: Storage, size: int, *, level: int, time_s: int) -> None:
        """Writes the header of a file of ``size`` bytes, which has to be whole GiB."""
        assert size % GIB == 0
        self._storage = storage
        self._size = size
        self._level = level
        self._stream = gzip.Joined()
        self._position = 0  # of the disk
        self._written = 0  # to the storage
        head = tar.header(MEMBER, size, time_s, is_gnu=True)
        self._send(gzip.HEADER + self._stream.add(gzip.pack(head, level)))

    @property
    def name(self) -> str:
        """Path or address of the archive."""
        return self._storage.name

    @property
    def size(self) -> int:
        """Of the disk, padded."""
        return self._size

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out is zeros."""
        return Traits(order=Order.ASCENDING, reads_zero=True)

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Compress a window; runs in a worker."""
        del offset
        piece = gzip.pack(data, self._level)
        return [_UNIT.pack(piece.length, piece.crc) + piece.packed]

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Append what :meth:`encode` made."""
        self._advance(offset)
        for unit in units:
            length, crc = _UNIT.unpack_from(unit)
            self._send(self._stream.add(gzip.Piece(unit[_UNIT.size :], length, crc)))
            self._position += length

    def write(self, data: memoryview, offset: int) -> None:
        """Append ``data``."""
        self.write_encoded(self.encode(data, offset), offset)

    def zero(self, offset: int, length: int) -> None:
        """What is not written is zero."""
        del length
        if offset < self._position:
            raise self._not_ascending(offset)

    def commit(self) -> None:
        """Write what is left of the disk and the archive's end, and let the file take its name."""
        self._advance(self._size)
        tail = tar.end_of(tar.BLOCK + self._size) - tar.BLOCK - self._size
        end = self._stream.add(gzip.pack(bytes(tail), self._level))
        self._send(end + self._stream.end())
        self._storage.commit()

    def abort(self) -> None:
        """Forget it all; of a pipe, what has left has left."""
        self._storage.abort()

    def _advance(self, offset: int) -> None:
        """Append zeros up to ``offset``."""
        if offset < self._position:
            raise self._not_ascending(offset)
        count, rest = divmod(offset - self._position, len(ZEROS))
        for done in range(0, count, _ZEROS_AT_ONCE):
            self._send(self._stream.add(_zeros(len(ZEROS)), min(_ZEROS_AT_ONCE, count - done)))
        if rest:
            self._send(self._stream.add(_zeros(rest)))
        self._position = offset

    def _send(self, data: bytes) -> None:
        self._storage.write(memoryview(data), self._written)
        self._written += len(data)

    def _not_ascending(self, offset: int) -> TargetError:
        return TargetError(
            f"expected ascending writes, found one at 0x{offset:x}", name=self.name, offset=offset
        )


def plan(request: CopyRequest, addresses: tuple[str, ...]) -> Plan:
    """Open the source, check the target's name and options, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    with ExitStack() as opened:
        level_of(options_of(request, GCE))
        return plan_of(open_all(request, addresses, opened), GCE)


def run(request: CopyRequest, addresses: tuple[str, ...]) -> Outcome:
    """Write the disk at the only address as an image for Compute Engine.

    Raises:
        ImagingError: of the kind that says what is wrong. The target then has its old
            content or is absent.
    """
    with ExitStack() as opened:
        level = level_of(options_of(request, GCE))
        (source,) = open_all(request, addresses, opened)
        tell_left_behind(request, source)
        size = max(GIB, align_up(source.size, GIB))
        time_s = int(time.time()) if request.target.time_s is None else request.target.time_s

        def write(storage: Storage) -> Report:
            target = GceTarget(storage, size, level=level, time_s=time_s)
            if size > source.size:
                _tell_padding(request, source.size, size)
            return copy_to(request, source, target)

        if request.target.location.where is Where.STREAM:
            from imprint.storage.stream import StreamStorage  # only for streams

            output = StreamStorage.output()
            return Outcome(write(output), output.stored_size, GCE.name)
        return to_file(request, write, GCE)


def _tell_padding(request: CopyRequest, size: int, padded: int) -> None:
    what = (
        f"the disk of {size} bytes is padded with zeros to {format_size(padded)}: "
        "Compute Engine takes whole GiB"
    )
    request.on_event(Finding(Severity.WARNING, request.target.address, what))


@lru_cache(maxsize=4)
def _zeros(length: int) -> gzip.Piece:
    return gzip.pack(memoryview(ZEROS)[:length], _ZERO_LEVEL)
