"""What a large disk takes: the memory to keep 1 TiB, and an index of ten million chunks.

    .venv/bin/python benchmarks/large.py [--only CASE] [--size 1T] [--data 4G] [--chunks 10000000]
                                         [--dir DIR] [--markdown | --json]

The disk is a sparse file with synthetic data at places that a seed decides. The exit code is 1
if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import IMPRINT
from benchmarks.content import BLOCK_BYTES, SEED
from benchmarks.measuring import FailedError, must_succeed, run_measured
from benchmarks.ranges import data_of, merge, same
from benchmarks.run import tell
from imprint.core.units import GIB, KIB, MIB, TIB, align_down, align_up, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_MAX: Final = 500 * MIB
CASES: Final = ("store-1t", "index")
QUIET: Final = ("--progress", "none")
INDEX: Final = str(Path(__file__).resolve().parent / "large_index.py")

PIECE_BYTES: Final = (4 * KIB, MIB)
"""A piece of data is from this to that long: many small ones, so that there is much to know."""

CHUNK_BYTES: Final = 270 * KIB
"""The average of unique chunks that were cut at the borders of files."""

OBJECTS: Final = 100


@dataclass(frozen=True)
class Row:
    """A step, and whether it kept to the bar.

    Attributes:
        case: its name.
        what: was done.
        wall_s: until the result was durable.
        cpu_s: of all threads.
        memory: peak, in bytes.
        holds: memory is below the bar.
        notes: other figures.
    """

    case: str
    what: str
    wall_s: float
    cpu_s: float
    memory: int
    holds: bool
    notes: str = ""


def make_sparse(path: Path, size: int, data: int, seed: int) -> None:
    """Write a sparse file with pieces of data that compress to about a half, far apart."""
    dice = random.Random(seed)
    with path.open("wb") as disk:
        left = data
        while left > 0:
            length = min(left, align_up(dice.randint(*PIECE_BYTES), BLOCK_BYTES))
            disk.seek(align_down(dice.randrange(size - length), BLOCK_BYTES))
            disk.write(_synthetic(dice, length))
            left -= length
        disk.truncate(size)


def _synthetic(dice: random.Random, length: int) -> bytes:
    """Every second block random, the others of few different bytes."""
    blocks = (
        dice.randbytes(BLOCK_BYTES) if number % 2 else dice.randbytes(16) * (BLOCK_BYTES // 16)
        for number in range(length // BLOCK_BYTES)
    )
    return b"".join(blocks)


def store_large(folder: Path, size: int, data: int) -> Iterator[Row]:
    """Keep a large disk twice, and write it back."""
    disk, repo, out = folder / "disk.raw", folder / "repo", folder / "out.raw"
    tell("making the disk")
    make_sparse(disk, size, data, SEED)
    must_succeed(IMPRINT, "repo", "init", str(repo))
    address = f"repo:{repo}::large"
    capture = [IMPRINT, "capture", "--used", *QUIET, str(disk), address]
    restore = [IMPRINT, "restore", *QUIET, address, str(out)]
    for what, command in (("capture", capture), ("again", capture), ("restore", restore)):
        tell(f"store-1t: {what}")
        yield _measured("store-1t", what, command)
    if not _same_data(disk, out):
        raise FailedError("store-1t: restored another disk")


def index_large(folder: Path, chunks: int) -> Iterator[Row]:
    """Make an index of many chunks, load it, and find chunks in it."""
    where = str(folder / "index-store")
    for what in ("build", "find"):
        tell(f"index: {what}")
        yield _measured(
            "index", what, [sys.executable, INDEX, what, where, str(chunks), str(OBJECTS)]
        )


def per_tib(stored: float, chunks: int) -> float:
    """Bytes of index for a TiB of unique data, if this many are for so many chunks."""
    return stored / chunks * (TIB / CHUNK_BYTES)


def _measured(case: str, what: str, command: list[str]) -> Row:
    run = run_measured(command, os.sync, watch=True, keep=True)
    memory = max(run.peak, run.tree_peak)
    notes = run.output.decode().strip() if case == "index" else ""
    return Row(case, what, run.wall_s, run.cpu_s, memory, memory < MEMORY_MAX, notes)


def _same_data(one: Path, other: Path) -> bool:
    """Whether two sparse files read the same, without reading all holes of both."""
    return same(one, other, merge([*data_of(one), *data_of(other)]))


def main() -> int:
    """Measure, and print what came of it."""
    args = _parse()
    rows: list[Row] = []
    with ExitStack() as stack:
        base = args.dir or Path(tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=base)))
        if "store-1t" in (args.only or CASES):
            rows += store_large(folder, args.size, args.data)
        if "index" in (args.only or CASES):
            rows += index_large(folder, args.chunks)
    from benchmarks import table  # not at the top: a parent's memory counts as its children's

    facts = table.context(args.size, 1, ())
    if args.json:
        print(json.dumps({"context": facts, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        head = ("case", "what", "wall s", "CPU s", "MiB", "bar", "", "notes")
        cells = [head, *(_cells(row) for row in rows)]
        print(table.page(cells, (), facts, markdown=args.markdown))
    return 0 if all(row.holds for row in rows) else 1


def _cells(row: Row) -> tuple[str, ...]:
    return (
        *(row.case, row.what, f"{row.wall_s:.1f}", f"{row.cpu_s:.1f}", f"{row.memory / MIB:.0f}"),
        *(f"< {MEMORY_MAX // MIB}", "holds" if row.holds else "missed", row.notes),
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=CASES, help="repeatable")
    parser.add_argument("--size", type=parse_size, default=TIB, help="of the disk")
    parser.add_argument("--data", type=parse_size, default=4 * GIB, help="that it holds")
    parser.add_argument("--chunks", type=int, default=10_000_000, help="in the index")
    parser.add_argument("--dir", type=Path, help="where files go")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true")
    shape.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
