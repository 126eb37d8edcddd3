"""What a fuzz target is, and the rule that all of them are held to."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.core.units import MIB
from imprint.testing.format_faults import bounded_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from imprint.core.layout import Structure

CPU_S_MAX: Final = 10.0
"""Of one step. A parser is done in far less than 1 s; more than this is a hang, even on a slow
machine and with coverage recorded."""

MEMORY_BYTES_MAX: Final = 512 * MIB
"""Of address space, beyond what the process has when a step begins."""


@dataclass(frozen=True)
class Place:
    """Where a declared structure stands in seeds.

    Attributes:
        structure: with its fields.
        at: its offset; negative: from the end; bytes: wherever they stand.
        within: of a mark: how far behind the structure's start it stands.
    """

    structure: type[Structure]
    at: int | bytes = 0
    within: int = 0


@dataclass(frozen=True)
class Target:
    """One parser under test.

    Attributes:
        name: also of its folder in the corpus.
        seeds: makes sound inputs; called once.
        steps: what is done with an input, each on its own: it may end in an ImagingError.
        places: structures whose fields are changed on purpose.
        words: pieces of text that mean something to the parser.
        seal: puts checksums right after a change, in place.
        is_always_sealed: whether no input is left without; else one in eight is.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    steps: tuple[Callable[[bytes], None], ...]
    places: tuple[Place, ...] = ()
    words: tuple[bytes, ...] = ()
    seal: Callable[[bytearray], None] | None = None
    is_always_sealed: bool = False


class FailureError(AssertionError):
    """A parser has broken the rule; the cause is what it raised."""


class _Hang(BaseException):
    """Time is up. Not an ``Exception``, so that no parser takes it for one of its own."""


def survive(target: Target, content: bytes) -> float:
    """Carry out all steps on an input; gives the CPU time that they took, in seconds.

    Raises:
        FailureError: if a step raises what is no :class:`ImagingError`, does not end, or asks
            for too much memory.
    """
    began = time.process_time()
    for step in target.steps:
        try:
            with bounded_memory(MEMORY_BYTES_MAX), _bounded_time(CPU_S_MAX):
                step(content)
        except ImagingError as error:
            str(error)
        except _Hang as failure:
            raise FailureError(f"{target.name}: {_named(step)} does not end") from failure
        except Exception as failure:
            what = f"{type(failure).__name__}: {failure}"
            raise FailureError(f"{target.name}: {_named(step)}: {what}") from failure
    return time.process_time() - began


def _named(step: Callable[[bytes], None]) -> str:
    return getattr(step, "__name__", repr(step))


@contextmanager
def _bounded_time(limit_s: float) -> Iterator[None]:
    """Raise :class:`_Hang` in the main thread once so much CPU time has passed."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise _Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
