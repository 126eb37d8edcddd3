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
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from imprint.core.units import format_size, parse_size

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import CASES, Case, format_of, peer_format
from benchmarks.inputs import Inputs

ROOM_FACTOR: Final = 11
"""Disk space that all cases need at once, in sizes of the disk."""


class Sample(NamedTuple):
    """One run: wall and processor time in seconds, peak memory and output in bytes."""

    wall_s: float
    cpu_s: float
    memory: int
    stored: int


class FailedError(Exception):
    """A program ended with an error; the text says which."""


@dataclass
class Result:
    """All runs of a case, by tool; failures by tool."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def measure_case(case: Case, inputs: Inputs, folder: Path, runs: int) -> Result:
    """Run all tools of a case in turns.

    The first turn is not counted: it fills caches, and in a virtual machine it touches memory
    that the host has yet to provide. Its outputs are compared with the source instead.
    """
    files = {name: inputs.get(name) for name in case.needs}
    files["out"] = folder / "out"
    for path in files.values():
        _warm(path)
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
                    _verify(case, files)
                else:
                    result.samples[tool.name].append(sample)
            except FailedError as failure:
                result.failures[tool.name] = str(failure)
            files["out"].unlink(missing_ok=True)
    return result


def _measure(command: list[str], output: Path | None) -> Sample:
    """One run, until the result is durable."""
    os.sync()
    with tempfile.TemporaryFile() as errors:
        redirect = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
        ]
        start = time.perf_counter()
        try:
            child = os.posix_spawnp(command[0], command, os.environ, file_actions=redirect)
        except OSError as failure:
            raise FailedError(f"{command[0]}: {failure.strerror}") from failure
        _, status, usage = os.wait4(child, 0)
        if output is not None and output.exists():
            _fsync(output)
            _fsync(output.parent)
        wall_s = time.perf_counter() - start
        errors.seek(0)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise FailedError(lines[0] if lines else f"exit code {code}")
    stored = output.stat().st_blocks * 512 if output is not None else 0
    return Sample(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, stored)


def _verify(case: Case, files: dict[str, Path]) -> None:
    """A fast tool that writes something else does not count."""
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


def _warm(path: Path) -> None:
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


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, and print what came of it."""
    args = _parse()
    with ExitStack() as stack:
        folder = args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < ROOM_FACTOR * args.size:
            wanted = format_size(ROOM_FACTOR * args.size)
            _tell(f"run.py: expected {wanted} free in {folder}, found {format_size(free)}")
            return 2
        inputs = Inputs(folder, args.size, _tell)
        results = []
        for case in CASES:
            if not args.only or case.name in args.only:
                _tell(f"measuring {case.name}")
                results.append(measure_case(case, inputs, folder, args.runs))
    # Not at the top: a parent's memory counts as its children's.
    from benchmarks import table

    rows = table.rows(results)
    context = table.context(args.size, args.runs)
    if args.json:
        print(json.dumps({"context": context, "rows": [row.as_dict() for row in rows]}, indent=2))
    else:
        print(table.render(rows, context, markdown=args.markdown))
    return 0 if all(row.holds for row in rows) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("2G"), help="of the disk")
    parser.add_argument("--runs", type=int, default=5, help="of each tool that count")
    parser.add_argument(
        "--only",
        action="append",
        choices=[case.name for case in CASES],
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
    sys.exit(main())
