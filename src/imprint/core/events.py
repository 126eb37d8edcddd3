"""What happens while an operation runs, as typed events to one callback.

A callback runs in the thread of the operation: it has to be quick and must not raise.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Severity(enum.Enum):
    """How bad a finding is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Progress:
    """How far a copy is; at most ten a second.

    Attributes:
        phase: what is going on, as a verb: ``copy``, ``verify``, ``survey`` …
        done: bytes of the disk that are dealt with, holes included.
        total: bytes of the disk.
        moved: bytes that had to be read for it.
        bad: bytes that could not be read.
        bad_areas: how many runs these are; ``None``: not counted.
        since_good_s: seconds since a read succeeded; ``None``: it was the last one.
    """

    phase: str
    done: int
    total: int
    moved: int
    bad: int = 0
    bad_areas: int | None = None
    since_good_s: float | None = None


@dataclass(frozen=True)
class Finding:
    """Something about an image that the user should know.

    Attributes:
        severity: how bad it is.
        where: the structure or area, with its offset if there is one.
        what: one sentence: what was expected, what was found.
        repaired: whether a repair has put it right.
    """

    severity: Severity
    where: str
    what: str
    repaired: bool = False


Event = Progress | Finding
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event: the callback of those who do not care."""
