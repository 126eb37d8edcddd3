"""System calls that Python's ``os`` does not offer."""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_PUNCH_HOLE: Final = 0x02


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
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        return False
    raise OSError(code, os.strerror(code))


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
    return library
