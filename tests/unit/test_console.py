"""What the user sees: one line for each thing, nothing that steers the terminal."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.cli.console import Console, exact, format_duration, format_value, printable
from imprint.core.errors import RefusedError
from imprint.core.events import Finding, Progress, Severity


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(*, progress: str = "auto", is_json: bool = False, tty: bool = False) -> Console:
    err = Terminal() if tty else io.StringIO()
    made = Console(io.StringIO(), err)
    made.configure(argparse.Namespace(json=is_json, progress=progress))
    return made


def said(made: Console) -> tuple[str, str]:
    assert isinstance(made._out, io.StringIO)
    assert isinstance(made._err, io.StringIO)
    return made._out.getvalue(), made._err.getvalue()


@given(st.text(st.characters(codec="utf-8", categories=None) | st.just("\x1b") | st.just("\udc9b")))
def test_what_is_printed_is_one_line_of_characters(text: str) -> None:
    """Fails if any character gets through that moves the cursor or changes the direction."""
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünï", "plain ünï"),
        ("a\nb\t", r"a\x0ab\x09"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("\u202e\ufeff", r"\u202e\ufeff"),
        ("\udc9b\udcff", r"\x9b\xff"),
    ],
)
def test_escapes_say_which_character_it_was(text: str, expected: str) -> None:
    """Fails if different names look the same."""
    assert printable(text) == expected


def test_an_error_is_one_line_and_its_advice_another() -> None:
    """Fails if a message from an image gets more lines than the contract gives it."""
    made = console()
    made.error(RefusedError("bad\nthing", name="a\nb", advice="do\nthis"))
    assert said(made) == ("", "imprint: a\\x0ab: bad\\x0athing\nimprint: do\\x0athis\n")


def test_results_for_people_and_for_scripts_exclude_each_other() -> None:
    """Fails if one gets into the other."""
    made = console()
    made.print("for people")
    made.block(["raw \x1b[1m"])
    made.facts([("name", "value"), ("empty", "")])
    made.result(key=1)
    assert said(made) == ("for people\nraw \x1b[1m\n  name  value\n", "")
    made = console(is_json=True)
    made.print("for people")
    made.block(["more"])
    made.table([("a", "b")])
    made.result(key="\udcff\x9b")
    out, err = said(made)
    assert (json.loads(out), err) == ({"key": "\udcff\x9b"}, "")
    assert out.isascii()


def test_columns_line_up() -> None:
    """Fails if a table cannot be read, or a name in it breaks a line."""
    made = console()
    made.table([("a", "1", "x"), ("bbb", "22", "y\n")], right=(1,))
    made.table([])
    assert said(made)[0] == "a     1  x\nbbb  22  y\\x0a\n"


def test_plain_progress_has_no_control_characters_and_ends_once() -> None:
    """Fails if a log is filled by a bar, or the end is told again and again."""
    made = console(progress="plain")
    for done in (1, 50, 100, 100):
        made.on_event(Progress("copy", done, 100, done))
    made.on_event(Progress("verify", 100, 100, 0, bad=7))
    lines = said(made)[1].splitlines()
    assert [line.split(":")[0] for line in lines] == ["copy", "copy", "verify"]
    assert "100.0%" in lines[1]
    assert "7 bytes bad" in lines[2]


def test_a_bar_gives_way_to_what_is_said() -> None:
    """Fails if a message is written behind a bar, or the bar stays when all is over."""
    made = console(tty=True)
    made.on_event(Progress("copy", 50, 100, 50))
    made.on_event(Finding(Severity.WARNING, "here", "something", repaired=True))
    made.on_event(Progress("copy", 60, 100, 60))
    made.close()
    err = said(made)[1]
    assert "############" in err
    assert "\r\x1b[Kimprint: warning: here: something (repaired)\n" in err
    assert err.endswith("\r\x1b[K")


def test_no_progress_at_all() -> None:
    """Fails if --progress none says something."""
    made = console(progress="none", tty=True)
    made.on_event(Progress("copy", 50, 100, 50))
    assert said(made) == ("", "")


def test_ctrl_c_sets_the_token_only_while_somebody_looks_at_it() -> None:
    """Fails if a verb that does not look cannot be stopped, or one that looks is torn off."""
    made = console()
    with made.stopping() as cancel:
        made.interrupt()
        assert cancel.is_cancelled
        with made.asking(), pytest.raises(KeyboardInterrupt):
            made.interrupt()
        made.interrupt()
    with pytest.raises(KeyboardInterrupt):
        made.interrupt()


def test_that_nobody_reads_messages_stops_nothing() -> None:
    """Fails if a closed standard error ends a copy."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    made = Console(io.StringIO(), Closed())
    made.configure(argparse.Namespace(progress="plain"))
    made.note("nobody hears it")
    made.on_event(Progress("copy", 1, 100, 1))


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3:05"), (7800, "2:10:00")]
)
def test_durations(seconds: float, expected: str) -> None:
    """Fails if minutes and hours are mixed up."""
    assert format_duration(seconds) == expected


def test_values_and_sizes() -> None:
    """Fails if a value is not shown as it is given."""
    assert [format_value(value) for value in (True, False, None, 7, "x")] == [
        *("on", "off", "-", "7", "x")
    ]
    assert exact(1536 << 20) == "1.5 GiB (1610612736 bytes)"
    assert exact(512) == "512 bytes"
    assert exact(1) == "1 byte"


def test_an_interrupt_while_a_module_is_loaded_leaves_the_exit_code_alone() -> None:
    """Fails if CPython ends us by SIGINT instead: scripts expect 130, and SIGTERM is none."""
    script = """
import signal, sys
from imprint.cli.console import Console
console = Console()
signal.signal(signal.SIGTERM, lambda *_: console.interrupt())
try:
    exec("signal.raise_signal(signal.SIGTERM)")  # as dataclasses do when they are defined
except KeyboardInterrupt:
    sys.exit(130)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 130
