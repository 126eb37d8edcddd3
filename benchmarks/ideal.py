"""The least that storing a disk takes: skip what is free, hash, compress what is new, write.

Two threads, chunks of 1 MiB, no format to speak of, nothing that anybody could rely upon: what a
repository takes beyond this is its own doing. RANGES is the file that ``store.py`` makes of
``imprint map --used --json``; reading the maps is not part of it.

    python benchmarks/ideal.py store FOLDER SNAPSHOT DISK RANGES
    python benchmarks/ideal.py restore FOLDER SNAPSHOT OUT
    python benchmarks/ideal.py decode FOLDER SNAPSHOT      bytes and seconds of one thread, as JSON
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blake3 import blake3

from imprint.codecs.zstd import compress, decompress
from imprint.core.buffers import is_zero
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS: Final = 2
CHUNK_BYTES: Final = MIB

T = TypeVar("T")
R = TypeVar("R")

Places = dict[str, tuple[int, int]]
"""Where the compressed chunk of a name begins in the data, and its length."""


def store(folder: Path, snapshot: str, disk: Path, ranges: Path) -> None:
    """Add a disk."""
    folder.mkdir(exist_ok=True)
    places = _places(folder)
    chunks: list[tuple[int, int, str]] = []
    source = os.open(disk, os.O_RDONLY)

    def work(piece: tuple[int, int]) -> tuple[tuple[int, int], str, bytes | None]:
        data = os.pread(source, piece[1], piece[0])
        if is_zero(memoryview(data)):
            return piece, "", None
        name = blake3(data).hexdigest()
        return piece, name, None if name in places else compress(data)

    with (folder / "data").open("ab") as data:
        for piece, name, packed in _in_order(work, _pieces(ranges)):
            if name:
                chunks.append((*piece, name))
            if packed is not None and name not in places:
                places[name] = (data.tell(), len(packed))
                data.write(packed)
        data.flush()
        os.fsync(data.fileno())
    for name, content in (("places", places), (snapshot, chunks)):
        with (folder / name).open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())


def restore(folder: Path, snapshot: str, out: Path) -> None:
    """Write a disk as a sparse file."""
    data = os.open(folder / "data", os.O_RDONLY)
    places = _places(folder)
    target = os.open(out, os.O_WRONLY | os.O_CREAT, 0o644)

    def work(chunk: tuple[int, int, str]) -> None:
        offset, length, name = chunk
        start, stored = places[name]
        content = decompress(os.pread(data, stored, start), length)
        if blake3(content).hexdigest() != name:
            raise SystemExit(f"ideal.py: chunk {name} is damaged")
        os.pwrite(target, content, offset)

    for _ in _in_order(work, iter(_chunks(folder, snapshot))):
        pass
    os.fsync(target)


def decode(folder: Path, snapshot: str) -> None:
    """Decompress all chunks of a disk in one thread."""
    data = os.open(folder / "data", os.O_RDONLY)
    places = _places(folder)
    total = 0
    start = time.perf_counter()
    for _, length, name in _chunks(folder, snapshot):
        position, stored = places[name]
        total += len(decompress(os.pread(data, stored, position), length))
    json.dump({"bytes": total, "seconds": time.perf_counter() - start}, sys.stdout)


def _in_order(work: Callable[[T], R], items: Iterator[T]) -> Iterator[R]:
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(items, 2 * THREADS))
        while waiting:
            yield waiting.popleft().result()
            if (item := next(items, None)) is not None:
                waiting.append(pool.submit(work, item))


def _pieces(ranges: Path) -> Iterator[tuple[int, int]]:
    """What is used, cut at multiples of the chunk size of the disk."""
    for offset, length in json.loads(ranges.read_bytes()):
        position, end = offset, offset + length
        while position < end:
            border = min(end, (position // CHUNK_BYTES + 1) * CHUNK_BYTES)
            yield position, border - position
            position = border


def _places(folder: Path) -> Places:
    path = folder / "places"
    return json.loads(path.read_bytes()) if path.exists() else {}


def _chunks(folder: Path, snapshot: str) -> list[tuple[int, int, str]]:
    return [tuple(chunk) for chunk in json.loads((folder / snapshot).read_bytes())]


def main(verb: str, *words: str) -> None:
    """Do what the arguments say."""
    if verb == "store":
        folder, snapshot, disk, ranges = words
        store(Path(folder), snapshot, Path(disk), Path(ranges))
    elif verb == "restore":
        folder, snapshot, out = words
        restore(Path(folder), snapshot, Path(out))
    else:
        folder, snapshot = words
        decode(Path(folder), snapshot)


if __name__ == "__main__":
    main(*sys.argv[1:])
