"""Outside programs: finding and running them. What they change, they know how to change best.

No shell is involved, and no name of the user's is read as an option: callers give paths that
begin with a slash, or names of their own.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

QUESTION_TIMEOUT_S: Final = 60.0
"""For a program that only looks or attaches."""

WORK_TIMEOUT_S: Final = 24 * 3600.0
"""For one that goes over a whole file system; stopping it half-way would do harm."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINES_SHOWN: Final = 3


def find(program: str) -> str | None:
    """Where a program is, also where only root looks by default; ``None``: it is missing."""
    return shutil.which(program) or shutil.which(program, path=_PATH)


def run(
    program: str,
    *arguments: str,
    timeout_s: float = QUESTION_TIMEOUT_S,
    folder: Path | None = None,
    stdin: bytes = b"",
    accept: Collection[int] = (0,),
) -> str:
    """Run a program to its end; gives what it said.

    It is in a session of its own: Ctrl-C reaches us and not it, so that it is not torn away
    from a file system that it is changing.

    Args:
        program: its name.
        arguments: as it takes them.
        timeout_s: after how long it is killed.
        folder: in which it is run.
        stdin: what it reads.
        accept: exit codes that mean that all went well.

    Raises:
        TargetError: if it is missing, fails, or does not come to an end.
    """
    path = find(program)
    if path is None:
        raise TargetError(f"expected the program {program}, found none")
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, and the program is our choice
            [path, *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            cwd=folder,
            env={"PATH": _PATH, "LC_ALL": "C"},
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as failure:
        raise TargetError(f"{program} did not end in {timeout_s:.0f} s") from failure
    except OSError as failure:
        raise TargetError(f"{program} cannot be run: {failure.strerror}") from failure
    said = done.stdout.decode(errors="replace")
    if done.returncode not in accept:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        shown = "; ".join(lines[-_LINES_SHOWN:]) or "without a word"
        raise TargetError(f"{program} ended with {done.returncode}: {shown}")
    return said
