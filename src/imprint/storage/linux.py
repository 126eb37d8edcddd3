"""System calls that Python's ``os`` does not offer."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_PUNCH_HOLE: Final = 0x02
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h

# linux/fs.h, without the direction bits that some architectures add.
_BLKROGET: Final = 0x125E
_BLKRRPART: Final = 0x125F
_BLKSSZGET: Final = 0x1268
_BLKPBSZGET: Final = 0x127B
_BLKZEROOUT: Final = 0x127F

_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY)


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give a range back to the file system; ``False`` where it cannot do that.

    Raises:
        OSError: if it can, and failed.
    """
    library = _libc()
    if library is None:
        return False
    if library.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) == 0:
        return True
    import ctypes

    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code))


def sector_sizes(fd: int) -> tuple[int, int]:
    """Logical and physical sector of a block device, in bytes.

    Raises:
        OSError: if it is no block device, or is gone.
    """
    return _ioctl_int(fd, _BLKSSZGET), _ioctl_int(fd, _BLKPBSZGET)


def is_read_only(fd: int) -> bool:
    """Whether the kernel refuses writes to a block device.

    Raises:
        OSError: if it is no block device, or is gone.
    """
    return _ioctl_int(fd, _BLKROGET) != 0


def zero_out(fd: int, offset: int, length: int) -> bool:
    """Make whole sectors of a block device read as zeros; ``False`` where that has to be written.

    Not a discard, after which some devices return old data: the kernel uses what the device
    guarantees, or writes zeros by itself.

    Raises:
        OSError: if it can, and failed.
    """
    try:
        fcntl.ioctl(fd, _request(_BLKZEROOUT), struct.pack("QQ", offset, length))
    except OSError as failure:
        if failure.errno in _CANNOT:
            return False
        raise
    return True


def reread_partitions(fd: int) -> bool:
    """Let the kernel read a disk's partition table again; ``False`` if it will not."""
    try:
        fcntl.ioctl(fd, _request(_BLKRRPART))
    except OSError:  # a partition, a disk that is in use, or one that cannot have any
        return False
    return True


def open_direct(fd: int, access: int) -> int | None:
    """The same file or device once more, for direct I/O; ``None`` where that is not offered.

    Args:
        fd: open on it.
        access: ``os.O_RDONLY`` or the like.
    """
    try:
        # Not by its path: something else may have taken that name meanwhile.
        return os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_DIRECT)
    except (OSError, AttributeError):  # the flag is not everywhere
        return None


def is_aligned(buffer: memoryview, alignment: int) -> bool:
    """Whether a writable, non-empty buffer begins at a multiple of ``alignment`` in memory."""
    import ctypes  # only direct I/O wants to know

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % alignment == 0


def _ioctl_int(fd: int, request: int) -> int:
    answer: int = struct.unpack("i", fcntl.ioctl(fd, _request(request), bytes(4)))[0]
    return answer


def _request(number: int) -> int:
    """An ioctl number that is ``_IO(…)`` in the kernel's header, as this machine has it."""
    has_none_bit = os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc"))
    return number | (1 << 29) if has_none_bit else number


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range to the disk; a wish, which may be ignored."""
    library = _libc()
    if library is not None and hasattr(library, "sync_file_range"):
        library.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


@cache
def _libc() -> ctypes.CDLL | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "fallocate"):
        return None
    library.fallocate.argtypes = (
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
    )
    if hasattr(library, "sync_file_range"):
        library.sync_file_range.argtypes = (
            *(ctypes.c_int, ctypes.c_int64, ctypes.c_int64),
            ctypes.c_uint,
        )
    return library
