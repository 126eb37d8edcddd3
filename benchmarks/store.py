"""imprint's repository beside those of others: the same disks, in turns, on the same file system.

    .venv/bin/python benchmarks/store.py [--size 4G] [--runs 3] [--only KIND] [--tool NAME]
                                         [--dir DIR] [--series DIR] [--markdown | --json]

README.md says what is measured and how. Needs root, to make the disks. The exit code is 1 if a
bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aged import KINDS as FILE_SYSTEMS
from benchmarks.keepers import IDEAL, KEEPERS, RESTORE_B, STEPS, STORE_B, Keeper, Step, Work
from benchmarks.measuring import FailedError, must_succeed, run_measured
from benchmarks.ranges import data_of, differing, load, make_ranges, merge, same
from benchmarks.results import Measured, Results
from benchmarks.run import tell, warm
from benchmarks.series import KINDS, NAMES, attached
from imprint.core.units import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE: Final = Path(__file__).resolve().parent
RANDOM_READS: Final = 2000
SEQUENTIAL_MIB: Final = 1024
_ROOM_FOR_STORES: Final = 6
"""All repositories, a restored disk and one to restore over, in sizes of the disk."""


class Comparison:
    """All turns of all keepers with one series.

    Args:
        kind: of the series.
        series: folder with its disks.
        folder: for everything else; emptied in the end.
        keepers: who is compared.
    """

    def __init__(self, kind: str, series: Path, folder: Path, keepers: Sequence[Keeper]) -> None:
        self._kind = kind
        self._series = series
        self._folder = folder
        self._keepers = keepers
        self._disks = {name: series / f"{name}.raw" for name in NAMES}
        self._ranges = {name: folder / f"{name}.ranges" for name in NAMES}
        self._places: dict[str, str] = {}
        self._used = {}
        for name, disk in self._disks.items():
            make_ranges(disk, self._ranges[name])
            self._used[name] = load(self._ranges[name])
        self.results = Results(
            kind,
            [keeper.name for keeper in keepers],
            size=self._disks["A"].stat().st_size,
            difference=differing(self._disks["A"], self._disks["B"], self._used["B"]),
        )

    def run(self, turns: int) -> Results:
        """Measure; the first turn is not counted, but what it restores is verified."""
        for turn in range(turns + 1):
            with ExitStack() as stack:
                self._begin(stack)
                for number, step in enumerate(STEPS):
                    warm(self._disks[step.disk])
                    for keeper in self._in_turn(turn + number):
                        self._measure(keeper, step, turn)
                for keeper in self._in_turn(turn):
                    with self._attempt(keeper):
                        self._read(keeper, turn)
        return self.results

    def _in_turn(self, number: int) -> list[Keeper]:
        """Who begins changes, so that nobody always follows the same other."""
        first = number % len(self._keepers)
        order = [*self._keepers[first:], *self._keepers[:first]]
        return [keeper for keeper in order if keeper.name not in self.results.failures]

    def _begin(self, stack: ExitStack) -> None:
        """Empty repositories; devices for those that read no partitions of files."""
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder)))
        self._places = {"base": str(base), "series": str(self._series), "kind": self._kind}
        if any("{volume}" in word for keeper in self._keepers for word in keeper.store):
            for name, disk in self._disks.items():
                self._places[f"volume {name}"] = stack.enter_context(attached(disk))
        for keeper in self._in_turn(0):
            for name in ("repo", "cache", "mount", "scratch"):
                (base / keeper.name / name).mkdir(parents=True)
            with self._attempt(keeper):
                for command in keeper.make:
                    must_succeed(*self._resolve(keeper, command, STEPS[0]))

    @contextlib.contextmanager
    def _attempt(self, keeper: Keeper) -> Iterator[None]:
        try:
            yield
        except FailedError as failure:
            self.results.failures[keeper.name] = str(failure)
            tell(f"{keeper.name}: {failure}")

    def _measure(self, keeper: Keeper, step: Step, turn: int) -> None:
        command = keeper.command(step.work)
        if command is not None:
            tell(f"{self._kind}: turn {turn}: {keeper.name}: {step.name}")
            with self._attempt(keeper):
                self._run(keeper, step, command, turn)

    def _run(self, keeper: Keeper, step: Step, command: tuple[str, ...], turn: int) -> None:
        repo = self._path(keeper, "repo")
        out = self._path(keeper, "scratch") / f"{step.disk}.raw"
        if step.work is Work.DELTA:
            must_succeed("cp", "--sparse=always", str(self._disks["A"]), str(out))
            touched = merge([*data_of(out), *self._used[step.disk]])
            self.results.target = sum(length for _, length in touched)
        watched = out.parent if step.work is not Work.STORE else repo
        words = self._resolve(keeper, command, step)
        run = run_measured(words, lambda: _flush(watched), watch=True)
        if turn == 0 and step.work is not Work.STORE:
            self._verify(keeper, step, out)
        out.unlink(missing_ok=True)
        if turn > 0:
            peak = max(run.peak, run.tree_peak)
            measured = Measured(run.wall_s, run.cpu_s, peak, run.read, run.written, _size_of(repo))
            self.results.add(keeper.name, step.name, measured)

    def _read(self, keeper: Keeper, turn: int) -> None:
        """Random and sequential reads from the repository, without restoring."""
        if keeper is IDEAL:
            command = [sys.executable, str(HERE / "ideal.py"), "decode"]
            words = self._resolve(keeper, ("{repo}", "{snapshot}"), STORE_B)
            self._note(keeper, "sequential", [*command, *words], turn)
        if keeper.address is None:
            return
        with self._mounted(keeper):
            address = self._resolve(keeper, (keeper.address, "{disk}", "{ranges}"), RESTORE_B)
            for kind, amount in (("random", RANDOM_READS), ("sequential", SEQUENTIAL_MIB)):
                tell(f"{self._kind}: turn {turn}: {keeper.name}: {kind} reads")
                program = [sys.executable, str(HERE / "reading.py"), kind]
                self._note(keeper, kind, [*program, *address, str(amount)], turn)

    def _note(self, keeper: Keeper, kind: str, command: list[str], turn: int) -> None:
        run = run_measured(command, lambda: None, keep=True)
        found = json.loads(run.output)
        if not found.get("same", True):
            raise FailedError(f"{kind} reads gave other bytes than were stored")
        if turn > 0:
            amount = found["reads"] if kind == "random" else found["bytes"]
            self.results.add_rate(keeper.name, kind, amount / found["seconds"])

    @contextlib.contextmanager
    def _mounted(self, keeper: Keeper) -> Iterator[None]:
        if keeper.mount is None or keeper.unmount is None:
            yield
            return
        must_succeed(*self._resolve(keeper, keeper.mount, RESTORE_B))
        try:
            yield
        finally:
            must_succeed(*self._resolve(keeper, keeper.unmount, RESTORE_B))

    def _verify(self, keeper: Keeper, step: Step, out: Path) -> None:
        """What is in use is the same; its own checker is content with the file system."""
        disk = self._disks[step.disk]
        ranges = self._used[step.disk] if keeper.used_only else [(0, disk.stat().st_size)]
        if not same(disk, out, ranges):
            raise FailedError(f"{step.name}: wrote another disk")
        if keeper.used_only and self._kind in FILE_SYSTEMS:
            with attached(out) as device:
                must_succeed(*FILE_SYSTEMS[self._kind].check, device)

    def _path(self, keeper: Keeper, name: str) -> Path:
        return Path(self._places["base"]) / keeper.name / name

    def _resolve(self, keeper: Keeper, command: Sequence[str], step: Step) -> list[str]:
        scratch = self._path(keeper, "scratch")
        places = {
            **{name: str(self._path(keeper, name)) for name in ("repo", "cache", "mount")},
            "series": str(self._series),
            "kind": self._kind,
            "disk": str(self._disks[step.disk]),
            "file": f"{step.disk}.raw",
            "snapshot": step.snapshot,
            "image": step.image,
            "ranges": str(self._ranges[step.disk]),
            "scratch": str(scratch),
            "out": str(scratch / f"{step.disk}.raw"),
            "volume": self._places.get(f"volume {step.disk}", ""),
        }
        return [word.format(**places) for word in command]


def _flush(folder: Path) -> None:
    """Wait for what was written below a folder, whether its writer did or not."""
    must_succeed("sync", "--file-system", str(folder))


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _supply(kind: str, folder: Path, size: int) -> Path:
    """The folder of a series, which is made now if it is not there."""
    series = folder / kind
    tell(f"making the {kind} disks, where they are missing")
    # A program of its own: a process that has made gigabytes is a bad parent.
    words = [sys.executable, str(HERE / "series.py"), kind, str(series), str(size)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return series


def _disks_of(kinds: Sequence[str], series: Path | None) -> int:
    """How many disks there will be: the opaque ones are made of the others."""
    made = {*kinds, "ext4"} if "opaque" in kinds else set(kinds)
    return len(NAMES) * len(made) if series is None else 0


def main() -> int:
    """Measure, and print what came of it."""
    args = _parse()
    keepers = [keeper for keeper in KEEPERS if not args.tool or keeper.name in args.tool]
    kinds = args.only or list(KINDS)
    with ExitStack() as stack:
        folder = args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        wanted = (_disks_of(kinds, args.series) + _ROOM_FOR_STORES) * args.size
        free = shutil.disk_usage(folder).free
        if free < wanted:
            tell(f"expected {format_size(wanted)} free in {folder}, found {format_size(free)}")
            return 2
        results = []
        for kind in kinds:
            series = args.series or _supply(kind, folder.resolve(), args.size)
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))).resolve()
            some = [keeper for keeper in keepers if keeper.name != "partclone" or kind != "opaque"]
            results.append(Comparison(kind, series.resolve(), work, some).run(args.runs))
    # Not at the top: a parent's memory counts as its children's.
    from benchmarks import store_table, table

    rows = [row for result in results for row in store_table.rows(result)]
    versions = list(dict.fromkeys(keeper.version for keeper in keepers if keeper.version))
    facts = table.context(args.size, args.runs, versions)
    if args.json:
        print(json.dumps({"context": facts, "rows": [row.as_dict() for row in rows]}, indent=2))
    else:
        print(store_table.render(rows, results, facts, markdown=args.markdown))
    return 0 if all(row.holds is not False for row in rows) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("4G"), help="of the disks")
    parser.add_argument("--runs", type=int, default=3, help="of each tool that count")
    parser.add_argument("--only", action="append", choices=KINDS, help="disks; repeatable")
    names = [keeper.name for keeper in KEEPERS]
    parser.add_argument("--tool", action="append", choices=names, help="repeatable")
    parser.add_argument("--dir", type=Path, help="where files go and disks stay")
    parser.add_argument("--series", type=Path, help="a folder with A.raw, B.raw and C.raw")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true")
    shape.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs: expected at least 1")
    if args.series and len(args.only or ()) != 1:
        parser.error("--series: expected --only with the kind of its disks")
    return args


if __name__ == "__main__":
    sys.exit(main())
