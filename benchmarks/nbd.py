"""imprint serve beside qemu-nbd: the same images to the same client, in turns.

    .venv/bin/python benchmarks/nbd.py [--size 1G] [--runs 5] [--reads 20000] [--dir DIR] [--json]

Sequential: ``nbdcopy`` to nowhere, by four connections. Random: reads of 4 KiB, one and sixteen at
a time, by libnbd's Python bindings (Debian: python3-libnbd). Times are those of the client, and
the processors' of the server; the images are in the page cache. The bar: rates of
sequential reading of at least 0.8 of the peer's. The exit code is 1 if it is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import IMPRINT
from benchmarks.measuring import must_succeed
from imprint.core.units import MIB, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

BAR: Final = 0.8
SYSTEM_PYTHON: Final = "/usr/bin/python3"
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_START_S: Final = 30.0

_RANDOM: Final = """
import nbd, random, sys, time
address, depth, count, size = sys.argv[1], *map(int, sys.argv[2:])
handle, dice, buffer = nbd.NBD(), random.Random(1), nbd.Buffer(4096)
handle.connect_uri(address)
done = sent = 0
def ended(error):
    global done
    done += 1
    return 1
began = time.monotonic()
while done < count:
    while sent - done < depth and sent < count:
        handle.aio_pread(buffer, dice.randrange(size // 4096) * 4096, completion=ended)
        sent += 1
    handle.poll(-1)
print(time.monotonic() - began)
"""


class Run(NamedTuple):
    """One run of a client.

    Attributes:
        wall_s: of the client.
        cpu_s: of the server meanwhile.
    """

    wall_s: float
    cpu_s: float


class Measured(NamedTuple):
    """What both servers took for one kind of work.

    Attributes:
        name: of the work.
        ours: runs of imprint.
        theirs: of qemu-nbd, as many.
        amount: what is done in a run: bytes, or reads.
    """

    name: str
    ours: list[Run]
    theirs: list[Run]
    amount: int

    @property
    def ratio(self) -> float:
        """Rate of imprint in parts of that of its peer; medians."""
        return _median(self.theirs) / _median(self.ours)


def main() -> int:
    """Measure; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=parse_size("1G"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--reads", type=int, default=20000)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        images = _make(folder, args.size)
        found = list(_all(folder, images, args))
    for item in found:
        if args.json:
            print(json.dumps({**item._asdict(), "ratio": item.ratio}))
        else:
            print(_line(item))
    return int(any("sequential" in item.name and item.ratio < BAR for item in found))


def _make(folder: Path, size: int) -> dict[str, Path]:
    """A disk of which every fourth part is a hole, raw and as QCOW2."""
    raw, qcow2 = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as file:
        for start in range(0, size, 64 * MIB):
            file.seek(start)
            for _ in range(48):
                file.write(os.urandom(MIB))
        file.truncate(size)
    must_succeed("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2))
    return {"raw": raw, "qcow2": qcow2}


def _all(folder: Path, images: dict[str, Path], args: argparse.Namespace) -> Iterator[Measured]:
    for kind, image in images.items():
        work = {f"{kind} sequential": (["nbdcopy", "{address}", "null:"], args.size)}
        for depth in (1, 16):
            numbers = [str(depth), str(args.reads), str(args.size)]
            command = [SYSTEM_PYTHON, "-c", _RANDOM, "{address}", *numbers]
            work[f"{kind} random, {depth} at a time"] = command, args.reads
        for name, (command, amount) in work.items():
            ours: list[Run] = []
            theirs: list[Run] = []
            for turn in range(args.runs + 1):
                for mine in (True, False) if turn % 2 else (False, True):
                    with _server(folder, image, kind, mine=mine) as (process, address):
                        run = _run(
                            [word.replace("{address}", address) for word in command], process
                        )
                    if turn:  # the first turn fills caches
                        (ours if mine else theirs).append(run)
            yield Measured(name, ours, theirs, amount)


@contextlib.contextmanager
def _server(
    folder: Path, image: Path, kind: str, *, mine: bool
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    path = folder / "socket"
    if mine:
        command = [IMPRINT, "serve", str(image), "--unix", str(path)]
    else:
        command = ["qemu-nbd", "-r", "-t", "-e", "16", "-f", kind, "-k", str(path), str(image)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + _START_S
            while not path.exists():
                assert time.monotonic() < until, f"{command[0]} does not listen"
                time.sleep(0.01)
            yield process, f"nbd+unix:///?socket={path}"
        finally:
            process.terminate()
            process.wait()
            path.unlink(missing_ok=True)


def _run(command: list[str], server: subprocess.Popen[bytes]) -> Run:
    before, began = _cpu_s(server.pid), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    wall_s = time.perf_counter() - began
    if done.stdout:  # the client's own clock, without its start
        wall_s = float(done.stdout)
    return Run(wall_s, _cpu_s(server.pid) - before)


def _cpu_s(process: int) -> float:
    """Source: proc(5), fields 14 and 15 of ``stat``."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _median(runs: list[Run]) -> float:
    return statistics.median(run.wall_s for run in runs)


def _line(item: Measured) -> str:
    sides = []
    for runs in (item.ours, item.theirs):
        rate = item.amount / _median(runs)
        text = f"{format_size(int(rate))}/s" if "sequential" in item.name else f"{rate:.0f}/s"
        sides.append(f"{text:>14} {statistics.median(run.cpu_s for run in runs):6.2f} s CPU")
    return f"{item.name:24} {sides[0]}   qemu-nbd {sides[1]}   ratio {item.ratio:.2f}"


if __name__ == "__main__":
    sys.exit(main())
