"""Pipes: standard output as a target, standard input as a source.

A pipe has no positions. What is written to one has to come in ascending order; what comes
out of one is copied into a temporary file, or, if it is raw and its size is known, read as it
comes (:mod:`imprint.storage.sequential`).
"""

from __future__ import annotations

import errno
import os
import select
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from imprint.core.buffers import ZEROS, copy_by_hand, fill_zero, is_zero
from imprint.core.contracts import Order, Traits
from imprint.core.errors import (
    ReadError,
    RefusedError,
    TargetError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.units import MIB
from imprint.storage.file import FileStorage
from imprint.storage.sequential import SequentialSource, read_some, wait_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Storage

SPOOL_FOLDER: Final = Path("/var/tmp")  # noqa: S108 — nothing there gets a name
"""For copies of standard input: unlike ``/tmp`` it is on a disk, and not in memory."""

_INPUT: Final = "standard input"
_OUTPUT: Final = "standard output"
_POLL_MS: Final = 200  # how soon a wait for data sees that the user has stopped it


class StreamStorage:
    """A pipe that is written front to back; ranges that are left out become zeros."""

    def __init__(self, fd: int, *, name: str = _OUTPUT) -> None:
        """Borrows ``fd``: it stays open."""
        self._fd = fd
        self._name = name
        self._position = 0
        self._end = 0

    @classmethod
    def output(cls) -> Self:
        """Standard output.

        Raises:
            RefusedError: if it is a terminal.
            TargetError: if it is closed.
        """
        fd = 1
        try:
            os.fstat(fd)
        except OSError as failure:
            raise TargetError(_reason(failure), name=_OUTPUT) from failure
        if os.isatty(fd):
            raise RefusedError(
                "is a terminal", name=_OUTPUT, advice="send it to a file or a program: > or |"
            )
        return cls(fd)

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """What was written, or what :meth:`resize` has promised."""
        return max(self._position, self._end)

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out becomes zeros."""
        return Traits(order=Order.ASCENDING, reads_zero=True)

    @property
    def is_writable(self) -> bool:
        """It is."""
        return True

    @property
    def stored_size(self) -> int:
        """What was written so far."""
        return self._position

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Zeros, for what was not written yet.

        Raises:
            ReadError: for what was sent: that is gone.
        """
        if len(buffer) and not self._position <= offset <= self.size - len(buffer):
            raise ReadError(
                "cannot be read back", name=self._name, offset=offset, length=len(buffer)
            )
        fill_zero(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Send ``data``, after zeros for what lies before it.

        Raises:
            RefusedError: if ``offset`` lies before what was written already.
            TargetError: if the reader went away.
        """
        if len(data):
            self._advance(offset)
            self._send(data)

    def zero(self, offset: int, length: int) -> None:
        """Send zeros; otherwise as :meth:`write`."""
        if length:
            self._advance(offset)
            self._advance(offset + length)

    def resize(self, size: int) -> None:
        """Promise a size: :meth:`commit` fills up to it with zeros.

        Raises:
            RefusedError: if more was written already.
        """
        if size < self._position:
            raise self._going_back(size)
        self._end = size

    def can_offload(self, source: Storage) -> bool:
        """Never: what is sent has to be counted."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read and send."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Make it durable, if it goes to a file; a pipe keeps nothing."""
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fdatasync(self._fd)
        except OSError as failure:
            raise self._error(failure) from failure

    def commit(self) -> None:
        """Send the zeros that are missing."""
        self._advance(self.size)
        self.flush()

    def abort(self) -> None:
        """Nothing: what the reader has, it has."""

    def close(self) -> None:
        """Nothing: the descriptor is borrowed."""

    def _advance(self, offset: int) -> None:
        if offset < self._position:
            raise self._going_back(offset)
        while self._position < offset:
            self._send(memoryview(ZEROS)[: offset - self._position])

    def _send(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            try:
                count = os.write(self._fd, data[done:])
            except BlockingIOError:  # whoever shares the pipe has made it so
                wait_ready(self._fd, select.POLLOUT)
                continue
            except OSError as failure:
                raise self._error(failure) from failure
            done += count
            self._position += count

    def _going_back(self, offset: int) -> RefusedError:
        return RefusedError(
            f"expected ascending offsets, found 0x{offset:x} after 0x{self._position:x}",
            name=self._name,
            offset=offset,
            advice="this format needs a file to write to",
        )

    def _error(self, failure: OSError) -> TargetError:
        reason = "the reader went away" if failure.errno == errno.EPIPE else _reason(failure)
        return TargetError(
            f"cannot write at 0x{self._position:x}: {reason}",
            name=self._name,
            offset=self._position,
        )


def open_input(
    fd: int = 0,
    *,
    size: int | None = None,
    folder: Path = SPOOL_FOLDER,
    cancel: CancelToken | None = None,
) -> Storage:
    """Standard input as a storage: a file as itself, a pipe by a temporary copy.

    Args:
        fd: to read from; stays open.
        size: of a raw disk that comes through a pipe: then it is not copied but read as it
            comes, and only once.
        folder: for the copy.
        cancel: stops the copying.

    Raises:
        UsageError: if it is a terminal.
        ReadError: if it cannot be read.
        TargetError: if there is no room for the copy.
    """
    try:
        mode = os.fstat(fd).st_mode
        if os.isatty(fd):
            raise UsageError("expected a file or a pipe, found a terminal", name=_INPUT)
        # A file that somebody has read from already is a stream: its start is gone.
        if stat.S_ISREG(mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            return FileStorage(Path(_INPUT), os.dup(fd), is_writable=False)
        if stat.S_ISBLK(mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            from imprint.storage.device import DeviceStorage  # only for devices

            return DeviceStorage(Path(_INPUT), os.dup(fd), is_writable=False)
    except OSError as failure:
        raise ReadError(_reason(failure), name=_INPUT) from failure
    if size is not None:
        return SequentialSource(fd, size, name=_INPUT)
    return spool(fd, folder, cancel=cancel)


def spool(fd: int, folder: Path, *, cancel: CancelToken | None = None) -> FileStorage:
    """Copy a stream to its end into a file without a name, which vanishes when it is closed.

    Runs of zeros become holes.

    Raises:
        ReadError: if the stream cannot be read.
        TargetError: if ``folder`` has no room for it.
        Cancelled: if ``cancel`` was set.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            copy = os.dup(file.fileno())
    except OSError as failure:
        raise TargetError(
            f"cannot make a temporary file: {_reason(failure)}", name=str(folder)
        ) from failure
    # For as long as it is written, errors are about the folder.
    writer = FileStorage(folder, copy, is_writable=True)
    try:
        buffer = memoryview(bytearray(MIB))
        position = 0
        while length := _read_full(fd, buffer, cancel):
            if not is_zero(buffer[:length]):
                writer.write(buffer[:length], position)
            position += length
        writer.resize(position)
        # Opened anew, since a source must not be writable even by mistake.
        source = os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
        return FileStorage(Path(_INPUT), source, is_writable=False)
    except OSError as failure:
        raise ReadError(_reason(failure), name=_INPUT) from failure
    finally:
        writer.close()


def _read_full(fd: int, buffer: memoryview, cancel: CancelToken | None) -> int:
    """Fill ``buffer`` as far as the stream reaches; how much that is."""
    done = 0
    while done < len(buffer):
        if cancel is not None:
            while not wait_ready(fd, select.POLLIN, _POLL_MS):
                cancel.check()
            cancel.check()
        count = read_some(fd, buffer[done:], _INPUT)
        if count == 0:
            break
        done += count
    return done


def _reason(failure: OSError) -> str:
    return (failure.strerror or str(failure)).lower()
