"""Ratios and verdicts of what :mod:`store` has measured, as a table.

A ratio is imprint's figure divided by another's, or the other way round for rates: below 1,
imprint does better. A row without a bar is for information.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from benchmarks import table
from benchmarks.keepers import (
    DELTA_B,
    RESTORE_B,
    RIVALS,
    STEPS,
    STORE_A,
    STORE_B,
    STORE_B_AGAIN,
    STORE_C,
)
from imprint.core.units import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.keepers import Step
    from benchmarks.results import Measured, Results

OURS: Final = "imprint"
IDEAL: Final = "ideal"
MOUNTED: Final = ("borg", "borg-fixed")

ALL_KEPT: Final = 0.42
"""Of what the better of borg and restic keeps for three disks."""

C_KEPT: Final = 0.30
"""Of what the better of borg and restic adds for C."""

UNKNOWN_KEPT: Final = 1.0
"""Of fixed chunks of 1 MiB, where nobody knows the file system."""

WALL: Final = {STORE_A: 0.40, STORE_B: 0.30, RESTORE_B: 0.35}
"""Of the time of the faster of borg and restic."""

PIPELINE_CPU: Final = 1.30
"""Of the processors' time of the ideal pipeline."""

UNCHANGED_S: Final = 1.0
"""For 4 GiB of a disk that has not changed."""

DELTA_IO: Final = 1.1
"""Of the bytes that differ: what may be written, and what may be read besides the target."""

RANDOM: Final = 0.1
SEQUENTIAL: Final = 1.0

_RIVALS: Final = "borg, restic"
_OVERHEAD: Final = 32 * MIB
"""What any run reads and writes besides: a Python program's own files."""


@dataclass(frozen=True)
class Row:
    """A quantity, as all tools have it.

    Attributes:
        disks: the kind of series.
        what: is measured.
        unit: of the figures.
        values: by tool; those that have none are missing.
        peer: whom the ratio is about.
        ratio: of imprint to that peer, such that less is better.
        bar: what the ratio must not exceed.
        limit: what imprint's figure must not exceed, in the unit.
        holds: whether it does; ``None``: there is no bar.
    """

    disks: str
    what: str
    unit: str
    values: dict[str, float]
    peer: str | None = None
    ratio: float | None = None
    bar: float | None = None
    limit: float | None = None
    holds: bool | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def rows(results: Results) -> list[Row]:
    """All quantities of a series; without bars if imprint was not asked to take part."""
    found = [*_sizes(results), *_times(results), *_delta(results), *_rates(results)]
    if OURS in results.tools:
        return found
    return [replace(row, bar=None, limit=None, holds=None) for row in found]


def render(
    found: Sequence[Row], results: Sequence[Results], facts: dict[str, str], *, markdown: bool
) -> str:
    """The table as text; as Markdown if that is asked for."""
    tools = list(dict.fromkeys(tool for result in results for tool in result.tools))
    head = ("disks", "what", "unit", *tools, "peer", "ratio", "bar", "")
    cells = [head, *(_cells(row, tools) for row in found)]
    failures = [
        f"{result.kind}, {tool}: {text}"
        for result in results
        for tool, text in result.failures.items()
    ]
    return table.page(cells, failures, facts, markdown=markdown)


def _sizes(results: Results) -> Iterator[Row]:
    unknown = results.kind == "opaque"
    peers = (IDEAL,) if unknown else RIVALS
    about = "fixed 1 MiB" if unknown else _RIVALS
    total = UNKNOWN_KEPT if unknown else ALL_KEPT
    for name, step in (("A", STORE_A), ("A+B", STORE_B), ("A+B+C", STORE_C)):
        kept = _by_tool(results, step, lambda run: run.kept / MIB)
        bar = total if step is STORE_C else None
        yield _row(results.kind, f"kept: {name}", "MiB", kept, peers=peers, about=about, bar=bar)
    before = _by_tool(results, STORE_B, lambda run: run.kept / MIB)
    after = _by_tool(results, STORE_C, lambda run: run.kept / MIB)
    own = {tool: after[tool] - before[tool] for tool in after if tool in before}
    bar = None if unknown else C_KEPT
    yield _row(results.kind, "kept: C's own", "MiB", own, peers=peers, about=about, bar=bar)


