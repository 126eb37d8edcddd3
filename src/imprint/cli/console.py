"""What the user sees: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from imprint.core.cancel import CancelToken
from imprint.core.events import Event, Finding, Progress, Severity
from imprint.core.system import collecting_rarely
from imprint.core.units import counted, format_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from imprint.core.errors import ImagingError
    from imprint.core.events import OnEvent

_BAR_WIDTH: Final = 24
_PLAIN_INTERVAL_S: Final = 2.0
_RATE_WINDOW_S: Final = 5.0


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C, by another name.

    Some modules run text when they are loaded. If the built-in exception passes there, CPython
    remembers it, and ends the program by SIGINT in the end, whatever its exit code was to be.
    """


class Console:
    """Renders events, results and errors; one for each run of the program.

    Attributes:
        cancel: stops what is going on; set by Ctrl-C while :meth:`stopping` is entered.
        is_json: whether the result is JSON.
        watchers: are told of every event too.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or _stream(sys.stdout)
        self._err = err or _stream(sys.stderr)
        self.cancel = CancelToken()
        self._listeners = 0
        self._meter = _Meter()
        self._style = "auto"
        self._bar_shown = False
        self._last_plain = 0.0
        self._finished = ""
        self.is_json = False
        self.watchers: list[OnEvent] = []

    @property
    def encoding(self) -> str:
        """Of standard output."""
        return self._out.encoding or "ascii"

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads standard output."""
        return self._out.isatty()

    def configure(self, args: argparse.Namespace) -> None:
        """Take over what the common options say."""
        self.is_json = getattr(args, "json", False)
        self._style = getattr(args, "progress", "auto")
        if self._style == "auto":
            self._style = "bar" if self._err.isatty() else "plain"

    def to_stderr(self) -> None:
        """Standard output carries a disk: the result goes where everything else goes."""
        self._out = self._err

    @contextlib.contextmanager
    def stopping(self) -> Iterator[CancelToken]:
        """For the time inside, a disk is moved: Ctrl-C only sets :attr:`cancel`."""
        from imprint.cli.logged import telling_logged  # only where much is moved
        from imprint.transfer.heap import keep_freed_memory

        keep_freed_memory()
        self._listeners += 1
        try:
            with collecting_rarely(), telling_logged(self.note):
                yield self.cancel
        finally:
            self._listeners -= 1

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """For the time inside, a person is asked: Ctrl-C is an answer at once."""
        listeners, self._listeners = self._listeners, 0
        self._clear_bar()
        try:
            yield
        finally:
            self._listeners = listeners

    def interrupt(self) -> None:
        """Stop: at the next span where somebody looks, else here and now.

        Raises:
            KeyboardInterrupt: if nobody looks at the token.
        """
        self.cancel.cancel()
        if not self._listeners:
            raise _Interrupt

    def on_event(self, event: Event) -> None:
        """Show an event; the callback of every operation."""
        for watch in self.watchers:
            watch(event)
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
        """Say something that is not a result, in one line."""
        self._clear_bar()
        self._tell(f"imprint: {printable(text)}\n")

    def print(self, text: str = "") -> None:
        """One line of the result, for people; nothing with ``--json``."""
        if not self.is_json:
            self._clear_bar()
            print(printable(text), file=self._out)

    def block(self, lines: Iterable[str]) -> None:
        """Lines of a result that may hold colours: no name in them is left as it was found."""
        if not self.is_json:
            self._clear_bar()
            for line in lines:
                print(line, file=self._out)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Names and values, one below the other; those without a value are left out."""
        self.table([(f"  {name}", value) for name, value in facts if value])

    def table(self, rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> None:
        """Rows in columns, for people; the columns in ``right`` are aligned to the right."""
        if not rows:
            return
        cells = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            fields = [
                cell.rjust(width) if index in right else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.print("  ".join(fields).rstrip())

    def result(self, **values: object) -> None:
        """The result as one line of JSON; nothing without ``--json``.

        Plain ASCII, so that names of any kind survive any terminal, pipe and locale.
        """
        if self.is_json:
            self._clear_bar()
            self._out.write(f"{json.dumps(values)}\n")

    def json_lines(self, lines: Iterable[str]) -> None:
        """Results that are JSON already, each with its end of line; nothing without ``--json``."""
        if self.is_json:
            self._clear_bar()
            self._out.writelines(lines)

    def write(self, data: memoryview) -> None:
        """A result that is no text, as it is."""
        self._clear_bar()
        self._out.buffer.write(data)

    def error(self, error: ImagingError) -> None:
        """Say what went wrong in one line, and in a second one what to do about it."""
        self.note(str(error))
        if error.advice:
            self.note(error.advice)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._clear_bar()

    def flush(self) -> None:
        """Get rid of the result.

        Raises:
            OSError: if nobody takes it.
        """
        self._clear_bar()
        self._out.flush()

    def _progress(self, event: Progress) -> None:
        self._meter.take(event)
        if self._style == "bar":
            self._tell(f"\r\x1b[K{self._meter.bar()}")
            self._bar_shown = True
        elif self._style == "plain":
            now = time.monotonic()
            is_last = event.done == event.total and event.phase != self._finished
            if now - self._last_plain >= _PLAIN_INTERVAL_S or is_last:
                self._last_plain = now
                self._tell(f"{self._meter.line()}\n")
            self._finished = event.phase if event.done == event.total else ""

    def _clear_bar(self) -> None:
        if self._bar_shown:
            self._bar_shown = False
            self._tell("\r\x1b[K")

    def _tell(self, text: str) -> None:
        """To standard error; that nobody reads it is no reason to stop."""
        with contextlib.suppress(OSError):
            self._err.write(text)
            self._err.flush()


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
            areas = "" if event.bad_areas is None else f" in {counted(event.bad_areas, 'area')}"
            facts.append(f"{format_size(event.bad)} bad{areas}")
        if event.since_good_s is not None and event.since_good_s >= 1:
            facts.append(f"last good read {format_duration(event.since_good_s)} ago")
        return ", ".join(facts)


def exact(size: int) -> str:
    """``1.5 GiB (1610612736 bytes)``."""
    text = format_size(size)
    return text if text.endswith(("bytes", "byte")) else f"{text} ({size} bytes)"


def format_value(value: str | int | bool | None) -> str:  # noqa: FBT001 - one of its values
    """The value of an option, as it would be given."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "-" if value is None else str(value)


def format_duration(seconds: float) -> str:
    """``7 s``, ``3:05`` or ``2:10:00``."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Names from images cannot steer the terminal: what is no character becomes an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - a byte of a name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"  # noqa: PLR2004 - a byte


def _stream(stream: TextIO | None) -> TextIO:
    """The stream, made to take all of Unicode; one that was closed by the caller takes nothing."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream
