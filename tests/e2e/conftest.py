"""The program as its users run it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
MIB: Final = 1 << 20
TIMEOUT_S: Final = 60


@dataclass(frozen=True)
class Result:
    """How the program ended."""

    exit_code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output."""
        return self.out.decode()

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which has to be one JSON object and nothing else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output, which has to be JSON objects, one on each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def messages(self) -> list[str]:
        """What was said on standard error, progress apart."""
        return [line for line in self.err.splitlines() if line.startswith("imprint: ")]


class Program:
    """Runs ``imprint`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: text for name, text in os.environ.items() if not name.startswith("IMPRINT_")
        }

    def command(self, *arguments: str | Path) -> list[str]:
        """What has to be started."""
        return [sys.executable, "-m", "imprint", *map(str, arguments)]

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> Result:
        """Run it to its end. Whatever it was asked, it never shows a traceback."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        result = Result(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
        assert "Traceback" not in result.err, result.err
        assert "internal error" not in result.err, result.err
        return result

    def ok(self, *arguments: str | Path, stdin: bytes = b"") -> Result:
        """Run it; it has to succeed."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.err + result.text
        return result

    def refuses(self, exit_code: int, *arguments: str | Path) -> list[str]:
        """Run it; it has to fail in one line, and at most one more of advice."""
        result = self(*arguments)
        assert result.exit_code == exit_code, result.err + result.text
        assert result.out == b""
        assert 1 <= len(result.messages) <= 2, result.err
        assert result.err.splitlines() == result.messages
        return result.messages


@pytest.fixture
def imprint(tmp_path: Path) -> Program:
    """The program, in an empty folder."""
    return Program(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """``disk.raw``: 8 MiB with data at 0, at 3 MiB and at the end, and holes between."""
    noise = random.Random(5)
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        for at in (0, 3 * MIB, 8 * MIB - 70_000):
            file.seek(at)
            file.write(noise.randbytes(70_000))
    return path


@pytest.fixture
def page() -> Iterator[Page]:
    """Compares results with the reference pages."""
    return Page()


class Page:
    """The reference pages in ``docs/reference``."""

    def documents(self, verb: str, result: dict[str, Any]) -> None:
        """Every key of a verb's result is on its page."""
        text = (ROOT / "docs" / "reference" / f"{verb}.md").read_text(encoding="utf-8")
        missing = [key for key in result if f"`{key}`" not in text]
        assert not missing, f"docs/reference/{verb}.md does not name {missing}"
