"""What the system says and promises of files, in one place for all that keep some."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def reason_of(failure: OSError) -> str:
    """What the system says, as part of a sentence."""
    return (failure.strerror or str(failure)).lower()


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as far as its file system offers that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)
