"""Write the reference page of each verb from its parser: ``python docs/generate.py``.

A page is what its parser says, up to the line ``END``, and below it what only a person can
say: the keys of the result, what happens in the end. The second part is kept.
``tests/test_docs.py`` fails while a page is not what this would write.
"""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli.parsers import all_verbs, verb_module, verb_parser

if TYPE_CHECKING:
    import argparse

FOLDER: Final = Path(__file__).resolve().parent / "reference"
END: Final = "<!-- Above: made by docs/generate.py from the parser. Below: written by hand. -->"
_INDEX: Final = "README.md"
_INDEX_HEAD: Final = """\
# Reference

`imprint VERB SOURCE TARGET [options]`. Results go to standard output, everything else to standard
error; `--json` makes the result JSON. What names a disk: [addresses](addresses.md). What the
program ends with: [exit codes](exit-codes.md).

| verb | does |
| --- | --- |
"""


def page(verb: str) -> str:
    """The part of a verb's page that its parser says, the line ``END`` included."""
    parser, what = verb_parser(verb), all_verbs()[verb]
    positionals = [action for action in parser.declared if not action.option_strings]
    options = [
        action for action in parser.declared if action.option_strings and action.dest != "help"
    ]
    parts = [
        f"# imprint {verb}",
        f"{what[0].upper()}{what[1:]}{'' if what.endswith('?') else '.'}",
        f"```\n{_synopsis(verb, positionals)}\n```",
    ]
    if positionals:
        rows = [f"| `{_name(action)}` | {_meaning(action)} |" for action in positionals]
        parts.append("\n".join(["| argument | is |", "| --- | --- |", *rows]))
    rows = [f"| {_spelling(action)} | {_meaning(action)} |" for action in options]
    parts.append("\n".join(["| option | does |", "| --- | --- |", *rows]))
    parts.append(f"```sh\n{_examples(verb)}\n```")
    parts.append(END)
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The list of all pages."""
    rows = [f"| [{verb}]({path_of(verb).name}) | {what} |" for verb, what in all_verbs().items()]
    return _INDEX_HEAD + "\n".join(rows) + "\n"


def path_of(verb: str) -> Path:
    """Where the page of a verb is."""
    return FOLDER / f"{verb.replace(' ', '-')}.md"


def main() -> None:
    """Write all pages."""
    (FOLDER / _INDEX).write_text(index(), encoding="utf-8")
    for verb in all_verbs():
        path = path_of(verb)
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        by_hand = old.partition(f"{END}\n")[2]
        path.write_text(page(verb) + by_hand, encoding="utf-8")


def _synopsis(verb: str, positionals: list[argparse.Action]) -> str:
    marks = {"?": "[{}]", "+": "{}..."}
    words = [marks.get(str(item.nargs), "{}").format(_name(item)) for item in positionals]
    return " ".join([f"imprint {verb}", *words, "[options]"])


def _name(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    return name.upper()


def _meaning(action: argparse.Action) -> str:
    text = action.help or ""
    if action.choices is not None:
        allowed = ", ".join(f"`{choice}`" for choice in action.choices)
        text = f"{text}: {allowed}" if text else allowed
    return text.replace("%%", "%").replace("|", "\\|")


def _spelling(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        value = f" {_name(action)}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _examples(verb: str) -> str:
    """As in ``--help``, but what explains a line is a comment in it."""
    lines = []
    for line in verb_module(verb).EXAMPLES.splitlines():
        command, gap, rest = line.strip().partition("   ")
        remark = rest.lstrip()
        space = gap + rest[: len(rest) - len(remark)]
        lines.append(f"{command}{space}# {remark}" if remark else command)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
