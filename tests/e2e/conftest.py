"""What the tests of the program share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.testing.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).resolve().parents[2]
MIB: Final = 1 << 20


@pytest.fixture
def program(tmp_path: Path) -> Program:
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
def documented() -> Callable[[str, dict[str, Any]], None]:
    """Checks that the page of a verb names every key of its result."""

    def check(verb: str, result: dict[str, Any]) -> None:
        page = (ROOT / "docs" / "reference" / f"{verb}.md").read_text(encoding="utf-8")
        missing = [key for key in result if f"`{key}`" not in page]
        assert not missing, f"docs/reference/{verb}.md does not name {missing}"

    return check
