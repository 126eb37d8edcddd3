"""What of a disk is in use, as ranges of bytes in a file; what differs there, and where to read."""

from __future__ import annotations

import json
import os
import random
import subprocess
from typing import TYPE_CHECKING, Final

from benchmarks.cases import IMPRINT
from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

BLOCK_BYTES: Final = 4 * KIB

Range = tuple[int, int]
"""Offset and length, in bytes."""


def make_ranges(disk: Path, path: Path) -> None:
    """Ask imprint what file systems use of a disk, and write that down."""
    done = subprocess.run(
        [IMPRINT, "map", "--used", "--json", "--progress", "none", str(disk)],
        check=True,
        stdout=subprocess.PIPE,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    merged = merge([(line["offset"], line["length"]) for line in lines if line["kind"] == "data"])
    path.write_text(json.dumps(merged), encoding="ascii")


def load(path: Path) -> list[Range]:
    """What :func:`make_ranges` has written."""
    return [(offset, length) for offset, length in json.loads(path.read_bytes())]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Ascending ranges that cover the same bytes and do not touch each other."""
    merged: list[Range] = []
    for offset, length in sorted(ranges):
        if merged and offset <= sum(merged[-1]):
            start = merged[-1][0]
            merged[-1] = (start, max(sum(merged[-1]), offset + length) - start)
        else:
            merged.append((offset, length))
    return merged


def data_of(path: Path) -> list[Range]:
    """What of a sparse file is no hole."""
    found: list[Range] = []
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole
                return found
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, end - start))


def offsets(ranges: Sequence[Range], count: int, seed: int) -> list[int]:
    """Where to read 4 KiB at random in what is in use: every block is as likely as any other."""
    blocks = [(offset, length // BLOCK_BYTES) for offset, length in ranges]
    dice = random.Random(seed)
    chosen = sorted(dice.randrange(sum(count for _, count in blocks)) for _ in range(count))
    found: list[int] = []
    before = 0
    for offset, length in blocks:
        while len(found) < count and chosen[len(found)] < before + length:
            found.append(offset + (chosen[len(found)] - before) * BLOCK_BYTES)
        before += length
    dice.shuffle(found)
    return found


def differing(old: Path, new: Path, ranges: Sequence[Range]) -> int:
    """Bytes of the 4 KiB blocks in these ranges that differ between two files."""
    total = 0
    with old.open("rb") as before, new.open("rb") as after:
        for offset, length in ranges:
            before.seek(offset)
            after.seek(offset)
            for start in range(0, length, MIB):
                size = min(MIB, length - start)
                one, other = before.read(size), after.read(size)
                if one != other:
                    total += sum(
                        len(other[at : at + BLOCK_BYTES])
                        for at in range(0, size, BLOCK_BYTES)
                        if one[at : at + BLOCK_BYTES] != other[at : at + BLOCK_BYTES]
                    )
    return total


def same(one: Path, other: Path, ranges: Sequence[Range]) -> bool:
    """Whether two files agree in these ranges, and have the same size."""
    return one.stat().st_size == other.stat().st_size and differing(one, other, ranges) == 0
