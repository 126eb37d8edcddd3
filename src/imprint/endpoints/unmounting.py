"""Unmounting, until what served it is really gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TargetError
from imprint.endpoints.mount_points import detach, mounted_at
from imprint.endpoints.mounting import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ANSWER_TIMEOUT_S: Final = 5.0
"""For a process to say who it is: one that is stopped never does."""

_END_TIMEOUT_S: Final = 300.0
"""For it to make durable what was written, and to close the disk."""

_POLL_S: Final = 0.05
_ANSWER_BYTES_MAX: Final = 65536


@dataclass(frozen=True)
class Unmounted:
    """What was unmounted.

    Attributes:
        pid: of the process that has served it; ``None``: it was dead already, or did not answer.
        address: of the disk, if it has said it.
    """

    pid: int | None
    address: str | None


def unmount(point: Path, *, lazy: bool = False) -> Unmounted:
    """Unmount what :func:`~imprint.endpoints.mounting.mount` has mounted, and wait for its end.

    Args:
        point: where it is mounted.
        lazy: let it vanish now, and end when nobody has a file of it open; nothing is waited for.

    Raises:
        UsageError: if nothing of ours is mounted there.
        TargetBusyError: if files of it are open.
        TargetError: if it cannot be unmounted, or does not end.
    """
    where = mounted_at(point)
    pid, address = _server(point)
    with contextlib.ExitStack() as stack:
        ended = stack.enter_context(_ending(pid)) if pid is not None else None
        detach(where, lazy=lazy)
        if ended is not None and not lazy and not ended(_END_TIMEOUT_S):
            raise TargetError(
                f"is unmounted, but process {pid} did not end in {_END_TIMEOUT_S:.0f} s",
                name=str(point),
            )
    return Unmounted(pid, address)


def _server(point: Path) -> tuple[int | None, str | None]:
    """Which process serves it, and what; nothing if it does not say so."""
    answers: list[bytes] = []

    def ask() -> None:
        with contextlib.suppress(OSError), (point / CONTROL).open("rb") as file:
            answers.append(file.read(_ANSWER_BYTES_MAX))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_TIMEOUT_S)
    if not answers:
        return None, None
    try:
        said = json.loads(answers[0])
        return int(said["pid"]), str(said["address"])
    except (ValueError, KeyError, TypeError):
        return None, None


@contextlib.contextmanager
def _ending(pid: int) -> Iterator[_Ending | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # it is in another container; or this is not Linux
        yield _Ending(pid, None)
        return
    try:
        yield _Ending(pid, descriptor)
    finally:
        os.close(descriptor)


class _Ending:
    """Waits for the end of a process that is not our child."""

    def __init__(self, pid: int, descriptor: int | None) -> None:
        self._pid = pid
        self._descriptor = descriptor

    def __call__(self, timeout_s: float) -> bool:
        """Whether it has ended in time."""
        if self._descriptor is not None:
            return bool(select.select([self._descriptor], [], [], timeout_s)[0])
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                pass
            time.sleep(_POLL_S)
        return False
