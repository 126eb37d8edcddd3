"""The reference pages say what the program does: neither more nor less."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imprint.cli.parsers import all_verbs, verb_module, verb_parser
from imprint.core import errors

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
VERBS = all_verbs()
REFERENCE = ROOT / "docs" / "reference"
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def generator() -> ModuleType:
    """``docs/generate.py``, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_a_verb_is_what_its_parser_says(verb: str) -> None:
    """Fails if somebody changed a parser and did not run ``python docs/generate.py``."""
    made = generator()
    text = made.path_of(verb).read_text(encoding="utf-8")
    assert text.startswith(made.page(verb))
    by_hand = text.removeprefix(made.page(verb))
    assert by_hand.strip(), "what the verb does in the end, and its result, are not described"


def test_the_index_lists_every_verb() -> None:
    """Fails if a page cannot be found from the index."""
    made = generator()
    assert (REFERENCE / "README.md").read_text(encoding="utf-8") == made.index()
    pages = {path.stem for path in REFERENCE.glob("*.md")}
    assert pages == {
        *(made.path_of(verb).stem for verb in VERBS),
        "README",
        "addresses",
        "exit-codes",
    }


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_on_the_page_and_back(verb: str) -> None:
    """Fails if an option is not described, or one is described that there is not."""
    text = generator().path_of(verb).read_text(encoding="utf-8")
    generated, _, by_hand = text.partition("<!--")
    declared = _options(verb)
    elsewhere = {option for other in VERBS for option in _options(other)}
    for option in declared:
        assert re.search(rf"`{option}[` ]", generated), option
    assert set(_OPTION.findall(generated)) <= declared
    assert set(_OPTION.findall(by_hand)) <= elsewhere


def test_examples_are_parsed_by_their_verb() -> None:
    """Fails if an example in the help has a typing error in an option."""
    for verb in VERBS:
        for line in verb_module(verb).EXAMPLES.splitlines():
            command = line.strip().partition("   ")[0]
            for part in re.split(r"[|>]", command):
                words = shlex.split(part) if part.count("'") % 2 == 0 else []
                name = ["imprint", *verb.split()]
                if words[: len(name)] == name:
                    verb_parser(verb).parse(words[len(name) :])


def test_every_exit_code_is_documented() -> None:
    """Fails if an error ends the program with a code that nobody has described."""
    text = (REFERENCE / "exit-codes.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    codes = {
        item.exit_code
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, errors.ImagingError)
    }
    assert codes <= documented
    assert {0, 1, 6} <= documented


def test_links_between_pages_lead_somewhere() -> None:
    """Fails if a page was renamed and another one still points to it."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} -> {target}"


def _options(verb: str) -> set[str]:
    """What a verb declares, but for ``--help``."""
    return {
        option
        for action in verb_parser(verb).declared
        if action.dest != "help"
        for option in action.option_strings
    }
