"""What was tried of a medium, and the file that keeps it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.transfer.rescue import mapfile
from imprint.transfer.rescue.states import Areas, State, find

SIZE = 60

RANGES = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted)
CHANGES = st.lists(st.tuples(RANGES, st.sampled_from(State)), max_size=30)


def _areas(changes: list[tuple[list[int], State]]) -> tuple[Areas, list[State]]:
    areas, model = Areas(SIZE), [State.UNTRIED] * SIZE
    for (start, end), state in changes:
        areas.set(start, end, state)
        model[start:end] = [state] * (end - start)
    return areas, model


@given(CHANGES)
def test_areas_are_as_an_array_of_states(changes: list[tuple[list[int], State]]) -> None:
    """Fails if a change reaches too far, or neighbours of one state are two runs."""
    areas, model = _areas(changes)
    found = list(areas)
    assert [state for _, length, state in found for _ in range(length)] == model
    assert all(one[2] is not two[2] for one, two in itertools.pairwise(found))
    for state in State:
        assert areas.total(state) == model.count(state)


@given(CHANGES, RANGES, st.integers(0, SIZE), st.booleans())
def test_the_next_area_is_the_nearest(
    changes: list[tuple[list[int], State]], wanted: list[int], position: int, forward: bool
) -> None:
    """Fails if a pass leaves something out, or reads outside of what is wanted."""
    areas, model = _areas(changes)
    domain = Runs.of([(wanted[0], wanted[1] - wanted[0])])
    found = find(areas, State.BAD, domain, position, forward=forward)
    hits = [
        index
        for index in range(*wanted)
        if model[index] is State.BAD and (index >= position if forward else index < position)
    ]
    if not hits:
        assert found is None
        return
    assert found is not None
    assert set(range(*found)) <= set(hits)
    assert (found[0] == hits[0]) if forward else (found[1] - 1 == hits[-1])


@given(CHANGES)
def test_a_map_that_is_read_again_is_the_same(changes: list[tuple[list[int], State]]) -> None:
    """Fails if a rescue that goes on does not know what was read."""
    areas, _ = _areas(changes)
    progress = mapfile.Progress(17, "/", 3)
    again, where = mapfile.parse(mapfile.render(areas, progress), name="map")
    assert list(again) == list(areas)
    assert where == progress


def test_the_map_is_in_ddrescue_syntax() -> None:
    """Fails if ddrescue would not read it: the lines are those of its manual's example form."""
    areas = Areas(4096)
    areas.set(0, 4096, State.GOOD)
    areas.set(512, 1024, State.BAD)
    text = mapfile.render(areas, mapfile.Progress(4096, "+", 1))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "0x00001000     +               1",
        "0x00000000  0x00000200  +",
        "0x00000200  0x00000200  -",
        "0x00000400  0x00000C00  +",
    ]


def test_numbers_may_be_decimal_and_octal_and_the_pass_absent() -> None:
    """Fails if the maps of other tools, and of old versions, cannot be gone on with."""
    text = "# Rescue Logfile.\n1024 ?\n0 01000 +  # octal\n512 0x200 *\n"
    areas, progress = mapfile.parse(text, name="map", size=2048)
    assert list(areas) == [
        (0, 512, State.GOOD),
        (512, 512, State.UNTRIMMED),
        (1024, 1024, State.UNTRIED),
    ]
    assert progress == mapfile.Progress(1024, "?", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 ? 1\n0 10 x\n",
        "0 ? 1\n0 10 +\n20 10 +\n",
        "0 ? 1\n0 0 +\n",
        "0 ? 1\n0 -5 +\n",
        "0 Q 1\n",
        "0 ? 1\n0 5000 +\n",
        "0 ? 1\n0 10\n",
    ],
)
def test_what_is_no_map_of_this_medium_is_refused(text: str) -> None:
    """Fails if a wrong map makes unread areas pass for read ones."""
    with pytest.raises(CorruptImageError):
        mapfile.parse(text, name="map", size=4096)
