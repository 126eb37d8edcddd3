"""Sets of bytes, against Python's own sets of numbers."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from imprint.core import runs as runs_module
from imprint.core.runs import Runs

SIZE = 64

pairs = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 12)), max_size=12)


def numbers(runs: Runs) -> set[int]:
    return {number for start, length in runs for number in range(start, start + length)}


def model(items: list[tuple[int, int]]) -> set[int]:
    return {number for start, length in items for number in range(start, start + length)}


def assert_is_canonical(runs: Runs) -> None:
    position = -1
    for start, length in runs:
        assert start > position
        assert length > 0
        position = start + length


@given(items=pairs)
def test_runs_hold_what_they_were_made_of(items: list[tuple[int, int]]) -> None:
    runs = Runs.of(items)
    assert_is_canonical(runs)
    assert numbers(runs) == model(items)
    assert runs.total == len(model(items))
    assert runs.end == max(model(items), default=-1) + 1


@given(first=pairs, second=pairs)
def test_sets_are_united_cut_and_subtracted_as_sets_are(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    a, b = Runs.of(first), Runs.of(second)
    for result, expected in (
        (a | b, model(first) | model(second)),
        (a & b, model(first) & model(second)),
        (a - b, model(first) - model(second)),
    ):
        assert_is_canonical(result)
        assert numbers(result) == expected


@given(items=pairs, size=st.integers(0, SIZE + 16))
def test_the_complement_is_all_that_is_not_there(items: list[tuple[int, int]], size: int) -> None:
    result = Runs.of(items).complement(size)
    assert_is_canonical(result)
    assert numbers(result) == set(range(size)) - model(items)


@given(items=pairs, start=st.integers(0, SIZE), length=st.integers(0, SIZE))
def test_a_range_is_cut_out_and_told_to_be_covered(
    items: list[tuple[int, int]], start: int, length: int
) -> None:
    runs = Runs.of(items)
    inside = set(range(start, start + length))
    assert numbers(runs.clip(start, start + length)) == model(items) & inside
    assert runs.covers(start, length) == (inside <= model(items))


@given(items=pairs, unit=st.integers(1, 9), distance=st.integers(0, 9))
def test_units_are_scaled_shifted_and_rounded(
    items: list[tuple[int, int]], unit: int, distance: int
) -> None:
    runs, held = Runs.of(items), model(items)
    scaled = {number * unit + rest for number in held for rest in range(unit)}
    assert numbers(runs.scaled(unit)) == scaled
    assert numbers(runs.shifted(distance)) == {number + distance for number in held}
    units = [set(range(at, at + unit)) for at in range(0, SIZE + 16 + unit, unit)]
    assert numbers(runs.widened(unit)) == set().union(*(u for u in units if u & held))
    assert numbers(runs.narrowed(unit)) == set().union(*(u for u in units if u <= held))


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(runs_module).failed == 0
