"""How fast a kept disk can be read: 4 KiB at random places, or much in a row; as JSON.

    python benchmarks/reading.py random ADDRESS DISK RANGES COUNT
    python benchmarks/reading.py sequential ADDRESS DISK RANGES MIB

ADDRESS is a snapshot in a repository of imprint, or a file below a mounted archive. Opening is
not on the clock, nor is one first read. DISK is what was stored: the bytes have to be the same.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blake3 import blake3

from benchmarks.content import SEED
from benchmarks.ranges import BLOCK_BYTES, load, offsets
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.ranges import Range

SECONDS_MAX: Final = 60.0

Read = tuple[int, int]
"""Offset and length."""


def opened(address: str, *, at_random: bool) -> Callable[[memoryview, int], None]:
    """Fills a buffer with what is at an offset."""
    if address.startswith("repo:"):
        from imprint.endpoints.open import open_source

        return open_source(address).readinto
    file = os.open(address, os.O_RDONLY)
    if at_random:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)

    def readinto(buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(file, [buffer[done:]], offset + done)
            if count == 0:
                raise SystemExit(f"reading.py: {address} ends at {offset + done}")
            done += count

    return readinto


def random_reads(ranges: Sequence[Range], count: int) -> list[Read]:
    """The first one is for warming up."""
    return [(offset, BLOCK_BYTES) for offset in offsets(ranges, count + 1, SEED)]


def reads_in_a_row(ranges: Iterable[Range], limit: int) -> list[Read]:
    """What is in use, in pieces of at most 1 MiB, until it is ``limit`` bytes; one before."""
    found: list[Read] = []
    for offset, length in ranges:
        for start in range(offset, offset + length, MIB):
            size = min(MIB, offset + length - start, limit)
            if size == 0:
                return [*found[:1], *found]
            found.append((start, size))
            limit -= size
    return [*found[:1], *found]


def measure(readinto: Callable[[memoryview, int], None], reads: Sequence[Read]) -> dict[str, float]:
    """Do the reads; all but the first are on the clock, as many as a minute has room for."""
    buffer = memoryview(bytearray(MIB))
    digest = blake3()
    count = total = 0
    spent = 0.0
    for number, (offset, length) in enumerate(reads):
        begun = time.perf_counter()
        readinto(buffer[:length], offset)
        took = time.perf_counter() - begun
        digest.update(buffer[:length])
        if number:
            spent += took
            count += 1
            total += length
        if spent > SECONDS_MAX:
            break
    return {"reads": count, "bytes": total, "seconds": spent, "digest": int(digest.hexdigest(), 16)}


def main(kind: str, address: str, disk: str, ranges: str, amount: str) -> None:
    """Do what the arguments say."""
    used = load(Path(ranges))
    at_random = kind == "random"
    if at_random:
        reads = random_reads(used, int(amount))
    else:
        reads = reads_in_a_row(used, int(amount) * MIB)
    found = measure(opened(address, at_random=at_random), reads)
    same = opened(disk, at_random=at_random)
    expected = measure(same, reads[: int(found["reads"]) + 1])
    found["same"] = found.pop("digest") == expected["digest"]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
