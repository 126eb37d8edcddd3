"""A part of a disk as something that outside programs can work on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.core.extent import Kind
from imprint.endpoints import tools
from imprint.storage.file import FileStorage

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def volume(path: Path, start: int, length: int) -> Iterator[Path]:
    """A part of a raw file or device, changed by whoever is inside; durable afterwards.

    For root it is a loop device, else a copy beside the file, which is written back in the
    end if nothing has failed.

    Raises:
        TargetError: if it cannot be had.
    """
    if os.geteuid() == 0:
        with loop_device(path, start, length) as device:
            yield device
    else:
        with _scratch(path, start, length) as copy:
            yield copy


@contextlib.contextmanager
def loop_device(path: Path, start: int, length: int) -> Iterator[Path]:
    """A part of a raw file or device as a device of its own; needs root.

    Raises:
        TargetError: if the kernel has none to give.
    """
    limits = (f"--offset={start}", f"--sizelimit={length}")
    device = tools.run("losetup", "--find", "--show", *limits, str(path.absolute())).strip()
    with _opened(device):
        # Detached as soon as nobody has it open, even if we are killed meanwhile.
        tools.run("losetup", "--detach", device)
        yield Path(device)
    with _opened(path) as fd:
        os.fsync(fd)  # the kernel has written into the page cache of the file


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def mounted(device: Path, kind: str, options: str) -> Iterator[Path]:
    """A file system that is mounted where nobody else looks; needs root.

    Raises:
        TargetError: if it cannot be mounted, or not unmounted.
    """
    with tempfile.TemporaryDirectory(prefix="imprint-") as folder:
        point = Path(folder) / "mount"
        point.mkdir()
        tools.run("mount", "-t", kind, "-o", options, str(device), str(point))
        try:
            yield point
        finally:
            tools.run("umount", str(point))


@contextlib.contextmanager
def _scratch(path: Path, start: int, length: int) -> Iterator[Path]:
    """A copy of a part of a file; where the file system can, the two share their blocks."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:64]}.", dir=path.parent) as folder:
        place = Path(folder) / "volume"
        place.touch()
        with (
            contextlib.closing(FileStorage.open(path)) as disk,
            contextlib.closing(FileStorage.open(place, writable=True)) as copy,
        ):
            copy.resize(length)
            for extent in disk.extents(start, length):
                if extent.kind is Kind.DATA:
                    copy.copy_range(disk, extent.offset, extent.offset - start, extent.length)
        yield place
        with (
            contextlib.closing(FileStorage.open(place)) as copy,
            contextlib.closing(FileStorage.open(path, writable=True)) as disk,
        ):
            for extent in copy.extents(0, min(copy.size, length)):
                if extent.kind is Kind.DATA:
                    disk.copy_range(copy, extent.offset, start + extent.offset, extent.length)
                else:
                    disk.zero(start + extent.offset, extent.length)
            disk.flush()
