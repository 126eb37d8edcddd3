"""Medians, ratios and verdicts of what :mod:`run` has measured, as a table."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from imprint import __version__
from imprint.core.units import MIB, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.run import Result, Sample


_TEXT_COLUMNS: Final = (0, 1)


@dataclass(frozen=True)
class Figures:
    """Medians of one tool's runs.

    Attributes:
        wall_s: until the result is durable.
        best_s: the same of the fastest run.
        spread: the slowest run's time less the fastest's, as a share of the median.
        cpu_s: of all its threads, user and system.
        memory: peak, in bytes.
        stored: what the output takes up, in bytes; 0 if there is none.
    """

    wall_s: float
    best_s: float
    spread: float
    cpu_s: float
    memory: int
    stored: int


@dataclass(frozen=True)
class Row:
    """imprint beside one peer in one case.

    Attributes:
        case: its name.
        peer: the other program.
        ours: ``None`` if it failed.
        theirs: likewise.
        ratio: imprint's time divided by the peer's: below 1, imprint is faster.
        best_ratio: the same of the fastest runs.
        bar: what the ratio must not exceed.
        seconds_max: what imprint's time alone must not exceed.
        stored_ratio: imprint's output divided by the peer's, if there is any.
        stored_bar: what that must not exceed.
        holds: whether the bars hold.
        failure: of either program.
    """

    case: str
    peer: str
    ours: Figures | None
    theirs: Figures | None
    ratio: float | None
    best_ratio: float | None
    bar: float | None
    seconds_max: float | None
    stored_ratio: float | None
    stored_bar: float | None
    holds: bool
    failure: str | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def rows(results: Sequence[Result]) -> list[Row]:
    """A row for each case and peer."""
    return [_row(result, peer.name) for result in results for peer in result.case.peers]


def context(size: int, runs: int, peers: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """Where and when, and the versions of the peers: without it the figures mean nothing."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "disk": format_size(size),
        "runs": str(runs),
        "cpu": f"{os.cpu_count()} × {_cpu_model()}",
        "system": f"{platform.system()} {platform.release()}",
        "imprint": __version__,
        "python": platform.python_version(),
        **{command[0]: _first_line(*command) for command in peers},
    }


def render(table: Sequence[Row], facts: dict[str, str], *, markdown: bool) -> str:
    """The table as text; as Markdown if that is asked for."""
    head = (
        *("case", "peer", "imprint s", "peer s", "ratio", "best", "bar", "", "spread"),
        *("CPU s", "peer CPU s", "MiB", "peer MiB", "stored", "peer stored", "ratio"),
    )
    cells = [head, *(_cells(row) for row in table)]
    failures = [f"{row.case}, {row.peer}: {row.failure}" for row in table if row.failure]
    return page(cells, failures, facts, markdown=markdown)


def page(
    cells: Sequence[Sequence[str]],
    failures: Sequence[str],
    facts: dict[str, str],
    *,
    markdown: bool,
) -> str:
    """A table whose first line is its head, with what failed, and what it was measured on."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [_padded(line, widths) for line in cells]
    if not markdown:
        about = [f"{name}: {value}" for name, value in facts.items()]
        return "\n".join(["  ".join(line) for line in lines] + [""] + [*failures, *about])
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    body = ["| " + " | ".join(line) + " |" for line in lines]
    about = ["; ".join(f"{name}: {value}" for name, value in facts.items()) + ".", ""]
    return "\n".join([*about, body[0], rule, *body[1:], *([""] if failures else []), *failures])


def _row(result: Result, peer: str) -> Row:
    case = result.case
    ours = _figures(result, case.ours.name)
    theirs = _figures(result, peer)
    ratio = best = stored = None
    if ours is not None and theirs is not None:
        ratio, best = ours.wall_s / theirs.wall_s, ours.best_s / theirs.best_s
        stored = ours.stored / theirs.stored if theirs.stored else None
    holds = ours is not None and theirs is not None
    if case.bar is not None:
        holds = holds and ratio is not None and ratio <= case.bar
    if case.seconds_max is not None:
        holds = holds and ours is not None and ours.wall_s <= case.seconds_max
    if case.stored_bar is not None:
        holds = holds and stored is not None and stored <= case.stored_bar
    failure = result.failures.get(case.ours.name) or result.failures.get(peer)
    return Row(
        *(case.name, peer, ours, theirs, ratio, best),
        *(case.bar, case.seconds_max, stored, case.stored_bar, holds, failure),
    )


def _figures(result: Result, tool: str) -> Figures | None:
    samples: list[Sample] = result.samples[tool]
    if tool in result.failures or not samples:
        return None
    times = [sample.wall_s for sample in samples]
    return Figures(
        wall_s=median(times),
        best_s=min(times),
        spread=(max(times) - min(times)) / median(times),
        cpu_s=median(sample.cpu_s for sample in samples),
        memory=int(median(sample.memory for sample in samples)),
        stored=int(median(sample.stored for sample in samples)),
    )


def _cells(row: Row) -> tuple[str, ...]:
    bars = []
    if row.bar is not None:
        bars.append(f"{row.bar:.2f}")
    if row.seconds_max is not None:
        bars.append(f"{row.seconds_max:.3f} s")
    if row.stored_bar is not None:
        bars.append(f"{row.stored_bar:.2f} stored")
    both = (row.ours, row.theirs)
    return (
        row.case,
        row.peer,
        *("" if tool is None else f"{tool.wall_s:.3f}" for tool in both),
        *("" if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio, row.best_ratio)),
        "≤ " + ", ".join(bars),
        "holds" if row.holds else "failed" if row.failure else "missed",
        "/".join("" if tool is None else f"{tool.spread:.0%}" for tool in both),
        *("" if tool is None else f"{tool.cpu_s:.2f}" for tool in both),
        *("" if tool is None else f"{tool.memory / MIB:.0f}" for tool in both),
        *("" if tool is None or not tool.stored else format_size(tool.stored) for tool in both),
        "" if row.stored_ratio is None else f"{row.stored_ratio:.3f}",
    )


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, figures to the right."""
    return [
        f"{cell:<{width}}" if column in _TEXT_COLUMNS else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _cpu_model() -> str:
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    for line in facts.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "missing"
    return done.stdout.partition("\n")[0]
