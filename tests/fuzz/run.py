"""Give one parser wrong bytes for minutes: ``python tests/fuzz/run.py TARGET --minutes 10``.

With Atheris (``pip install atheris``; Linux, CPython 3.11 to 3.13) inputs grow towards code
that was not reached yet; without it they are random. An input that breaks the rule is written
to ``--failures`` as a ``.hex`` file: mended, it belongs into ``tests/fuzz/corpus/TARGET``.
What was being tried when the process was killed is in ``TARGET.running`` there; ``--program`` makes
it again.

Ends with 1 if there was one.
"""

# ruff: noqa: T201 - a script that prints what it found

from __future__ import annotations

import argparse
import faulthandler
import importlib
import importlib.util
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

# imprint is imported below, once it can be instrumented.
if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.fuzzing.target import FailureError, Target

CORPUS: Final = Path(__file__).resolve().parent / "corpus"
FAILURES: Final = Path(tempfile.gettempdir(), "imprint-fuzz")
FAILURES_MAX: Final = 20
HARD_LIMIT_S: Final = 60
"""After this, one input hangs where no signal reaches it: in C. The process is ended."""


@dataclass
class Tally:
    """What a run has seen.

    Attributes:
        count: inputs.
        slowest_s: the longest that one took, in CPU time.
        slowest: that input.
        failures: texts of the different ones.
    """

    count: int = 0
    slowest_s: float = 0.0
    slowest: bytes = b""
    failures: dict[str, str] = field(default_factory=dict)


class Run:
    """Tries inputs of one target, and keeps what fails."""

    def __init__(self, target: Target, folder: Path, limit_s: float) -> None:
        from imprint.testing.fuzzing.mutate import Mutator
        from imprint.testing.fuzzing.sparse import load_folder

        self._target = target
        self._folder = folder
        self._began = time.monotonic()
        self._limit_s = limit_s
        self.tally = Tally()
        folder.mkdir(parents=True, exist_ok=True)
        self._running = folder / f"{target.name}.running"
        self._running_file = self._running.open("wb", buffering=0)
        self.mutator = Mutator(target, list(load_folder(CORPUS / target.name).values()))

    @property
    def is_over(self) -> bool:
        """Whether the time is up, or enough was found."""
        is_late = time.monotonic() - self._began > self._limit_s
        return is_late or len(self.tally.failures) >= FAILURES_MAX

    def try_program(self, program: bytes) -> None:
        """Make an input and try it."""
        from imprint.testing.fuzzing.target import FailureError, survive

        tally = self.tally
        os.pwrite(self._running_file.fileno(), bytes([len(program)]) + program, 0)
        content = self.mutator.make(program)
        tally.count += 1
        faulthandler.dump_traceback_later(HARD_LIMIT_S, exit=True)
        try:
            took_s = survive(self._target, content)
        except FailureError as failure:
            self._keep(failure, content)
            return
        finally:
            faulthandler.cancel_dump_traceback_later()
        if took_s > tally.slowest_s:
            tally.slowest_s, tally.slowest = took_s, content

    def _keep(self, failure: FailureError, content: bytes) -> None:
        """Write the first input of each kind of failure."""
        from imprint.testing.fuzzing.sparse import SUFFIX, dump

        cause = failure.__cause__ or failure
        frames = traceback.extract_tb(cause.__traceback__)
        last = frames[-1] if frames else None
        kind = (
            f"{type(cause).__name__} in {last.name if last else '?'}:{last.lineno if last else 0}"
        )
        if kind in self.tally.failures:
            return
        name = f"{self._target.name}-{zlib.crc32(content):08x}{SUFFIX}"
        self.tally.failures[kind] = name
        self._folder.joinpath(name).write_text(dump(content, kind), encoding="ascii")
        print(f"FAILURE {kind}: {self._folder / name}", flush=True)
        traceback.print_exception(failure, limit=-6, file=sys.stdout)
        sys.stdout.flush()

    def report(self) -> None:
        """Say how it went, in one line."""
        from imprint.testing.fuzzing.sparse import SUFFIX, dump

        self._running_file.close()
        self._running.unlink()
        tally = self.tally
        took_s = time.monotonic() - self._began
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{self._target.name}: {tally.count} inputs in {took_s / 60:.1f} min, "
            f"{tally.count / max(took_s, 0.001):.0f}/s, slowest {tally.slowest_s:.2f} s, "
            f"peak {peak_mib} MiB, {len(tally.failures)} failures",
            flush=True,
        )
        if tally.slowest_s > 1:
            path = self._folder / f"{self._target.name}-slowest{SUFFIX}"
            path.write_text(dump(tally.slowest, f"{tally.slowest_s:.2f} s"), encoding="ascii")
            print(f"the slowest input: {path}", flush=True)


