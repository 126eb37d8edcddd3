"""Disks to measure with, made of what real disks hold.

The same machine with the same packages gives the same bytes: files are taken in an order
that a seed decides, and nothing depends on the time. Run as a program, since a process that
has made gigabytes is a bad parent for one whose memory is measured:

    python benchmarks/content.py disk PATH 2G
    python benchmarks/content.py alternating PATH 4G
"""

from __future__ import annotations

import argparse
import json
import os
import random
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB, MIB, align_up, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

SEED: Final = 20

# Shares of a disk in per cent, guided by what an installed system's disk looks like: a third
# of it never written, most of the rest programs and text, some of it compressed or encrypted.
SHARES: Final = {"binary": 32, "text": 25, "random": 10, "zero": 3, "hole": 30}

BINARY_FOLDERS: Final = ("/usr/lib", "/usr/bin", "/usr/sbin", "/usr/libexec")
TEXT_FOLDERS: Final = ("/usr/share", "/usr/include", "/etc")

PIECE_BYTES: Final = (256 * KIB, 16 * MIB)
"""A piece of one kind is from this to that long, as file systems keep like beside like."""

BLOCK_BYTES: Final = 4 * KIB
"""Files begin at multiples of this, as in a file system."""

CLUSTER_BYTES: Final = 64 * KIB
"""QCOW2's default: what is allocated or not in an alternating disk."""

_FILES_MAX: Final = 200_000
_TEXT_SAMPLE_BYTES: Final = 4 * KIB


def make_disk(path: Path, size: int, seed: int) -> dict[str, int]:
    """Write a sparse raw disk of programs, text, random bytes, zeros and holes.

    Returns:
        Bytes of each kind.
    """
    randomness = random.Random(seed)
    sources: dict[str, Callable[[int], Iterator[bytes]]] = {
        "binary": _FileFeed(files_below(BINARY_FOLDERS), randomness, is_text=False).take,
        "text": _FileFeed(files_below(_text_folders()), randomness, is_text=True).take,
        "random": lambda length: _blocks(length, randomness.randbytes),
        "zero": lambda length: _blocks(length, bytes),
    }
    made = dict.fromkeys(SHARES, 0)
    with path.open("wb") as disk:
        position = 0
        while position < size:
            # The kind that is furthest behind its share, so that the shares hold at any size.
            kind = min(SHARES, key=lambda name: (made[name] + 1) / SHARES[name])
            length = align_up(randomness.randint(*PIECE_BYTES), BLOCK_BYTES)
            length = min(length, size - position)
            if kind != "hole":
                _write(disk, position, sources[kind](length))
            made[kind] += length
            position += length
        disk.truncate(size)
    return made


def make_alternating(path: Path, size: int, seed: int) -> dict[str, int]:
    """Write a sparse raw disk whose every second cluster holds data.

    Returns:
        Bytes of each kind.
    """
    randomness = random.Random(seed)
    with path.open("wb") as disk:
        for position in range(0, size, 2 * CLUSTER_BYTES):
            disk.seek(position)
            disk.write(randomness.randbytes(min(CLUSTER_BYTES, size - position)))
        disk.truncate(size)
    return {"random": size // 2, "hole": size - size // 2}


class _FileFeed:
    """Files of one kind, one behind the other, from the first again when they run out."""

    def __init__(self, files: list[Path], randomness: random.Random, *, is_text: bool) -> None:
        randomness.shuffle(files)
        self._files = files
        self._is_text = is_text
        self._stream = self._endless()

    def take(self, length: int) -> Iterator[bytes]:
        """Whole blocks, ``length`` bytes in all."""
        while length > 0:
            block = next(self._stream)[:length]
            yield block
            length -= len(block)

    def _endless(self) -> Iterator[bytes]:
        while True:
            count = 0
            for path in self._files:
                for block in self._content(path):
                    count += 1
                    yield block
            if count == 0:
                wanted = "text" if self._is_text else "binary"
                raise SystemExit(f"content.py: expected {wanted} files on this system, found none")

    def _content(self, path: Path) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                head = file.read(_TEXT_SAMPLE_BYTES)
                # A zero byte is how diff and grep tell a binary file, too.
                if not head or (b"\0" not in head) != self._is_text:
                    return
                file.seek(0)
                while block := file.read(MIB):
                    yield block + bytes(-len(block) % BLOCK_BYTES)
        except OSError:  # not ours to read, or gone
            return


def files_below(folders: tuple[str, ...]) -> list[Path]:
    """Regular files below the folders, in an order that does not depend on the file system."""
    found: list[Path] = []
    for folder in folders:
        for base, subfolders, names in os.walk(folder):
            subfolders.sort()
            for name in sorted(names):
                path = Path(base, name)
                if stat.S_ISREG(path.lstat().st_mode):
                    found.append(path)
                if len(found) == _FILES_MAX:
                    return found
    return found


def _text_folders() -> tuple[str, ...]:
    return (*TEXT_FOLDERS, sysconfig.get_path("stdlib"))


def _blocks(length: int, make: Callable[[int], bytes]) -> Iterator[bytes]:
    for start in range(0, length, MIB):
        yield make(min(MIB, length - start))


def _write(disk: BinaryIO, position: int, blocks: Iterator[bytes]) -> None:
    disk.seek(position)
    disk.writelines(blocks)


def main() -> int:
    """Make the disk that the arguments name, and print what it consists of as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=("disk", "alternating"))
    parser.add_argument("path", type=Path)
    parser.add_argument("size", type=parse_size)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    make = make_disk if args.kind == "disk" else make_alternating
    json.dump(make(args.path, args.size, args.seed), sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
