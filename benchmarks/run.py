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

ROOT: Final = Path(__file__).resolve().parent.parent
IMPRINT: Final = str(ROOT / "imprint")
CONTENT: Final = ROOT / "benchmarks" / "content.py"

ROOM_FACTOR: Final = 7
"""Disk space that all cases need at once, in sizes of the disk."""

SAME_SPEED: Final = 1.0
COMPRESSED_WRITING: Final = 1 / 1.8
START_UP_S: Final = 0.150


@dataclass(frozen=True)
class Tool:
    """One way to do a case's work.

    Attributes:
        name: of the program.
        command: to run. ``{disk}``, ``{out}`` and the like stand for files.
    """

    name: str
    command: tuple[str, ...]

    def resolve(self, files: dict[str, Path]) -> list[str]:
        """The command with its files put in."""
        return [
            word.format(**{name: str(path) for name, path in files.items()})
            for word in self.command
        ]


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        name: for ``--only``.
        ours: what the user of imprint types.
        peers: others that do the same.
        needs: inputs, by their name in :class:`Inputs`.
        output: format of the file that is written, or ``None``.
        bar: imprint's time divided by the peer's must not be above it; ``None``: no bar.
        seconds_max: bar for imprint's time alone.
    """

    name: str
    ours: Tool
    peers: tuple[Tool, ...]
    needs: tuple[str, ...]
    output: str | None = None
    bar: float | None = SAME_SPEED
    seconds_max: float | None = None


def imprint(*words: str) -> Tool:
    """The program as its user runs it."""
    return Tool("imprint", (IMPRINT, *words))


def qemu_img(*words: str) -> Tool:
    """qemu-img."""
    return Tool("qemu-img", ("qemu-img", *words))


def conversion(
    name: str,
    source: tuple[str, str],
    target_format: str,
    *,
    ours: tuple[str, ...] = (),
    theirs: tuple[str, ...] = (),
    others: tuple[Tool, ...] = (),
    bar: float = SAME_SPEED,
) -> Case:
    """A case of ``convert``; ``source`` is an input's name and its format.

    qemu-img is told ``-t writeback``: by default it ignores flushes of its target and would
    leave the result in memory only, where imprint waits for the disk.
    """
    input_name, source_format = source
    files = (f"{{{input_name}}}", "{out}")
    quiet = ("--progress", "none")
    return Case(
        name,
        imprint("convert", *quiet, "-f", source_format, "-O", target_format, *ours, *files),
        (
            qemu_img(
                *("convert", "-t", "writeback", "-f", source_format, "-O", target_format),
                *theirs,
                *files,
            ),
            *others,
        ),
        (input_name,),
        target_format,
        bar,
    )


CASES: Final = (
    conversion(
        "raw-raw",
        ("disk", "raw"),
        "raw",
        others=(Tool("cp", ("cp", "--sparse=always", "--reflink=never", "{disk}", "{out}")),),
    ),
    conversion("raw-qcow2", ("disk", "raw"), "qcow2"),
    conversion("qcow2-raw", ("plain", "qcow2"), "raw"),
    conversion(
        "raw-qcow2-zlib",
        ("disk", "raw"),
        "qcow2",
        ours=("-o", "compression=zlib"),
        theirs=("-c", "-o", "compression_type=zlib"),
        bar=COMPRESSED_WRITING,
    ),
    conversion(
        "raw-qcow2-zstd",
        ("disk", "raw"),
        "qcow2",
        ours=("-o", "compression=zstd"),
        theirs=("-c", "-o", "compression_type=zstd"),
        bar=COMPRESSED_WRITING,
    ),
    conversion("qcow2-zstd-raw", ("zstd", "qcow2"), "raw"),
    Case(
        "map-fragmented",
        imprint("map", "--json", "{fragmented}"),
        (qemu_img("map", "--output=json", "{fragmented}"),),
        ("fragmented",),
    ),
    Case(
        "compare-equal",
        imprint("compare", "--progress", "none", "{disk}", "{plain}"),
        (qemu_img("compare", "-f", "raw", "-F", "qcow2", "{disk}", "{plain}"),),
        ("disk", "plain"),
    ),
    Case(
        "info",
        imprint("info", "{plain}"),
        (qemu_img("info", "{plain}"),),
        ("plain",),
        bar=None,
        seconds_max=START_UP_S,
    ),
)


class Sample(NamedTuple):
    """One run: wall and processor time in seconds, peak memory and output in bytes."""

    wall_s: float
    cpu_s: float
    memory: int
    stored: int


class FailedError(Exception):
    """A program ended with an error; the text says which."""


class Inputs:
    """The disks to read, made when a case first needs them; qemu-img writes the images.

    Not imprint: that a reader likes its own writer's layout best would prove nothing.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size

    def get(self, name: str) -> Path:
        """The path of an input; made now if it is not there."""
        path = self._folder / f"{name}-{self._size}"
        if not path.exists():
            partial = path.with_suffix(".partial")
            _tell(f"making {name}")
            getattr(self, f"_make_{name}")(partial)
            partial.rename(path)
        return path

    def _make_disk(self, path: Path) -> None:
        _run([sys.executable, str(CONTENT), "disk", str(path), str(self._size)])

    def _make_plain(self, path: Path) -> None:
        _run(["qemu-img", "convert", "-O", "qcow2", str(self.get("disk")), str(path)])

    def _make_zstd(self, path: Path) -> None:
        options = ("-c", "-O", "qcow2", "-o", "compression_type=zstd")
        _run(["qemu-img", "convert", *options, str(self.get("disk")), str(path)])

    def _make_fragmented(self, path: Path) -> None:
        """Every second cluster of a disk of twice the size."""
        raw = path.with_suffix(".raw")
        _run([sys.executable, str(CONTENT), "alternating", str(raw), str(2 * self._size)])
        _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)])
        raw.unlink()


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
    source_format = "raw" if case.needs[0] == "disk" else "qcow2"
    formats = ("-f", source_format, "-F", case.output)
    done = subprocess.run(
        ["qemu-img", "compare", *formats, str(source), str(files["out"])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FailedError(f"wrote another disk: {done.stdout.strip() or done.stderr.strip()}")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


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
        inputs = Inputs(folder, args.size)
        results = []
        for case in CASES:
            if not args.only or case.name in args.only:
                _tell(f"measuring {case.name}")
                results.append(measure_case(case, inputs, folder, args.runs))
    # Not at the top: a parent's memory counts as its children's.
    sys.path.insert(0, str(ROOT))
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