def main() -> int:
    """Run one target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", help="its name; 'list' shows all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of random inputs")
    parser.add_argument(
        "--failures", type=Path, default=Path(tempfile.gettempdir(), "imprint-fuzz")
    )
    parser.add_argument("--program", type=Path, help="try one: TARGET.running of a killed run")
    parser.add_argument("--random", action="store_true", help="do not use Atheris")
    options = parser.parse_args()
    is_guided = options.program is None and not options.random
    if not is_guided or importlib.util.find_spec("atheris") is None:
        return _random(options)
    return _guided(options)


def _start(options: argparse.Namespace) -> Run | None:
    from imprint.testing.fuzzing.table import targets

    known = targets()
    if options.target not in known:
        print("\n".join(known))
        return None
    return Run(known[options.target], options.failures, options.minutes * 60)


def _random(options: argparse.Namespace) -> int:
    given = b"" if options.program is None else options.program.read_bytes()
    run = _start(options)  # begins a new file of that name
    if run is None:
        return 2
    if given:
        length, *program = given
        run.try_program(bytes(program[:length]))
        run.report()
        return 1 if run.tally.failures else 0
    randomness = random.Random(options.seed)
    while not run.is_over:
        run.try_program(run.mutator.random_program(randomness))
    run.report()
    return 1 if run.tally.failures else 0


def _guided(options: argparse.Namespace) -> int:
    """Atheris ends the process by itself, so that all is said before."""
    atheris = importlib.import_module("atheris")  # has no types

    # Where the changes are made counts nothing, and what is imported late would be missed.
    ours = [name for name in _modules() if name.startswith("imprint.testing")]
    with atheris.instrument_imports(include=["imprint"], exclude=ours):
        for name in _modules():
            if not name.startswith(("imprint.testing", "imprint.cli", "imprint.__main__")):
                importlib.import_module(name)
        run = _start(options)
    if run is None:
        return 2
    folder = Path(tempfile.mkdtemp(prefix="imprint-programs-"))
    randomness = random.Random(options.seed)
    for number in range(len(run.mutator.seeds)):
        folder.joinpath(f"seed-{number}").write_bytes(bytes([number, 0]))
    for number in range(64):
        folder.joinpath(f"random-{number}").write_bytes(run.mutator.random_program(randomness))

    def try_one(data: bytes) -> None:
        run.try_program(data)
        if run.is_over:
            run.report()
            shutil.rmtree(folder)
            os._exit(1 if run.tally.failures else 0)

    atheris.Setup(
        [
            *(sys.argv[0], str(folder), f"-max_len={run.mutator.length_max}", "-len_control=20"),
            *(f"-seed={options.seed + 1}", f"-artifact_prefix={options.failures}/"),
            # Our own limits come first: these count the machine's other work, and themselves.
            *(f"-timeout={2 * HARD_LIMIT_S}", "-rss_limit_mb=2048"),
        ],
        try_one,
    )
    atheris.Fuzz()
    return 0


def _modules() -> Iterator[str]:
    """All of imprint, without importing any."""
    spec = importlib.util.find_spec("imprint")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__")


if __name__ == "__main__":
    sys.exit(main())
