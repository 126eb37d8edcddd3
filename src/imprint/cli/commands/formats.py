"""formats: what can be read, written and checked; a format's options."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from imprint import formats
from imprint.cli.console import format_value
from imprint.cli.options import add_json
from imprint.endpoints.appliance import kinds

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.core.formats import Format, Option
    from imprint.endpoints.appliance.kinds import PackageKind

EXAMPLES = """\
  imprint formats
  imprint formats qcow2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/formats.md`` lists them too."""
    parser.add_argument("name", nargs="?", help="of a format whose options are to be shown")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """List."""
    if args.name is not None:
        format_ = kinds.by_name(args.name) or formats.get(args.name)
        _print_one(format_, console)
        console.result(**_json(format_), options=[_option_json(item) for item in format_.options])
        return 0
    known: list[Format | PackageKind] = [formats.get(name) for name in formats.names()]
    known += kinds.KINDS
    abilities = list(asdict(known[0].support))
    rows = [("format", "suffixes", *abilities)]
    for format_ in known:
        marks = ["yes" if able else "-" for able in asdict(format_.support).values()]
        rows.append((format_.name, " ".join(_words(format_)[0]), *marks))
    console.table(rows)
    console.result(formats=[_json(format_) for format_ in known])
    return 0


def _words(format_: Format | PackageKind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Suffixes and aliases."""
    if isinstance(format_, kinds.PackageKind):
        return format_.suffixes, ()
    entry = formats.entry(format_.name)
    return entry.suffixes, entry.aliases


def _json(format_: Format | PackageKind) -> dict[str, object]:
    suffixes, aliases = _words(format_)
    return {
        "name": format_.name,
        "title": format_.title,
        "suffixes": list(suffixes),
        "aliases": list(aliases),
        **asdict(format_.support),
    }


def _option_json(item: Option) -> dict[str, object]:
    return {
        "name": item.name,
        "kind": item.kind.value,
        "default": item.default,
        "choices": list(item.choices),
        "doc": item.doc,
    }


def _print_one(format_: Format | PackageKind, console: Console) -> None:
    suffixes, aliases = _words(format_)
    able = [name for name, is_able in asdict(format_.support).items() if is_able]
    console.print(f"{format_.name}: {format_.title}")
    console.facts(
        [
            ("suffixes", " ".join(suffixes)),
            ("aliases", " ".join(aliases)),
            ("can", ", ".join(able)),
        ]
    )
    if format_.options:
        console.print("options, as -o NAME=VALUE")
        console.table([_option_row(item) for item in format_.options])


def _option_row(item: Option) -> tuple[str, str, str]:
    allowed = "|".join(map(format_value, item.choices)) or item.kind.value
    default = f" (default: {format_value(item.default)})" if item.default is not None else ""
    return f"  {item.name}", allowed, f"{item.doc}{default}"
