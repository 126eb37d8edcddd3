"""Volumes that are half full and aged, to measure with: real files, deleted ones between them.

What is free holds stale bytes: of files that were deleted, and of what the disk held before. Needs
root, to mount; FAT is written by mtools. Run as a program, as :mod:`content`:

    python benchmarks/aged.py xfs PATH 4G
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.content import (
    BINARY_FOLDERS,
    BLOCK_BYTES,
    SEED,
    TEXT_FOLDERS,
    files_below,
    make_disk,
)
from imprint.core.units import MIB, align_up, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

FILLED: Final = 0.6
"""Share of the volume that files take up before a third of them is deleted."""

USED: Final = 0.5
"""Share of it that they take up in the end: new ones fill some of the gaps."""

_BATCH_BYTES: Final = 32 * MIB
_FILE_BYTES_MAX: Final = 32 * MIB
_DELETED_EVERY: Final = 3
_ARGUMENTS_MAX: Final = 500


@dataclass(frozen=True)
class Kind:
    """A kind of file system.

    Attributes:
        make: command that makes one in the file that is named behind it, without discarding
            what it holds.
        check: command that is content with a sound one, and changes nothing.
        mount: options of ``mount``; ``None``: mtools write it.
    """

    make: tuple[str, ...]
    check: tuple[str, ...]
    mount: tuple[str, ...] | None = ("-o", "loop")


KINDS: Final = {
    "ext4": Kind(("mkfs.ext4", "-q", "-E", "nodiscard"), ("e2fsck", "-fn")),
    "xfs": Kind(("mkfs.xfs", "-q", "-f", "-K"), ("xfs_repair", "-n")),
    "btrfs": Kind(("mkfs.btrfs", "-q", "-f", "-K"), ("btrfs", "check", "--readonly")),
    "ntfs": Kind(
        ("mkfs.ntfs", "-q", "-Q", "-F"), ("ntfsfix", "-n"), ("-t", "ntfs-3g", "-o", "loop")
    ),
    "fat32": Kind(("mkfs.vfat", "-F", "32"), ("fsck.vfat", "-n"), None),
}
"""By the name that partclone has for it."""


class Place(Protocol):
    """Where files are put and removed."""

    def put(self, folder: Path) -> None:
        """Copy a folder into it."""

    def remove(self, names: list[str]) -> None:
        """Remove files, named relative to it."""


class _Mounted:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, folder: Path) -> None:
        shutil.copytree(folder, self._root / folder.name)
        self._sync()  # or what is deleted would never have been written

    def remove(self, names: list[str]) -> None:
        for name in names:
            (self._root / name).unlink()
        self._sync()

    def _sync(self) -> None:
        _run("sync", "-f", str(self._root))


class _Mtools:
    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, folder: Path) -> None:
        _run("mcopy", "-s", "-Q", "-i", str(self._path), str(folder), "::/")

    def remove(self, names: list[str]) -> None:
        for at in range(0, len(names), _ARGUMENTS_MAX):
            some = [f"::/{name}" for name in names[at : at + _ARGUMENTS_MAX]]
            _run("mdel", "-i", str(self._path), *some)


def make_aged(path: Path, kind: str, size: int, seed: int) -> None:
    """Write a volume of ``size`` bytes that is half full of this machine's files."""
    make_disk(path, size, seed + 1)
    _run(*KINDS[kind].make, str(path))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _place(path, kind) as place:
        batches = _batches(Path(folder), seed)
        names: list[str] = []
        kept = 0
        while kept < FILLED * size:
            kept += _put_next(batches, place, names)
        deleted = names[::_DELETED_EVERY]
        place.remove(deleted)
        kept -= kept // _DELETED_EVERY
        while kept < USED * size:
            kept += _put_next(batches, place, names)


def _put_next(batches: Iterator[tuple[Path, int]], place: Place, names: list[str]) -> int:
    batch, length = next(batches)
    place.put(batch)
    names.extend(sorted(f"{batch.name}/{path.name}" for path in batch.iterdir()))
    return length


def _batches(folder: Path, seed: int) -> Iterator[tuple[Path, int]]:
    """Folders with copies of files of this machine, each removed when the next is asked for."""
    dice = random.Random(seed)
    number = 0
    while True:
        files = files_below((*BINARY_FOLDERS, *TEXT_FOLDERS))
        dice.shuffle(files)
        while files:
            batch = folder / f"batch{number}"
            batch.mkdir()
            number += 1
            length = 0
            while files and length < _BATCH_BYTES:
                # A name that every file system takes.
                length += _copied(files.pop(), batch / f"f{len(files)}.bin")
            yield batch, length
            shutil.rmtree(batch)


def _copied(path: Path, target: Path) -> int:
    """Copy a file; the room it takes, 0 if it did not go."""
    try:
        length = path.stat().st_size
        if 0 < length <= _FILE_BYTES_MAX:
            shutil.copyfile(path, target)
            return align_up(length, BLOCK_BYTES)
    except OSError:  # not ours to read, or gone
        pass
    return 0


@contextlib.contextmanager
def _place(path: Path, kind: str) -> Iterator[Place]:
    options = KINDS[kind].mount
    if options is None:
        yield _Mtools(path)
        return
    with tempfile.TemporaryDirectory() as root:
        _run("mount", *options, str(path), root)
        try:
            yield _Mounted(Path(root))
        finally:
            _run("umount", root)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Make the volume that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=tuple(KINDS))
    parser.add_argument("path", type=Path)
    parser.add_argument("size", type=parse_size)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    make_aged(args.path, args.kind, args.size, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
