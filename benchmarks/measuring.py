"""One run of a program: its time, its processors' time, its memory and its I/O."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_SAMPLE_S: Final = 0.05
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class FailedError(Exception):
    """A program ended with an error; the text says which."""


class Run(NamedTuple):
    """What a program took, with all programs that it started.

    Attributes:
        wall_s: until the result was durable.
        cpu_s: of all threads, user and system.
        peak: memory of the largest process at its largest, in bytes.
        tree_peak: of all processes together, looked at 20 times a second; 0 if not asked for.
        read: bytes that were read by calls, from caches or not; 0 if not asked for.
        written: bytes that were written by calls, likewise.
        output: what it printed, if that was asked for.
    """

    wall_s: float
    cpu_s: float
    peak: int
    tree_peak: int
    read: int
    written: int
    output: bytes


def run_measured(
    command: list[str],
    settle: Callable[[], None],
    *,
    watch: bool = False,
    keep: bool = False,
) -> Run:
    """Run a program and wait until ``settle``, which is on the clock, has made its result durable.

    Args:
        command: to run.
        settle: flushes what was written.
        watch: look at the memory of all its processes, and at what they read and write.
        keep: what it prints, instead of throwing it away.

    Raises:
        FailedError: if it cannot be started, or ends with an error.
    """
    os.sync()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        redirect = [
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1)
            if keep
            else (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
        ]
        start = time.perf_counter()
        try:
            child = os.posix_spawnp(command[0], command, os.environ, file_actions=redirect)
        except OSError as failure:
            raise FailedError(f"{command[0]}: {failure.strerror}") from failure
        with _Watch(child, active=watch) as watched:
            # Not reaped yet: what is known of it is still there.
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            read, written = _io_of(child) if watch else (0, 0)
            _, status, usage = os.wait4(child, 0)
        settle()
        wall_s = time.perf_counter() - start
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            if lines and lines[0].startswith("Traceback"):
                lines = lines[-1:]
            raise FailedError(lines[0] if lines else f"exit code {code}")
        output.seek(0)
        return Run(
            wall_s,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * 1024,
            watched.peak,
            read,
            written,
            output.read(),
        )


def must_succeed(*command: str) -> None:
    """Run what is not measured.

    Raises:
        FailedError: if it ends with an error.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise FailedError(f"{command[0]}: {lines[-1] if lines else done.returncode}")


class _Watch:
    """Adds up the memory of a process and of those that it started, again and again."""

    def __init__(self, root: int, *, active: bool) -> None:
        self._root = root
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True) if active else None
        self.peak = 0

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_SAMPLE_S):
            self.peak = max(self.peak, sum(map(_resident, _tree(self._root))))


def _tree(root: int) -> list[int]:
    """A process and all its descendants; those that end meanwhile may be missing."""
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_bytes().split())
    return found


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _io_of(process: int) -> tuple[int, int]:
    """What a process and the children that it waited for have read and written by calls."""
    try:
        lines = Path(f"/proc/{process}/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    facts = dict(line.split(": ") for line in lines)
    return int(facts["rchar"]), int(facts["wchar"])
