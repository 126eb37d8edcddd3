"""What the system says and promises of files, and of memory, in one place for all."""

from __future__ import annotations

import errno
import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def reason_of(failure: OSError) -> str:
    """What the system says, as part of a sentence."""
    return (failure.strerror or str(failure)).lower()


def exists(path: Path) -> bool:
    """Whether there is something at ``path``, behind links.

    What cannot be looked at, as in a folder of others, counts as absent: opening it says why.
    Python's own ``Path.exists`` raises there up to version 3.13.
    """
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether a regular file is at ``path``; otherwise as :func:`exists`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a folder is at ``path``; otherwise as :func:`exists`."""
    return os.path.isdir(path)  # noqa: PTH112


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


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """For the time inside, look for objects that hold each other after every 200,000 new ones.

    For a program to decide. Whoever walks a file system makes millions of tuples that hold nothing
    but numbers and text: to look through them again and again is a tenth of the time of a report.
    """
    before = gc.get_threshold()
    gc.set_threshold(200_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
