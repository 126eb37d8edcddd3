"""imprint beside libewf's tools: evidence written and verified, in turns, on the same disk.

    .venv/bin/python benchmarks/evidence.py [--size 2G] [--runs 3] [--dir DIR]

Needs ``ewf-tools``. Prints wall and processor seconds and bytes of each run's median, and the
ratios that count: how many times as fast as the peer, and how much larger.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.units import parse_size

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import IMPRINT
from benchmarks.inputs import Inputs
from benchmarks.measuring import run_measured

if TYPE_CHECKING:
    from collections.abc import Callable

HASHES: Final = "md5,sha1,sha256"
_PEER_HASHES: Final = "sha1,sha256"
"""Besides MD5, which libewf's tools take always."""


class Pair(NamedTuple):
    """The same work by both: commands that are given input and output."""

    name: str
    ours: Callable[[Path, Path], list[str]]
    theirs: Callable[[Path, Path], list[str]]
    is_writing: bool


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("2G"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = Inputs(folder, args.size, lambda text: print(text, file=sys.stderr)).get("disk")
        image = folder / "evidence.E01"
        if not image.exists():
            _run(_acquire(disk, image))
        for pair in _PAIRS:
            _compare(pair, disk if pair.is_writing else image, folder, args.runs)


def _capture(source: Path, target: Path) -> list[str]:
    options = ["--progress", "none", "--hash", HASHES, "-O", "e01", "-osegment_size=2G"]
    return [IMPRINT, "capture", *options, str(source), str(target)]


def _acquire(source: Path, target: Path) -> list[str]:
    options = ["-u", "-q", "-f", "encase6", "-c", "fast", "-S", "2GiB", "-d", _PEER_HASHES]
    return ["ewfacquire", *options, "-t", str(target.with_suffix("")), str(source)]


def _verify(source: Path, target: Path) -> list[str]:
    del target
    return [IMPRINT, "verify", "--progress", "none", "--hash", HASHES, str(source)]


def _ewfverify(source: Path, target: Path) -> list[str]:
    del target
    return ["ewfverify", "-q", "-d", _PEER_HASHES, str(source)]


_PAIRS: Final = (
    Pair("write E01, fast", _capture, _acquire, is_writing=True),
    Pair("verify E01", _verify, _ewfverify, is_writing=False),
)


def _compare(pair: Pair, source: Path, folder: Path, runs: int) -> None:
    medians: dict[str, tuple[float, float, int]] = {}
    found: dict[str, list[tuple[float, float, int]]] = {"imprint": [], "libewf": []}
    for _ in range(runs):
        for name, command in (("imprint", pair.ours), ("libewf", pair.theirs)):
            target = folder / f"{name}.E01"
            wall, cpu = _run(command(source, target))
            made = list(folder.glob(f"{name}.E[0-9][0-9]")) if pair.is_writing else []
            found[name].append((wall, cpu, sum(file.stat().st_size for file in made)))
            for file in made:
                file.unlink()
    for name, samples in found.items():
        wall, cpu, stored = (statistics.median(column) for column in zip(*samples, strict=True))
        medians[name] = (wall, cpu, int(stored))
        print(f"{pair.name}: {name}: {wall:.2f} s, {cpu:.2f} s of processor, {stored:.0f} bytes")
    ours, theirs = medians["imprint"], medians["libewf"]
    size = f", {ours[2] / theirs[2]:.3f} of its size" if theirs[2] else ""
    print(f"{pair.name}: {theirs[0] / ours[0]:.2f} times as fast as libewf{size}")


def _run(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds."""
    measured = run_measured(command, os.sync)
    return measured.wall_s, measured.cpu_s


if __name__ == "__main__":
    main()