def _times(results: Results) -> Iterator[Row]:
    unknown = results.kind == "opaque"
    for step in STEPS[:-1]:
        walls = _by_tool(results, step, lambda run: run.wall_s)
        bar = None if unknown else WALL.get(step)
        limit = UNCHANGED_S * results.size / (4 * GIB) if step is STORE_B_AGAIN else None
        yield _row(results.kind, f"wall: {step.name}", "s", walls, bar=bar, limit=limit)
    for step in STEPS[:-1]:
        cpu = _by_tool(results, step, lambda run: run.cpu_s)
        is_pipeline = step in (STORE_A, STORE_B, STORE_C) and not unknown
        bar = PIPELINE_CPU if is_pipeline else None
        yield _row(
            results.kind, f"CPU: {step.name}", "s", cpu, peers=(IDEAL,), about=IDEAL, bar=bar
        )
    spread = {
        tool: max(found)
        for tool in results.tools
        if (
            found := [
                part for step in STEPS if (part := results.spread_of(tool, step.name)) is not None
            ]
        )
    }
    yield Row(results.kind, "largest spread of wall", "", spread)
    memory = {
        tool: most / MIB for tool in results.tools if (most := results.memory_of(tool)) is not None
    }
    yield Row(results.kind, "peak memory", "MiB", memory)


def _delta(results: Results) -> Iterator[Row]:
    """Of restoring B over A: nobody else does it, so the bar is what has to be done."""
    run = results.of(OURS, DELTA_B.name)
    if run is None:
        return
    yield Row(results.kind, "wall: B over A", "s", {OURS: run.wall_s})
    difference = results.difference / MIB
    limit = (DELTA_IO * results.difference + _OVERHEAD) / MIB
    beyond = max(0.0, run.read - results.target)
    for what, amount in (("read beyond the target", beyond), ("written", run.written)):
        found = amount / MIB
        yield Row(
            *(results.kind, f"B over A: {what}", "MiB", {OURS: found}),
            *("difference", found / difference if difference else None),
            limit=limit,
            holds=found <= limit,
        )


def _rates(results: Results) -> Iterator[Row]:
    for kind, unit, scale, peers, about, bar in (
        ("random", "reads/s", 1, MOUNTED, "borg mount", RANDOM),
        ("sequential", "MiB/s", MIB, (IDEAL,), "zstd", SEQUENTIAL),
    ):
        values = {
            tool: rate / scale
            for tool in results.tools
            if (rate := results.rate_of(tool, kind)) is not None
        }
        yield _row(
            *(results.kind, f"{kind} reading", unit, values),
            peers=peers,
            about=about,
            bar=bar,
            is_rate=True,
        )


def _row(
    disks: str,
    what: str,
    unit: str,
    values: dict[str, float],
    *,
    peers: Sequence[str] = RIVALS,
    about: str = _RIVALS,
    bar: float | None = None,
    limit: float | None = None,
    is_rate: bool = False,
) -> Row:
    """A row that compares with the best of the peers; who misses a figure misses its bar."""
    ours = values.get(OURS)
    best = (max if is_rate else min)(
        (values[peer] for peer in peers if peer in values), default=None
    )
    ratio = None
    if ours and best:
        ratio = best / ours if is_rate else ours / best
    holds = None
    if bar is not None or limit is not None:
        holds = ours is not None
        holds = holds and (bar is None or (ratio is not None and ratio <= bar))
        holds = holds and (limit is None or (ours is not None and ours <= limit))
    return Row(disks, what, unit, values, about, ratio, bar, limit, holds)


def _by_tool(
    results: Results, step: Step, quantity: Callable[[Measured], float]
) -> dict[str, float]:
    return {
        tool: quantity(run)
        for tool in results.tools
        if (run := results.of(tool, step.name)) is not None
    }


def _cells(row: Row, tools: Sequence[str]) -> tuple[str, ...]:
    digits = 0 if row.unit in ("MiB", "MiB/s", "reads/s") else 2
    bars = []
    if row.bar is not None:
        bars.append(f"≤ {row.bar:.2f}")
    if row.limit is not None:
        bars.append(f"≤ {row.limit:.{max(digits, 0)}f} {row.unit}")
    return (
        *(row.disks, row.what, row.unit),
        *("" if tool not in row.values else f"{row.values[tool]:.{digits}f}" for tool in tools),
        row.peer if row.ratio is not None and row.peer is not None else "",
        "" if row.ratio is None else f"{row.ratio:.3f}",
        ", ".join(bars),
        {None: "", True: "holds", False: "missed"}[row.holds],
    )
