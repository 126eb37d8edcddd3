"""Where the bytes of a rescue go: a target or a file, in any order, to be read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imprint.core.buffers import is_zero
from imprint.core.contracts import Encoding, Order, Resumable, Source, Target
from imprint.core.units import MIB

if TYPE_CHECKING:
    from imprint.core.runs import Runs


class Sink(Protocol):
    """Takes the bytes of a medium as they come."""

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``; it may be reused when this returns."""


@runtime_checkable
class Random(Source, Protocol):
    """A target that can be written in any order, and read."""

    def write(self, data: memoryview, offset: int) -> None:
        """As of a target."""

    def zero(self, offset: int, length: int) -> None:
        """As of a target."""

    def flush(self) -> None:
        """Wait until all that was written is durable."""


class TargetSink:
    """A disk that is written in the order in which it can be read."""

    def __init__(self, disk: Random, *, is_clear: bool) -> None:
        """``is_clear``: what was never written reads as zeros."""
        self.disk = disk
        self._is_clear = is_clear

    def write(self, data: memoryview, offset: int) -> None:
        """Store it; zeros take no room where there are none to be replaced."""
        if is_zero(data):
            self.zero(offset, len(data))
        else:
            self.disk.write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""
        if not self._is_clear:
            self.disk.zero(offset, length)

    def fill(self, runs: Runs, pattern: bytes) -> None:
        """Write a pattern over ranges, beginning anew in each of them; zeros if it is empty."""
        block = memoryview(pattern * (MIB // len(pattern))) if pattern.strip(b"\0") else None
        for start, length in runs:
            if block is None:
                self.disk.zero(start, length)
                continue
            for position in range(start, start + length, len(block)):
                self.disk.write(block[: start + length - position], position)

    def checkpoint(self) -> None:
        """Make durable what was written."""
        if isinstance(self.disk, Resumable):
            self.disk.checkpoint()
        else:
            self.disk.flush()


def random_access(target: Target) -> Random | None:
    """The target as a disk that takes its bytes in any order, if it is one."""
    if target.traits.order is not Order.ANY or isinstance(target, Encoding):
        return None
    return target if isinstance(target, Random) else None
