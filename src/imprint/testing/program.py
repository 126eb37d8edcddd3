"""The program as its users run it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TIMEOUT_S: Final = 60.0
"""How long a run may take; tests use small disks, so that longer means it hangs."""


@dataclass(frozen=True)
class Result:
    """How the program ended.

    Attributes:
        exit_code: of the process; negative: the signal that ended it.
        out: standard output.
        err: standard error.
    """

    exit_code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which has to be one JSON object and nothing else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        """Standard output, which has to be JSON objects, one on each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def messages(self) -> list[str]:
        """What was said on standard error, progress apart."""
        return [line for line in self.err.splitlines() if line.startswith("imprint: ")]


class Program:
    """Runs ``imprint`` in a folder; every run is checked not to show a traceback.

    It has no terminal: a run that would ask somebody fails, and does not wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: text for name, text in os.environ.items() if not name.startswith("IMPRINT_")
        }

    def start(self, *arguments: str | Path, stdin: int | None = None) -> subprocess.Popen[bytes]:
        """Start it, and do not wait."""
        return subprocess.Popen(  # noqa: S603 - the program under test
            _command(arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __call__(
        self,
        *arguments: str | Path,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run it to its end."""
        done = subprocess.run(  # noqa: S603 - the program under test
            _command(arguments),
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            start_new_session=True,
            check=False,
        )
        return checked(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path, stdin: bytes = b"") -> Result:
        """Run it; it has to succeed."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.err + result.text
        return result

    def refuses(self, exit_code: int, *arguments: str | Path, stdin: bytes = b"") -> list[str]:
        """Run it; it has to fail with one line of error, at most one of advice, no result."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == exit_code, result.err + result.text
        assert result.out == b""
        assert 1 <= len(result.messages) <= 2, result.err
        assert result.err.splitlines() == result.messages
        return result.messages


def checked(exit_code: int, out: bytes, err: bytes) -> Result:
    """A run that has ended; whatever it was asked, there is no traceback.

    Raises:
        AssertionError: if there is one.
    """
    result = Result(exit_code, out, err.decode(errors="replace"))
    assert "Traceback" not in result.err, result.err
    assert "internal error" not in result.err, result.err
    return result


class Served:
    """A server that is ready, and what it has said.

    Attributes:
        process: the server.
        said: where its exports are, as ``serve --json`` has it.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1].decode())
        self.said: dict[str, Any] = json.loads(line)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end, and wait until it has."""
        self.process.send_signal(number)
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended, as it should."""
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        assert checked(self.process.returncode, out, err).exit_code == 0, err


@contextmanager
def serve(program: Program, *arguments: str | Path) -> Iterator[Served]:
    """Serve exports for as long as the context lasts."""
    with program.start("serve", "--json", *arguments) as process:
        try:
            yield Served(process)
        finally:
            process.kill()


def _command(arguments: tuple[str | Path, ...]) -> list[str]:
    return [sys.executable, "-m", "imprint", *map(str, arguments)]
