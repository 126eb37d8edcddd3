"""Regular files: read, or edited in place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING, Final, Self

from imprint.core.buffers import ZEROS, copy_by_hand
from imprint.core.contracts import Traits
from imprint.core.errors import (
    ImagingError,
    ReadError,
    TargetBusyError,
    TargetError,
    TruncatedImageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.system import reason_of
from imprint.storage import linux
from imprint.storage.descriptor import DescriptorStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Storage

# QEMU guards its images by open-file-description locks on these bytes
# (QEMU block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE).
_QEMU_LOCK_START: Final = 100
_QEMU_LOCK_LENGTH: Final = 200


class FileStorage(DescriptorStorage):
    """A regular file that exists."""

    def __init__(self, path: Path, fd: int, *, is_writable: bool) -> None:
        """Takes over ``fd``; use :meth:`open`."""
        super().__init__(path, fd, os.fstat(fd).st_size, is_writable=is_writable)

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Self:
        """Open a regular file; for writing, only if no other program has it.

        Raises:
            ReadError: if it cannot be opened, or is not a regular file.
            TargetBusyError: if it is open for writing elsewhere.
        """
        error = TargetError if writable else ReadError
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(path, flags)
        except OSError as failure:
            raise error(reason_of(failure), name=str(path)) from failure
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise error("expected a regular file", name=str(path))
            if writable:
                lock_exclusively(fd, str(path))
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, is_writable=writable)

    @property
    def traits(self) -> Traits:
        """A file is worth cutting at the blocks of its file system."""
        return Traits(grain=4096)

    @property
    def stored_size(self) -> int:
        """Bytes that the file system has allocated for it."""
        return os.fstat(self._fd).st_blocks * 512

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: the same for every name of the file."""
        facts = os.fstat(self._fd)
        return facts.st_dev, facts.st_ino

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as failure:
                raise self._read_error(failure, offset + done, len(buffer) - done) from failure
            if count == 0:
                raise TruncatedImageError(
                    f"expected {len(buffer)} bytes at 0x{offset:x}, found {done}",
                    name=self.name,
                    offset=offset,
                    length=len(buffer),
                )
            done += count

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data and holes, as the file system tells them (``SEEK_DATA`` is a hint, never wrong)."""
        position, end = offset, offset + length
        while position < end:
            data = self._seek(position, os.SEEK_DATA, end)
            if data > position:
                yield Extent(position, data - position, Kind.HOLE)
            if data < end:
                hole = self._seek(data, os.SEEK_HOLE, end)
                yield Extent(data, hole - data, Kind.DATA, self, data)
                position = hole
            else:
                position = end

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``; grows the file if need be."""
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self._fd, data[done:], offset + done)
            except OSError as failure:
                raise self._write_error(failure, offset + done) from failure
        self._size = max(self._size, offset + len(data))

    def zero(self, offset: int, length: int) -> None:
        """Punch a hole; where the file system cannot, write zeros."""
        inside = max(0, min(self._size - offset, length))
        try:
            is_done = not inside or linux.punch_hole(self._fd, offset, inside)
        except OSError as failure:
            raise self._write_error(failure, offset) from failure
        if not is_done:
            for start in range(offset, offset + inside, len(ZEROS)):
                self.write(memoryview(ZEROS)[: offset + inside - start], start)
        if offset + length > self._size:
            self.resize(offset + length)

    def resize(self, size: int) -> None:
        """Cut off, or grow by a hole."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as failure:
            raise self._write_error(failure, size) from failure
        self._size = size

    def replace(self, content: memoryview) -> None:
        """Exchange the content by a new file that takes the name; owner and mode stay."""
        from imprint.storage.pending import PendingFile  # which is one of these

        pending = PendingFile.create(self._path.resolve(), may_replace=True)
        try:
            self._dress(pending.fileno())
            pending.write(content, 0)
            fd = os.dup(pending.fileno())  # which keeps its lock
        except BaseException:
            pending.abort()
            raise
        try:
            pending.commit()
        except BaseException:
            os.close(fd)
            pending.abort()
            raise
        os.close(self._fd)
        self._fd, self._size = fd, len(content)

    def _dress(self, fd: int) -> None:
        """Give the file that will take this one's place the same owner, as far as we may, and mode.

        In this order: a file that changes hands loses its special bits, and who may not give
        it away must not open it to more people than before.
        """
        facts = os.fstat(self._fd)
        try:
            # Not only for lack of permission: in a container, the owner may have no number.
            with contextlib.suppress(OSError):
                os.fchown(fd, facts.st_uid, facts.st_gid)
            os.fchmod(fd, facts.st_mode & 0o7777)
        except OSError as failure:
            raise self._write_error(failure, 0) from failure

    def can_offload(self, source: Storage) -> bool:
        """Whether ``source`` is a file on the same file system."""
        return (
            isinstance(source, FileStorage)
            and os.fstat(source.fileno()).st_dev == os.fstat(self._fd).st_dev
        )

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Copy by the kernel: file systems that can will share the blocks instead."""
        done = 0
        while done < length and isinstance(source, FileStorage):
            try:
                count = os.copy_file_range(
                    source.fileno(),
                    self._fd,
                    length - done,
                    source_offset + done,
                    offset + done,
                )
            except OSError as failure:
                if failure.errno in (
                    errno.ENOSPC,
                    errno.EIO,
                    errno.EDQUOT,
                    errno.EFBIG,
                ):
                    raise self._write_error(failure, offset + done) from failure
                break  # not supported between these two: by hand
            if count == 0:
                break
            done += count
        self._size = max(self._size, offset + done)
        copy_by_hand(source, source_offset + done, self, offset + done, length - done)

    def flush(self) -> None:
        """``fdatasync``: the content, and what is needed to read it back."""
        try:
            os.fdatasync(self._fd)
        except OSError as failure:
            raise self._write_error(failure, 0) from failure

    def commit(self) -> None:
        """Flush and close; the file has its name already."""
        if not self._is_closed:
            self.flush()
            self.close()

    def abort(self) -> None:
        """Close; what was written to a file that existed before stays."""
        self.close()

    def close(self) -> None:
        """Close the file descriptor."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._fd)

    def _seek(self, position: int, whence: int, end: int) -> int:
        try:
            return min(os.lseek(self._fd, position, whence), end)
        except OSError as failure:
            if failure.errno == errno.ENXIO:  # no data behind this point
                return end
            if failure.errno in (errno.EINVAL, errno.ENOTSUP, errno.ESPIPE):
                return position if whence == os.SEEK_DATA else end
            raise self._read_error(failure, position, end - position) from failure

    def _read_error(self, failure: OSError, offset: int, length: int) -> ReadError:
        return ReadError(
            f"cannot read at 0x{offset:x}: {reason_of(failure)}",
            name=self.name,
            offset=offset,
            length=length,
        )

    def _write_error(self, failure: OSError, offset: int) -> ImagingError:
        return TargetError(
            f"cannot write at 0x{offset:x}: {reason_of(failure)}",
            name=self.name,
            offset=offset,
        )


def lock_exclusively(fd: int, name: str) -> None:
    """Keep QEMU's programs and other imprints away until ``fd`` is closed.

    Raises:
        TargetBusyError: if one of them has the file open for writing.
    """
    # struct flock: type, whence, start, length, pid (0 for this kind of lock).
    wish = struct.pack(
        "hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _QEMU_LOCK_START, _QEMU_LOCK_LENGTH, 0
    )
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wish)
    except OSError as failure:
        if failure.errno in (errno.EAGAIN, errno.EACCES):
            raise TargetBusyError("is in use by another program", name=name) from failure
        # A file system without locks: go on, as QEMU does.
