"""What the user sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO

from imprint.core.events import Event, Finding, Progress, Severity
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.core.cancel import CancelToken
    from imprint.core.errors import ImagingError

_BAR_WIDTH: Final = 24
_PLAIN_INTERVAL_S: Final = 2.0
_RATE_WINDOW_S: Final = 5.0
_UNPRINTABLE: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Console:
    """Renders events, results and errors; one for each run of the program."""

    cancel: CancelToken

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._meter = _Meter()
        self._style = "auto"
        self._bar_shown = False
        self._last_plain = 0.0
        self.is_json = False

    def configure(self, args: argparse.Namespace) -> None:
        """Take over what the common options say."""
        self.is_json = getattr(args, "json", False)
        self._style = getattr(args, "progress", "auto")
        if self._style == "auto":
            self._style = "bar" if self._err.isatty() else "plain"

    def to_stderr(self) -> None:
        """Standard output carries a disk: the result goes where everything else goes."""
        self._out = self._err

    def on_event(self, event: Event) -> None:
        """Show an event; the callback of every operation."""
        if isinstance(event, Progress):
            self._progress(event)
        else:
            self.finding(event)

    def finding(self, finding: Finding) -> None:
        """Show a finding as one line."""
        label = "" if finding.severity is Severity.INFO else f"{finding.severity.value}: "
        repaired = " (repaired)" if finding.repaired else ""
        self.note(f"{label}{finding.where}: {finding.what}{repaired}")

    def note(self, text: str) -> None:
        """Say something that is not a result."""
        self._clear_bar()
        print(f"imprint: {printable(text)}", file=self._err, flush=True)

    def print(self, text: str = "") -> None:
        """A line of the result, for people; nothing with ``--json``."""
        if not self.is_json:
            self._clear_bar()
            print(printable(text), file=self._out)

    def result(self, **values: object) -> None:
        """The result as one JSON object; nothing without ``--json``."""
        if self.is_json:
            self._clear_bar()
            print(json.dumps(values, ensure_ascii=False), file=self._out)

    def error(self, error: ImagingError) -> None:
        """Say what went wrong in one line, and in a second one what to do about it."""
        self.note(str(error))
        if error.advice:
            self.note(error.advice)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._clear_bar()

    def _progress(self, event: Progress) -> None:
        self._meter.take(event)
        if self._style == "bar":
            print(f"\r\x1b[K{self._meter.bar()}", end="", file=self._err, flush=True)
            self._bar_shown = True
        elif self._style == "plain":
            now = time.monotonic()
            if now - self._last_plain >= _PLAIN_INTERVAL_S or event.done == event.total:
                self._last_plain = now
                print(self._meter.line(), file=self._err, flush=True)

    def _clear_bar(self) -> None:
        if self._bar_shown:
            self._bar_shown = False
            print("\r\x1b[K", end="", file=self._err, flush=True)


class _Meter:
    """Rate and time left, over the last seconds."""

    def __init__(self) -> None:
        self._event = Progress("", 0, 0, 0)
        self._seen: list[tuple[float, int, int]] = []

    def take(self, event: Progress) -> None:
        now = time.monotonic()
        if event.phase != self._event.phase:
            self._seen.clear()
        self._event = event
        self._seen.append((now, event.done, event.moved))
        while len(self._seen) > 2 and now - self._seen[1][0] > _RATE_WINDOW_S:  # noqa: PLR2004
            self._seen.pop(0)

    def bar(self) -> str:
        filled = int(self._share() * _BAR_WIDTH)
        return f"{self._event.phase} [{'#' * filled:<{_BAR_WIDTH}}] {self._facts()}"

    def line(self) -> str:
        return f"{self._event.phase}: {self._facts()}"

    def _share(self) -> float:
        return self._event.done / self._event.total if self._event.total else 1.0

    def _facts(self) -> str:
        event = self._event
        first, last = self._seen[0], self._seen[-1]
        seconds = last[0] - first[0]
        facts = [
            f"{self._share():6.1%}",
            f"{format_size(event.done)} of {format_size(event.total)}",
        ]
        if seconds > 0:
            facts.append(f"{format_size(int((last[2] - first[2]) / seconds))}/s")
            speed = (last[1] - first[1]) / seconds
            if speed > 0 and event.done < event.total:
                facts.append(f"{format_duration((event.total - event.done) / speed)} left")
        if event.bad:
            facts.append(f"{format_size(event.bad)} bad")
        return ", ".join(facts)


def format_duration(seconds: float) -> str:
    """``7 s``, ``3:05`` or ``2:10:00``."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Names from images cannot steer the terminal: control characters become escapes."""
    return "\n".join(line.translate(_UNPRINTABLE) for line in text.split("\n"))
