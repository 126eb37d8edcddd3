"""One half of the measurement of a large index: programs of their own, for their memory.

python benchmarks/large_index.py build FOLDER CHUNKS OBJECTS
python benchmarks/large_index.py find FOLDER CHUNKS OBJECTS
"""

from __future__ import annotations

import random
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blake3 import blake3

from benchmarks.large import CHUNK_BYTES, per_tib
from imprint.core.units import MIB
from imprint.objects.local import LocalStore
from imprint.repository import envelope
from imprint.repository.envelope import What
from imprint.repository.index import ChunkIndex, build_index
from imprint.repository.pack import Directory, PackKind
from imprint.repository.protection import NAME_BYTES, Plain

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP_CHUNKS: Final = 4
PACK_GROUPS: Final = 100
PACK_CHUNKS: Final = GROUP_CHUNKS * PACK_GROUPS
LOOKUPS: Final = 200_000
_HEAD_BYTES: Final = 8


def names_of(number: int) -> bytes:
    """The names of the chunks of a pack, one behind the other: the same each time."""
    return random.Random(number).randbytes(NAME_BYTES * PACK_CHUNKS)


def directories(first: int, last: int) -> Iterator[tuple[bytes, Directory]]:
    """Packs, with their names, that are full of chunks of the average length."""
    for number in range(first, last):
        found = Directory(PackKind.DATA, start=_HEAD_BYTES)
        found.stored = array("I", [GROUP_CHUNKS * CHUNK_BYTES // 3]) * PACK_GROUPS
        found.raw = array("I", [GROUP_CHUNKS * CHUNK_BYTES]) * PACK_GROUPS
        found.codecs = bytearray(b"\1" * PACK_GROUPS)
        found.lengths = array("I", [CHUNK_BYTES]) * PACK_CHUNKS
        found.names = bytearray(names_of(number))
        found.counts = array("I", [GROUP_CHUNKS]) * PACK_GROUPS
        yield blake3(b"%d" % number).digest(), found


def build(folder: Path, chunks: int, objects: int) -> str:
    """Make the index objects of a repository, as sessions do one by one."""
    folder.mkdir()
    store = LocalStore(folder)
    packs = chunks // PACK_CHUNKS
    spent, stored = 0.0, 0
    for number in range(objects):
        borders = (packs * number // objects, packs * (number + 1) // objects)
        listed = list(directories(*borders))
        begun = time.perf_counter()
        data = envelope.wrap(What.INDEX, build_index(listed), Plain())
        store.put(f"index/{blake3(data).hexdigest()}", [data])
        spent += time.perf_counter() - begun
        stored += len(data)
    count = packs * PACK_CHUNKS
    return (
        f"{count} chunks, {stored / MIB:.0f} MiB stored, {per_tib(stored, count) / MIB:.0f} MiB "
        f"for a TiB, {spent / count * 1e6:.2f} µs a chunk"
    )


def find(folder: Path, chunks: int) -> str:
    """Load the index, and look up chunks that it has and some that it has not."""
    packs = chunks // PACK_CHUNKS
    dice = random.Random(packs)
    known = [names_of(dice.randrange(packs)) for _ in range(LOOKUPS // PACK_CHUNKS)]
    unknown = [names_of(packs + number) for number in range(LOOKUPS // PACK_CHUNKS)]
    index = ChunkIndex(LocalStore(folder), Plain())
    begun = time.perf_counter()
    count = len(index)
    loaded_s = time.perf_counter() - begun
    parts = [f"loaded in {loaded_s:.2f} s", f"tables of {index.memory_bytes / MIB:.0f} MiB"]
    for what, names in (("a hit", known), ("a miss", unknown)):
        begun = time.perf_counter()
        hits = sum(
            block[at : at + NAME_BYTES] in index
            for block in names
            for at in range(0, len(block), NAME_BYTES)
        )
        spent = time.perf_counter() - begun
        asked = len(names) * PACK_CHUNKS
        if hits != (asked if names is known else 0):
            raise SystemExit(f"large_index.py: {hits} of {asked} found")
        parts.append(f"{spent / asked * 1e6:.2f} µs {what}")
    if count != packs * PACK_CHUNKS:
        raise SystemExit(f"large_index.py: expected {packs * PACK_CHUNKS} chunks, found {count}")
    return ", ".join(parts)


def main(verb: str, folder: str, chunks: str, objects: str) -> None:
    """Do what the arguments say."""
    if verb == "build":
        print(build(Path(folder), int(chunks), int(objects)))
    else:
        print(find(Path(folder), int(chunks)))


if __name__ == "__main__":
    main(*sys.argv[1:])
