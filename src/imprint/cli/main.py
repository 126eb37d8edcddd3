"""The program: finds the verb, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, Protocol

from imprint import __version__
from imprint.cli.console import Console
from imprint.cli.verbs import VERBS
from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled, ImagingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_BROKEN_PIPE_EXIT = 141  # what a shell shows of a program that SIGPIPE has ended


class Verb(Protocol):
    """What a module in ``cli/commands`` offers."""

    EXAMPLES: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace, console: Console) -> int:
        """Do it; returns the exit code."""


class _Parser(argparse.ArgumentParser):
    """Errors in the same one line as all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, advice=f"{self.prog} --help shows how it is used")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    console = Console()
    cancel = CancelToken()
    console.cancel = cancel
    _catch_signals(cancel)
    try:
        return _run(arguments, console)
    except ImagingError as error:
        console.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        console.error(Cancelled("interrupted"))
        return Cancelled.exit_code
    except BrokenPipeError:
        # The reader of our output has gone: nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE_EXIT
    finally:
        console.close()


def verb_module(name: str) -> Verb:
    """Import the module of a verb."""
    return importlib.import_module(f"imprint.cli.commands.{name}")


def verb_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one verb, its help with the examples at the end."""
    module = verb_module(name)
    parser = _Parser(
        prog=f"imprint {name}",
        description=f"{name}: {VERBS[name]}.",
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return parser


def _run(arguments: list[str], console: Console) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[1] in VERBS:
            print(verb_parser(arguments[1]).format_help(), end="")
        else:
            print(_overview(), end="")
        return 0 if arguments else UsageError.exit_code
    if arguments[0] in ("-V", "--version"):
        print(f"imprint {__version__}")
        return 0
    name = arguments[0]
    if name not in VERBS:
        import difflib  # only for the wrong word

        close = difflib.get_close_matches(name, VERBS, n=1)
        advice = f"did you mean {close[0]}?" if close else "imprint --help lists the verbs"
        raise UsageError(f"expected a verb, found {name!r}", advice=advice)
    args = verb_parser(name).parse_args(arguments[1:])
    console.configure(args)
    return verb_module(name).run(args, console)


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {what}" for name, what in VERBS.items())
    return (
        "usage: imprint VERB SOURCE TARGET [options]\n\n"
        f"verbs:\n{verbs}\n\n"
        "imprint VERB --help shows a verb's options and examples.\n"
    )


def _catch_signals(cancel: CancelToken) -> None:
    """Ctrl-C and kill stop at the next span, tidily; a second one stops at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if cancel.is_cancelled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        cancel.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
