"""Block devices of Linux: read, or changed in place.

To overwrite one as a whole there is :class:`imprint.storage.device_target.DeviceTarget`.

A source is opened for reading only. What is opened for writing is claimed exclusively, which
keeps mounts, swap, RAID and device mapper away until it is closed.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import stat
import sys
from typing import TYPE_CHECKING, Final, Self

from imprint.core.buffers import copy_by_hand
from imprint.core.contracts import Traits
from imprint.core.errors import (
    ReadError,
    RefusedError,
    TargetBusyError,
    TargetError,
    TargetTooSmallError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.units import MIB, align_down, align_up
from imprint.storage import linux
from imprint.storage.descriptor import DescriptorStorage
from imprint.storage.device_facts import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Storage
    from imprint.storage.device_facts import DeviceInfo

# One call cannot be interrupted; a disk that has to write its zeros needs a second for this.
_ZERO_CHUNK_BYTES: Final = 128 * MIB

_log = logging.getLogger(__name__)


class DeviceStorage(DescriptorStorage):
    """A block device.

    Buffers that begin at a multiple of the sector in memory, as those of a copy do, are read
    by direct I/O if offset and length are multiples too: past the page cache, so that an
    imaged disk does not push everything else out of memory, and that an unreadable sector
    does not take its neighbours along. All other reads, those of tables, go through the cache.
    """

    def __init__(self, path: Path, fd: int, *, is_writable: bool) -> None:
        """Takes over ``fd``; use :meth:`open`."""
        # The same number as BLKGETSIZE64 gives.
        super().__init__(path, fd, os.lseek(fd, 0, os.SEEK_END), is_writable=is_writable)
        self._sector, self._physical_sector = linux.sector_sizes(fd)
        self._direct_fd = linux.open_direct(fd, os.O_RDWR if is_writable else os.O_RDONLY)
        self._zeros: memoryview | None = None

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Self:
        """Open a block device; for writing, only if nobody else uses it or a part of it.

        Raises:
            ReadError: if it cannot be opened for reading, or is no block device.
            TargetBusyError: if it shall be written and is mounted or otherwise in use.
            TargetError: if it cannot be opened for writing, or is no block device.
            UnsupportedFeatureError: on a system other than Linux.
        """
        if sys.platform != "linux":
            raise UnsupportedFeatureError("devices can be opened on Linux only", name=str(path))
        error = TargetError if writable else ReadError
        name = str(path)
        try:
            # Before it is opened: opening a tape drive winds the tape.
            _check_kind(path.stat().st_mode, name, error)
            if writable:
                _check_unused(path)
                flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
            else:
                flags = os.O_RDONLY | os.O_CLOEXEC
            fd = os.open(path, flags)
        except OSError as failure:
            if writable and failure.errno == errno.EBUSY:
                raise TargetBusyError(
                    "is claimed by the kernel or a program", name=name
                ) from failure
            raise error(_reason(failure), name=name) from failure
        try:
            _check_kind(os.fstat(fd).st_mode, name, error)
            if writable and linux.is_read_only(fd):
                raise TargetError("is read-only", name=name)
            if not writable:
                # A mounted file system writes its journal past the cache, where what somebody has
                # read before may be old. (What the system holds on to, it does not drop.)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            device = cls(path, fd, is_writable=writable)
        except OSError as failure:
            os.close(fd)
            raise error(_reason(failure), name=name) from failure
        except BaseException:
            os.close(fd)
            raise
        if device.size == 0:
            device.close()
            raise error("has no medium: expected a size above 0, found 0", name=name)
        return device

    @property
    def traits(self) -> Traits:
        """Sectors as the device reports them."""
        return Traits(
            grain=max(4096, self._physical_sector),
            logical_sector=self._sector,
            physical_sector=self._physical_sector,
        )

    @property
    def is_direct(self) -> bool:
        """Whether the device can be read past the page cache."""
        return self._direct_fd is not None

    @property
    def stored_size(self) -> int:
        """All of it."""
        return self._size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        An error names the first byte that could not be read; what is before it has been.
        """
        length, done = len(buffer), 0
        if offset + length > self._size:
            raise TruncatedImageError(
                f"expected {length} bytes at 0x{offset:x}, found a size of {self._size}",
                name=self.name,
                offset=offset,
                length=length,
            )
        fd = self._fd
        if (
            self._direct_fd is not None
            and length
            and offset % self._sector == length % self._sector == 0
            and linux.is_aligned(buffer, self._sector)
        ):
            fd = self._direct_fd
        while done < length:
            try:
                count = os.preadv(fd, [buffer[done:]], offset + done)
            except OSError as failure:
                if failure.errno == errno.EINVAL and fd != self._fd:
                    fd = self._fd  # the driver wants more than a sector's alignment
                    continue
                raise self._read_error(_reason(failure), offset + done, length - done) from failure
            if count == 0:
                raise self._read_error("the device has ended", offset + done, length - done)
            done += count

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data: a device does not tell what was never written."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``, past the page cache if it is aligned as for reading.

        Raises:
            TargetTooSmallError: if it does not fit.
            TargetError: if the device fails.
        """
        self._check_fits(offset, len(data))
        length, done = len(data), 0
        fd = self._fd
        if self._direct_fd is not None and offset % self._sector == length % self._sector == 0:
            fd = self._direct_fd
        while done < length:
            try:
                done += os.pwrite(fd, data[done:], offset + done)
            except OSError as failure:
                if failure.errno == errno.EINVAL and fd != self._fd:
                    fd = self._fd  # not aligned in memory
                    continue
                raise self._write_error(failure, offset + done) from failure

    def zero(self, offset: int, length: int) -> None:
        """Let the device make zeros; where it cannot, write them."""
        self._check_fits(offset, length)
        end = offset + length
        first = min(align_up(offset, self._sector), end)
        last = max(align_down(end, self._sector), first)
        self._write_zeros(offset, first)
        for start in range(first, last, _ZERO_CHUNK_BYTES):
            stop = min(start + _ZERO_CHUNK_BYTES, last)
            try:
                is_done = linux.zero_out(self._fd, start, stop - start)
            except OSError as failure:
                raise self._write_error(failure, start) from failure
            if not is_done:
                self._write_zeros(start, stop)
        self._write_zeros(last, end)

    def resize(self, size: int) -> None:
        """Nothing, if it is the size that the device has.

        Raises:
            TargetTooSmallError: if the device is smaller.
            RefusedError: if it is larger: it cannot be cut off.
        """
        self._check_fits(0, size)
        if size < self._size:
            raise RefusedError(f"a device keeps its {self._size} bytes", name=self.name)

    def can_offload(self, source: Storage) -> bool:
        """The kernel copies only from file to file."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read and write."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Wait until all is on the medium, the device's own cache included."""
        try:
            os.fdatasync(self._fd)
        except OSError as failure:
            raise self._write_error(failure, 0) from failure

    def commit(self) -> None:
        """Flush, let the kernel look for partitions again, and close."""
        if not self._is_closed:
            self.flush()
            self.abort()

    def abort(self) -> None:
        """Let the kernel look for partitions again, and close; what was written stays."""
        if self._is_writable and not self._is_closed and not linux.reread_partitions(self._fd):
            _log.debug("%s: the kernel did not read the partition table again", self.name)
        self.close()

    def close(self) -> None:
        """Close the file descriptors."""
        if not self._is_closed:
            self._is_closed = True
            if self._direct_fd is not None:
                os.close(self._direct_fd)
            os.close(self._fd)

    def _check_fits(self, offset: int, length: int) -> None:
        if offset + length > self._size:
            raise TargetTooSmallError(
                f"has {self._size} bytes, {offset + length} are needed",
                name=self.name,
                offset=offset,
                length=length,
            )

    def _write_zeros(self, start: int, stop: int) -> None:
        if self._zeros is None and start < stop:
            # Aligned to a page, as direct I/O needs it, which a ``bytes`` object never is.
            self._zeros = memoryview(mmap.mmap(-1, MIB))
        for position in range(start, stop, MIB):
            assert self._zeros is not None
            self.write(self._zeros[: stop - position], position)

    def _read_error(self, reason: str, offset: int, length: int) -> ReadError:
        return ReadError(
            f"cannot read at 0x{offset:x}: {reason}",
            name=self.name,
            offset=offset,
            length=length,
        )

    def _write_error(self, failure: OSError, offset: int) -> TargetError:
        return TargetError(
            f"cannot write at 0x{offset:x}: {_reason(failure)}", name=self.name, offset=offset
        )


def describe(path: Path) -> DeviceInfo:
    """What a device is and who uses it, for people; it is not opened for that.

    Raises:
        ReadError: if there is no block device, or the kernel does not tell.
    """
    return System().describe(path)


def confirm_text(path: Path) -> str:
    """What the user has to type back before the device is overwritten: its kernel name.

    ``sdb`` for ``/dev/sdb``, but also for ``/dev/disk/by-id/usb-…``: so the user has seen
    what a link leads to.

    Raises:
        ReadError: if there is no block device.
    """
    return System().node(path).name


def _check_kind(mode: int, name: str, error: type[ReadError | TargetError]) -> None:
    if stat.S_ISCHR(mode):
        raise error("expected a block device, found a character device", name=name)
    if not stat.S_ISBLK(mode):
        raise error("expected a block device", name=name)


def _check_unused(path: Path) -> None:
    uses = System().used_by(path)
    if uses:
        raise TargetBusyError(
            f"expected a device that nobody uses: {'; '.join(uses)}", name=str(path)
        )


def _reason(failure: OSError) -> str:
    return (failure.strerror or str(failure)).lower()
