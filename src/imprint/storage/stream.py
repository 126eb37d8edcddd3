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

from imprint.core.buffers import is_zero
from imprint.core.errors import (
    ReadError,
    RefusedError,
    TargetError,
    UsageError,
)
from imprint.core.units import MIB
from imprint.filters.ascending import AscendingStorage
from imprint.storage.file import FileStorage
from imprint.storage.sequential import SequentialSource, read_some, wait_ready

if TYPE_CHECKING:
    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Storage

SPOOL_FOLDER: Final = Path("/var/tmp")  # noqa: S108 — nothing there gets a name
"""For copies of standard input: unlike ``/tmp`` it is on a disk, and not in memory."""

_INPUT: Final = "standard input"
_OUTPUT: Final = "standard output"
_POLL_MS: Final = 200  # how soon a wait for data sees that the user has stopped it


class StreamStorage(AscendingStorage):
    """A pipe that is written front to back; ranges that are left out become zeros."""

    def __init__(self, fd: int, *, name: str = _OUTPUT) -> None:
        """Borrows ``fd``: it stays open."""
        super().__init__(name)
        self._fd = fd

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

    def flush(self) -> None:
        """Make it durable, if it goes to a file; a pipe keeps nothing."""
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fdatasync(self._fd)
        except OSError as failure:
            raise self._error(failure) from failure

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
