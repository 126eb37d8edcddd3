"""Writing to a file past the page cache.

A copy is far larger than the memory that is free. Written through the cache, it drives out what
others have there, and costs a page of memory, which has to be found, for every 4 KiB: a quarter of
the processor time of restoring a disk. So large aligned writes go to the device as they are. What
is not aligned, and files where this is not offered, go through the cache, as ever.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from imprint.storage import linux

_ALIGNMENT: Final = 4096
"""Of offsets and lengths: what every sector size divides."""

_BYTES_MIN: Final = 256 << 10
"""A small write would have to wait for the device; the cache gathers them."""


class DirectWriter:
    """A second descriptor of a file, for direct I/O; owned. Without one, it writes nothing."""

    def __init__(self, fd: int) -> None:
        """``fd`` is open for writing, and stays the caller's."""
        self._file = fd
        self._fd: int | None = None
        self._is_tried = False  # most files are small, and never need it

    def write(self, data: memoryview, offset: int) -> int:
        """Write the beginning of ``data``; how much that was: 0 where it cannot be done.

        Raises:
            OSError: if the device fails.
        """
        length = len(data)
        if length < _BYTES_MIN or (offset | length) % _ALIGNMENT:
            return 0
        if not self._is_tried:
            self._is_tried = True
            self._fd = _reopened(self._file)
        if self._fd is None:
            return 0
        try:
            return os.pwrite(self._fd, data, offset)
        except OSError as failure:
            if failure.errno == errno.EINVAL:  # not aligned in memory
                return 0
            raise

    def close(self) -> None:
        """Close the descriptor. Calling again changes nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _reopened(fd: int) -> int | None:
    """The file once more, if it is on a device of this machine.

    Over a network every such write would wait for the server, and in memory nothing is gained.
    """
    device = os.fstat(fd).st_dev
    if not Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists():
        return None
    return linux.open_direct(fd, os.O_WRONLY)
