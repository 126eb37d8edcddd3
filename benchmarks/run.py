"""imprint beside qemu-img and cp: the same work, in turns, on the same disk.

    .venv/bin/python benchmarks/run.py [--size 2G] [--runs 5] [--only NAME] [--dir DIR]
                                       [--markdown | --json]

README.md says what is measured and how. The exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from imprint.core.units import format_size, parse_size

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import CASES, Case, Tool, format_of, peer_format
from benchmarks.inputs import Inputs
from benchmarks.measuring import FailedError, run_measured

if TYPE_CHECKING:
    from collections.abc import Callable


class Sample(NamedTuple):
    """One run: wall and processor time in seconds, peak memory and output in bytes."""

    wall_s: float
    cpu_s: float
    memory: int
    stored: int


class Supplying(Protocol):
    """Has the files that cases need."""

    def get(self, name: str) -> Path:
        """The path of an input."""


@dataclass
class Result:
    """All runs of a case, by tool; failures by tool."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def measure_case(
    case: Case,
    inputs: Supplying,
    folder: Path,
    runs: int,
    *,
    verify: Callable[[Case, Tool, dict[str, Path]], None],
) -> Result:
    """Run all tools of a case in turns.

    The first turn is not counted: it fills caches, and in a virtual machine it touches memory
    that the host has yet to provide. Its outputs are verified instead: a fast tool that writes
    something else does not count.
    """
    files = {name: inputs.get(name) for name in case.needs}
    files["out"] = folder / "out"
    for path in files.values():
        warm(path)
    tools = [case.ours, *case.peers]
    result = Result(case, {tool.name: [] for tool in tools})
    for turn in range(runs + 1):
        # Who begins changes, so that nobody always follows the same other.
        first = turn % len(tools)
        for tool in tools[first:] + tools[:first]:
            if tool.name in result.failures:
                continue
            try:
                sample = _measure(tool.resolve(files), files["out"] if case.output else None)
                if turn == 0:
                    verify(case, tool, files)
                else:
                    result.samples[tool.name].append(sample)
            except FailedError as failure:
                result.failures[tool.name] = str(failure)
            files["out"].unlink(missing_ok=True)
    return result


def _measure(command: list[str], output: Path | None) -> Sample:
    """One run, until the result is durable."""

    def settle() -> None:
        if output is not None and output.exists():
            _fsync(output)
            _fsync(output.parent)

    run = run_measured(command, settle)
    stored = output.stat().st_blocks * 512 if output is not None else 0
    return Sample(run.wall_s, run.cpu_s, run.peak, stored)


def _verify(case: Case, _: Tool, files: dict[str, Path]) -> None:
    """The output holds the same disk as the source."""
    if case.output is None:
        return
    source = files[case.needs[0]]
    formats = ("-f", peer_format(format_of(case.needs[0])), "-F", peer_format(case.output))
    done = subprocess.run(
        ["qemu-img", "compare", *formats, str(source), str(files["out"])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FailedError(f"wrote another disk: {done.stdout.strip() or done.stderr.strip()}")


def warm(path: Path) -> None:
    """Read a file once, so that nobody's first read is slower than the others'."""
    if path.exists():
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tell(text: str) -> None:
    """Say what is going on; standard output belongs to the table."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Suite:
    """Cases that are measured together.

    Attributes:
        about: in a line.
        cases: what is compared.
        supply: makes inputs, of a size, in a folder.
        verify: raises :class:`FailedError` if a tool has written something wrong.
        default_size: of the disk.
        peers: commands that tell the versions of the peers.
    """

    about: str
    cases: tuple[Case, ...]
    supply: Callable[[Path, int, Callable[[str], None]], Supplying]
    verify: Callable[[Case, Tool, dict[str, Path]], None]
    default_size: str
    peers: tuple[tuple[str, ...], ...]


def main(suite: Suite) -> int:
    """Measure, and print what came of it."""
    args = _parse(suite)
    with ExitStack() as stack:
        folder = args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        cases = [case for case in suite.cases if not args.only or case.name in args.only]
        wanted = (len({name for case in cases for name in case.needs}) + 1) * args.size
        free = shutil.disk_usage(folder).free
        if free < wanted:
            tell(f"expected {format_size(wanted)} free in {folder}, found {format_size(free)}")
            return 2
        inputs = suite.supply(folder, args.size, tell)
        results = []
        for case in cases:
            tell(f"measuring {case.name}")
            results.append(measure_case(case, inputs, folder, args.runs, verify=suite.verify))
    # Not at the top: a parent's memory counts as its children's.
    from benchmarks import table

    rows = table.rows(results)
    context = table.context(args.size, args.runs, suite.peers)
    if args.json:
        print(json.dumps({"context": context, "rows": [row.as_dict() for row in rows]}, indent=2))
    else:
        print(table.render(rows, context, markdown=args.markdown))
    return 0 if all(row.holds for row in rows) else 1


def _parse(suite: Suite) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=suite.about)
    parser.add_argument(
        "--size", type=parse_size, default=parse_size(suite.default_size), help="of the disk"
    )
    parser.add_argument("--runs", type=int, default=5, help="of each tool that count")
    parser.add_argument(
        "--only",
        action="append",
        choices=[case.name for case in suite.cases],
        help="only this case; repeatable",
    )
    parser.add_argument(
        "--dir", type=Path, help="where files go and inputs stay, for the next time"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true")
    shape.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs: expected at least 1")
    return args


if __name__ == "__main__":
    sys.exit(
        main(
            Suite(
                about=__doc__.partition("\n")[0],
                cases=CASES,
                supply=Inputs,
                verify=_verify,
                default_size="2G",
                peers=(("qemu-img", "--version"), ("cp", "--version")),
            )
        )
    )
