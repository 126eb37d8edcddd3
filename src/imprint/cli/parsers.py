"""The parser of each verb: for running it, its help, its page, and completion."""

from __future__ import annotations

import argparse
import importlib
import keyword
import re
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from imprint.cli.verbs import GROUPS, VERBS
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    from imprint.cli.console import Console


class Verb(Protocol):
    """What a module in ``cli/commands`` offers."""

    EXAMPLES: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace, console: Console) -> int:
        """Do it; returns the exit code."""


class Parser(argparse.ArgumentParser):
    """Errors in the same one line as all others; ``-1G`` is a value, as it is for ``resize``.

    Attributes:
        declared: all arguments, in order.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        self.declared: list[argparse.Action] = []
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"-\d")

    def add_argument(self, *args: Any, **options: Any) -> argparse.Action:  # noqa: ANN401 - the same
        """Declare an argument."""
        action = super().add_argument(*args, **options)
        self.declared.append(action)
        return action

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """What was given, with options before, between and behind the other arguments.

        ``parse_args`` gives an argument that may be missing, or be there several times, only
        what stands before the next option.

        Raises:
            UsageError: if it is not what was declared.
        """
        if "--" in arguments:  # which the other one forgets
            return self.parse_args(arguments)
        return self.parse_intermixed_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Refuse what was given.

        Raises:
            UsageError: always.
        """
        raise UsageError(message, advice=f"{self.prog} --help shows how it is used")


def all_verbs() -> dict[str, str]:
    """What can be run, and what it does: instead of a group, the verbs in it."""
    found = {}
    for name, what in VERBS.items():
        if name in GROUPS:
            found.update({f"{name} {part}": what for part, what in GROUPS[name].items()})
        else:
            found[name] = what
    return found


def verb_module(name: str) -> Verb:
    """Import the module of a verb, also of one in a group: ``repo init``."""
    path = name.replace(" ", ".").replace("-", "_")
    reserved = "_" if keyword.iskeyword(path.rpartition(".")[2]) else ""
    return importlib.import_module(f"imprint.cli.commands.{path}{reserved}")


def verb_parser(name: str) -> Parser:
    """The parser of one verb, its help with the examples at the end."""
    module = verb_module(name)
    parser = Parser(
        prog=f"imprint {name}",
        description=f"{name}: {all_verbs()[name]}.",
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return parser
