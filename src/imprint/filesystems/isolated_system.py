"""What the system knows of a process of a library, and of the pipes to it."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final

from imprint.core.units import MIB

PIPE_BYTES: Final = MIB


def widened(pipe: IO[bytes] | None) -> bool:
    """Let as much through at once as the system allows; whether that is much."""
    try:
        import fcntl

        assert pipe is not None
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        return False
    return True


def waits_for_disk(number: int) -> bool:
    """Whether a process is in the middle of a read, as slow as that may be; only Linux tells.

    Source: proc_pid_stat(5), the third field.
    """
    try:
        facts = Path(f"/proc/{number}/stat").read_bytes()
    except OSError:
        return False
    return facts.rpartition(b")")[2].split()[:1] == [b"D"]
