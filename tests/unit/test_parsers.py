"""Arguments of verbs, in any order."""

from __future__ import annotations

import itertools

import pytest

from imprint.cli.parsers import verb_parser
from imprint.core.errors import UsageError

LINES = [
    ("repo forget", ["place", "a@1234", "b@1234"], ["--dry-run", "--keep-last=3"]),
    ("repo list", ["place", "image"], ["--json"]),
    ("repo key", ["remove", "place", "8c1f"], ["--json", "--key-file=k"]),
    ("sparsify", ["a.qcow2", "b.qcow2"], ["--force", "--json"]),
    ("convert", ["a.vdi", "b.vdi", "c.ova"], ["-omemory=4G", "-ocpus=2"]),
    ("create", ["a.qcow2", "10M"], ["-Oqcow2", "--json"]),
    ("cat", ["a#p1:/x", "a#p1:/y"], ["-fraw"]),
    ("resize", ["a.qcow2", "-1G"], ["--shrink"]),
]


@pytest.mark.parametrize(("verb", "words", "options"), LINES, ids=[line[0] for line in LINES])
def test_options_may_stand_anywhere(verb: str, words: list[str], options: list[str]) -> None:
    """Fails if what follows an option is refused, or taken for something else."""
    expected = verb_parser(verb).parse([*options, *words])
    size = len(words) + len(options)
    for places in itertools.combinations(range(size), len(options)):
        rest, chosen = iter(words), iter(options)
        line = [next(chosen if at in places else rest) for at in range(size)]
        assert verb_parser(verb).parse(line) == expected, line


def test_names_like_options_follow_two_dashes() -> None:
    """Fails if a file whose name begins with a dash cannot be named."""
    assert verb_parser("cat").parse(["--", "-x", "--json"]).address == ["-x", "--json"]
    assert verb_parser("info").parse(["--json", "--", "-x"]).image == "-x"


def test_what_is_too_much_is_refused() -> None:
    """Fails if an argument is dropped in silence."""
    with pytest.raises(UsageError, match="unrecognized arguments: c"):
        verb_parser("capture").parse(["a", "--json", "b", "--force", "c"])
