"""The program: finds the verb, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from imprint import __version__
from imprint.cli.console import Console
from imprint.cli.parsers import verb_module, verb_parser
from imprint.cli.verbs import GROUPS, VERBS
from imprint.core.errors import (
    Cancelled,
    ImagingError,
    TargetError,
    UnsupportedFeatureError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

_BROKEN_PIPE_EXIT: Final = 141  # what a shell shows of a program that SIGPIPE has ended
_INTERNAL_EXIT: Final = 3
_HELP: Final = ("-h", "--help", "help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _occupy_standard_files()
    console = Console()
    _catch_signals(console)
    try:
        code = _run(arguments, console)
        console.flush()
    except BrokenPipeError:
        # The reader of our output has gone: nothing is left to say, and nobody to say it to.
        _silence_output()
        return _BROKEN_PIPE_EXIT
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a traceback is a defect
        return _report(error, console)
    finally:
        console.close()
    return code


def _report(error: Exception | KeyboardInterrupt, console: Console) -> int:
    """Say in one line what went wrong; returns the exit code."""
    if os.environ.get("IMPRINT_DEBUG") == "1":
        import traceback  # only for those who ask

        traceback.print_exception(error)
    if isinstance(error, ImagingError):
        console.error(error)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        console.error(Cancelled("interrupted"))
        return Cancelled.exit_code
    if isinstance(error, OSError) and error.filename is None and error.errno == errno.ENOSPC:
        _silence_output()
        console.note("standard output: no space left on device")
        return TargetError.exit_code
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and not missing.startswith("imprint"):
        console.note(f"needs the Python module {missing}, which is not installed")
        console.note("imprint doctor says what is missing, and how to get it")
        return UnsupportedFeatureError.exit_code
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    console.note(f"internal error: {what}; run with IMPRINT_DEBUG=1 for details")
    return _INTERNAL_EXIT


def _occupy_standard_files() -> None:
    """Fill up what the caller has closed, with what fails: no image may get its number."""
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)


def _silence_output() -> None:
    """Let the interpreter throw away at its end what standard output has not taken."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str], console: Console) -> int:
    if arguments[:1] == ["help"] and arguments[1:2] and arguments[1] in VERBS:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in _HELP:
        print(_overview(), end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else UsageError.exit_code
    if arguments[0] in ("-V", "--version"):
        print(f"imprint {__version__}")
        return 0
    name = _known(arguments[0], VERBS, "imprint --help lists the verbs")
    rest = arguments[1:]
    if name in GROUPS:
        if not rest or rest[0] in _HELP:
            print(_group_overview(name), end="", file=sys.stdout if rest else sys.stderr)
            return 0 if rest else UsageError.exit_code
        word = _known(rest[0], GROUPS[name], f"imprint {name} --help lists the verbs")
        name, rest = f"{name} {word}", rest[1:]
    try:
        args = verb_parser(name).parse(rest)
    except SystemExit:  # after --help; errors come as UsageError
        return 0
    console.configure(args)
    return verb_module(name).run(args, console)


def _known(word: str, verbs: Mapping[str, str], advice: str) -> str:
    """The word, if it is a verb."""
    if word in verbs:
        return word
    import difflib  # only for the wrong word

    close = difflib.get_close_matches(word, verbs, n=1)
    raise UsageError(
        f"expected a verb, found {word!r}",
        advice=f"did you mean {close[0]}?" if close else advice,
    )


def _overview() -> str:
    return (
        "usage: imprint VERB SOURCE TARGET [options]\n\n"
        f"verbs:\n{_listed(VERBS)}\n\n"
        "imprint VERB --help shows a verb's options and examples.\n"
    )


def _group_overview(group: str) -> str:
    return (
        f"usage: imprint {group} VERB ... [options]\n\n"
        f"{group}: {VERBS[group]}.\n\n"
        f"verbs:\n{_listed(GROUPS[group])}\n\n"
        f"imprint {group} VERB --help shows a verb's options and examples.\n"
    )


def _listed(verbs: Mapping[str, str]) -> str:
    width = max(map(len, verbs))
    return "\n".join(f"  {name:<{width}}  {what}" for name, what in verbs.items())


def _catch_signals(console: Console) -> None:
    """Ctrl-C and kill stop at the next span, tidily; a second one stops at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if console.cancel.is_cancelled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        console.interrupt()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever starts us with a signal ignored, as nohup does, means that.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
