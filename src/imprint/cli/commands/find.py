"""find: find files in an image."""

from __future__ import annotations

import argparse
import fnmatch
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from imprint.cli import files, options
from imprint.filesystems.walking import walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.cli.console import Console
    from imprint.filesystems.tree import Entry

EXAMPLES = """\
  imprint find disk.qcow2#p2:/home --iname '*.jpg' --size +1M
  imprint find disk.qcow2#p2 --type f,l --newer 2026-11-01
  imprint find stick.img#p1 --deleted --type f --json
"""

_DAY_NS: Final = 86_400 * 1_000_000_000
_BY_LETTER: Final = {letter: kind for kind, letter in files.LETTERS.items()}


@dataclass(frozen=True)
class Bound:
    """``+N``: more than N; ``-N``: less; ``N``: just that."""

    sign: str
    value: int

    @classmethod
    def size(cls, text: str) -> Self:
        """Of bytes, as an argument."""
        return cls(*_signed(text, options.size))

    @classmethod
    def days(cls, text: str) -> Self:
        """Of days, as an argument."""
        return cls(*_signed(text, options.number(0, 1_000_000)))

    def holds(self, value: int) -> bool:
        """Whether a value is as wanted."""
        if self.sign == "+":
            return value > self.value
        return value < self.value if self.sign == "-" else value == self.value


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/find.md`` lists them too."""
    parser.add_argument("address", help="folder: IMAGE#p1:/PATH")
    parser.add_argument("--name", metavar="GLOB", help="the name is like this: *, ? and [...]")
    parser.add_argument("--iname", metavar="GLOB", help="the same, upper or lower case")
    parser.add_argument(
        "--size",
        metavar="SIZE",
        type=Bound.size,
        help="of the content: +1M is more than that, -1M less, 1M just that",
    )
    parser.add_argument(
        "--newer",
        metavar="TIME",
        type=_time,
        help="changed after that: 2026-11-20 or 2026-11-20T10:00, in UTC",
    )
    parser.add_argument(
        "--mtime",
        metavar="DAYS",
        type=Bound.days,
        help="changed so many days of 24 hours ago: +7 is more than that, -7 less",
    )
    parser.add_argument(
        "--type",
        metavar="LIST",
        type=_types,
        help="f for files, d folders, l links, c and b devices, p and s pipes and sockets",
    )
    files.add_arguments(parser, system=True)
    options.add_json(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Find: each as soon as it is known, in the order of the file system."""
    tests = _tests(args)
    with files.browser_of(args.address, args, console) as browser:
        place = files.place_in(browser, args.address, follow=True, deleted=args.deleted)
        for entry in walk(place.tree, place.entry, deleted=args.deleted):
            if files.wanted(entry, system=args.all) and all(test(entry) for test in tests):
                if console.is_json:
                    console.json_lines([files.json_line(entry)])
                else:
                    console.print(
                        files.name_of(entry._replace(target=None, streams=()), entry.path)
                    )
        return files.tell_notes(console, args.address, place.tree.notes)


def _tests(args: argparse.Namespace) -> list[Callable[[Entry], bool]]:
    """What an entry has to pass, the cheap ones first."""
    tests: list[Callable[[Entry], bool]] = []
    if args.type is not None:
        tests.append(lambda entry: entry.type in args.type)
    if args.size is not None:
        tests.append(lambda entry: args.size.holds(entry.size))
    if args.newer is not None:
        tests.append(lambda entry: (entry.times.modified or 0) > args.newer)
    if args.mtime is not None:
        now = time.time_ns()
        tests.append(
            lambda entry: (
                entry.times.modified is not None
                and args.mtime.holds((now - entry.times.modified) // _DAY_NS)
            )
        )
    if args.name is not None:
        like = re.compile(fnmatch.translate(args.name))
        tests.append(lambda entry: like.match(entry.name) is not None)
    if args.iname is not None:
        alike = re.compile(fnmatch.translate(args.iname), re.IGNORECASE)
        tests.append(lambda entry: alike.match(entry.name) is not None)
    return tests


def _signed(text: str, parse: Callable[[str], int]) -> tuple[str, int]:
    sign = text[:1] if text[:1] in ("+", "-") else ""
    return sign, parse(text[len(sign) :])


def _time(text: str) -> int:
    """In ns since 1970, as an argument."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a time like 2026-11-20T10:00, found {text!r:.80}"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - files.EPOCH) // timedelta(microseconds=1) * 1000


def _types(text: str) -> set[object]:
    try:
        return {_BY_LETTER[letter] for letter in text.split(",")}
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"expected a list of {', '.join(_BY_LETTER)}, found {text!r:.80}"
        ) from None
