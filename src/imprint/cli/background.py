"""Going on in the background, once what was asked for is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from imprint.core.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.cli.console import Console

_READY = b"."


def in_background(console: Console, work: Callable[[Callable[[], None]], int]) -> int:
    """Do something that goes on for long, and return when it has begun.

    Until then it is a program like any other: it asks, tells and fails as the user sees it, and
    its exit code is ours. It is forked off before it opens anything, so that nothing is shared.

    Args:
        console: where it speaks.
        work: does it, and calls what it is given when all that the user waits for is there; from
            then on nobody hears it. Returns the exit code, to which nobody listens then.
    """
    console.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            is_ready = pipe.read(1) == _READY
        return 0 if is_ready else _exit_code_of(child)
    os.close(reading)

    def ready() -> None:
        console.flush()
        os.setsid()  # Ctrl-C in that terminal is no longer meant for us
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nowhere, fd)
        os.close(nowhere)
        os.write(writing, _READY)
        os.close(writing)

    return work(ready)


def _exit_code_of(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else Cancelled.exit_code
