"""What :mod:`store` has measured, and the medians of it."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Measured(NamedTuple):
    """One run of one step.

    Attributes:
        wall_s: until the result was durable.
        cpu_s: of all processes and threads.
        memory: peak of all processes together, in bytes.
        read: bytes by calls.
        written: bytes by calls.
        kept: size of the repository afterwards, in bytes.
    """

    wall_s: float
    cpu_s: float
    memory: float
    read: float
    written: float
    kept: float


class Results:
    """All runs with one series.

    Args:
        kind: of the series.
        tools: who was compared.
        size: of a disk, in bytes.
        difference: what is in use on B and lies in 4 KiB blocks that are not as on A.

    Attributes:
        target: bytes that have to be read of A to make B of it: what is in use on B, and what
            has to become holes.
        failures: by tool; who failed once is not run again.
    """

    def __init__(self, kind: str, tools: Sequence[str], *, size: int, difference: int) -> None:
        self.kind = kind
        self.tools = tuple(tools)
        self.size = size
        self.difference = difference
        self.target = 0
        self.failures: dict[str, str] = {}
        self._runs: dict[tuple[str, str], list[Measured]] = {}
        self._rates: dict[tuple[str, str], list[float]] = {}

    def add(self, tool: str, step: str, measured: Measured) -> None:
        """Note a run."""
        self._runs.setdefault((tool, step), []).append(measured)

    def add_rate(self, tool: str, kind: str, rate: float) -> None:
        """Note how fast a tool's repository was read: random reads or bytes in a second."""
        self._rates.setdefault((tool, kind), []).append(rate)

    def of(self, tool: str, step: str) -> Measured | None:
        """Medians of a step; ``None`` if there is none that counts."""
        runs = self._runs.get((tool, step))
        if tool in self.failures or not runs:
            return None
        return Measured(*map(median, zip(*runs, strict=True)))

    def spread_of(self, tool: str, step: str) -> float | None:
        """The slowest run's time less the fastest's, as a share of the median."""
        middle = self.of(tool, step)
        if middle is None:
            return None
        times = [run.wall_s for run in self._runs[tool, step]]
        return (max(times) - min(times)) / middle.wall_s

    def rate_of(self, tool: str, kind: str) -> float | None:
        """Median of a rate."""
        rates = self._rates.get((tool, kind))
        return median(rates) if rates and tool not in self.failures else None

    def memory_of(self, tool: str) -> float | None:
        """The most that any step took, in bytes."""
        steps = [step for name, step in self._runs if name == tool]
        found = [measured.memory for step in steps if (measured := self.of(tool, step))]
        return max(found, default=None)
