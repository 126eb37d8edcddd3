"""ext2, ext3 and ext4 volumes for tests: made, aged, frozen, and read by e2fsprogs."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.journal import read_log
from imprint.filesystems.ext.layout import SUPERBLOCK_OFFSET
from imprint.filesystems.ext.ring import Ring
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import age, fill, mounted, shut_down

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VOLUME_BYTES: Final = 64 * MIB

LOG_MAGIC: Final = bytes.fromhex("c03b3998")
"""What begins a block of the log, and is escaped where it begins a copy."""


def make(path: Path, command: str, *more: str | Path, size: int = VOLUME_BYTES) -> Path:
    """Make a file system in a new sparse file; ``command`` is in the words of mke2fs."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", *command.split(), *more, path)
    return path


def populate(folder: Path) -> None:
    """Age a mounted one: files and folders of all sorts, and attributes in a block."""
    age(folder)
    attributed = folder / "attributed"
    attributed.write_bytes(b"x")
    with contextlib.suppress(OSError):  # those of revision 0 have none
        for number in range(8):
            os.setxattr(attributed, f"user.small{number}", bytes([number]) * 90)
    os.mkfifo(folder / "pipe")


def work(folder: Path, rounds: int, seed: int = 5) -> None:
    """Files that are made durable one by one, and some that are deleted with their folders."""
    dice = random.Random(seed)
    place = folder / "work"
    place.mkdir(exist_ok=True)
    for number in range(rounds):
        with (place / f"file{number}").open("wb") as file:
            file.write(LOG_MAGIC + dice.randbytes(dice.choice((100, 5000, 20_000))))
            file.flush()
            os.fsync(file.fileno())
        (place / f"folder{number}").mkdir()
        if number % 3 == 2:
            (place / f"file{number - 1}").unlink()
            (place / f"folder{number - 1}").rmdir()
    (folder / "into the gaps").unlink(missing_ok=True)
    for number in range(0, rounds, 3):  # blocks of these folders are in the log, and revoked
        (place / f"folder{number}").rmdir()
    fd = os.open(place, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def crash(
    path: Path,
    *options: str,
    rounds: int = 40,
    flush_log: bool = True,
    before: Callable[[Path], None] | None = None,
    more: Callable[[Path], None] | None = None,
) -> Path:
    """Fill a volume, work in it, and copy it as it is when the power fails; gives the copy.

    Args:
        path: of the volume.
        options: of both mounts.
        rounds: of work.
        flush_log: see :func:`~imprint.testing.volumes.shut_down`.
        before: fills it, in place of the usual.
        more: is done behind the work.
    """
    frozen = path.with_name("frozen")
    with mounted(path, *options) as folder:
        if before is None:
            fill(folder, size=4 * MIB)
        else:
            before(folder)
    clean = path.read_bytes()
    with mounted(path, *options) as folder:
        work(folder, rounds)
        if more is not None:
            more(folder)
        shut_down(folder, flush_log=flush_log)
        # Unmounting would write what a power cut leaves in memory.
        shutil.copyfile(path, frozen)
    _take_back(frozen, clean)
    return frozen


def _take_back(path: Path, clean: bytes) -> None:
    """Let no block have been written yet that the log has: the system is free to do so or not."""
    with closing(FileStorage.open(path)) as storage:
        geometry = read_geometry(VolumeReader(storage))
        copies = read_log(Ring(storage, geometry)).copies
    size = geometry.block_size
    with path.open("r+b") as file:
        for block in copies.keys() - {SUPERBLOCK_OFFSET // size}:
            file.seek(block * size)
            file.write(clean[block * size : (block + 1) * size])


def used_of_dumpe2fs(path: Path) -> Runs:
    """All but what dumpe2fs calls free, in bytes; it reads the bitmaps by its own library.

    With bigalloc, it names the first blocks of the first and of the last cluster of a run.
    """
    text = run("dumpe2fs", path).stdout
    unit, cluster = (
        int(found[1]) if (found := re.search(rf"^{name} size: +(\d+)$", text, re.MULTILINE)) else 1
        for name in ("Block", "Cluster")
    )
    runs = []
    for line in re.findall(r"^  Free blocks: (.*)$", text, re.MULTILINE):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", line):
            runs.append((int(first), int(last or first) - int(first) + 1))
    return Runs.of(runs).scaled(unit).widened(cluster).complement(path.stat().st_size)
