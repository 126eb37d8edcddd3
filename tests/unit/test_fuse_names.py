"""Names that a mounted file system can have, whatever an image says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.exports.fuse.names import Distinct, carried, encoded


@pytest.mark.parametrize("name", ["a", "ä b", "%", ".a", "...", "a" * 255, "\udcff.txt", "x~2"])
def test_a_name_that_is_one_stays_as_it_is(name: str) -> None:
    """Fails if files appear under other names than they have."""
    assert carried(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b", "a%2Fb"),
        ("../../etc", "..%2F..%2Fetc"),
        ("a\0b", "a%00b"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("", "%"),
        ("half \ud83d", "half %uD83D"),
    ],
)
def test_what_no_name_may_have_is_shown_by_its_number(name: str, shown: str) -> None:
    """Fails if a name leads out of its folder, or makes the kernel drop the whole listing."""
    assert carried(name) == shown


def test_long_names_are_cut_and_stay_different() -> None:
    """Fails if two names that differ only behind the cut become one."""
    first, second = carried("ß" * 200 + "1"), carried("ß" * 200 + "2")
    assert first != second
    assert first.startswith("ß" * 48)
    assert max(len(encoded(first)), len(encoded(second))) <= 255


def test_names_that_come_again_are_numbered() -> None:
    """Fails if one of two files of a damaged folder cannot be reached."""
    names = Distinct()
    assert [names.take(name) for name in ("a", "a", "a~2", "a", "b")] == [
        *("a", "a~2", "a~2~2", "a~3", "b")
    ]


def test_a_name_that_comes_very_often_takes_no_time() -> None:
    """Fails if a hostile folder costs the square of its length: this would be hours."""
    names = Distinct()
    last = [names.take("same") for _ in range(100_000)][-1]
    assert last == "same~100000"


@given(st.lists(st.text(max_size=8) | st.text("a~2/", max_size=4), max_size=30))
def test_all_names_can_be_carried_and_are_different(texts: list[str]) -> None:
    """Fails if there is a folder that FUSE cannot show."""
    names = Distinct()
    found = [names.take(text) for text in texts]
    assert len(set(found)) == len(found)
    for name in found:
        data = encoded(name)
        assert 0 < len(data) <= 255
        assert b"/" not in data
        assert b"\0" not in data
        assert data not in (b".", b"..")
