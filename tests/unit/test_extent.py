"""The algebra of extents: cutting, joining and clipping never change what a range is."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.extent import Extent, Kind, coalesce, cut
from imprint.storage.memory import MemoryStorage

STORAGE = MemoryStorage(bytes(64))
OTHER = MemoryStorage(bytes(64))


class Byte(NamedTuple):
    """What one byte of a disk is: the finest form of a map, in which all maps compare."""

    offset: int
    kind: Kind
    storage: int | None
    where: int


def spread(extents: list[Extent]) -> list[Byte]:
    """A map, byte by byte."""
    return [
        Byte(
            extent.offset + step,
            extent.kind,
            None if extent.storage is None else id(extent.storage),
            extent.storage_offset + (step if extent.kind is Kind.DATA else 0),
        )
        for extent in extents
        for step in range(extent.length)
    ]


@st.composite
def maps(draw: st.DrawFn) -> list[Extent]:
    """Contiguous extents from somewhere on."""
    position = draw(st.integers(0, 100))
    found = []
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(Kind))
        length = draw(st.integers(1, 9))
        storage = None
        where = 0
        if kind in (Kind.DATA, Kind.ENCODED):
            storage = draw(st.sampled_from([STORAGE, OTHER]))
            where = draw(st.integers(0, 20)) if kind is Kind.DATA else 7
        found.append(Extent(position, length, kind, storage, where))
        position += length
    return found


@given(maps(), st.integers(1, 12))
def test_cutting_changes_nothing_but_borders(extents: list[Extent], size: int) -> None:
    """Fails if a piece crosses a border, is empty, or lies elsewhere in the storage."""
    pieces = list(cut(extents, size))
    assert spread(pieces) == spread(extents)
    for piece in pieces:
        assert piece.length > 0
        assert piece.offset // size == (piece.end - 1) // size


@given(maps())
def test_joining_changes_nothing_but_borders(extents: list[Extent]) -> None:
    """Fails if two runs are joined that do not go on in the storage, or could have been."""
    joined = list(coalesce(extents))
    assert spread(joined) == spread(extents)
    for first, second in itertools.pairwise(joined):
        assert not second.follows(first)


@given(maps(), st.integers(1, 12))
def test_joining_undoes_cutting(extents: list[Extent], size: int) -> None:
    """Fails if a run that was cut cannot be told to be one."""
    assert list(coalesce(cut(extents, size))) == list(coalesce(extents))


@given(maps(), st.integers(0, 120), st.integers(1, 120))
def test_clipping_keeps_the_part_inside(extents: list[Extent], start: int, length: int) -> None:
    """Fails if a clipped extent points to other bytes than the whole one did."""
    end = start + length
    inside = [extent for extent in extents if extent.offset < end and start < extent.end]
    clipped = [extent.clip(start, end) for extent in inside]
    assert spread(clipped) == [byte for byte in spread(extents) if start <= byte.offset < end]


def test_clipping_data_moves_its_storage_offset() -> None:
    """Fails if the arithmetic is off by anything: 10 + (105 - 100) = 15."""
    extent = Extent(100, 20, Kind.DATA, STORAGE, 10)
    assert extent.clip(105, 112) == Extent(105, 7, Kind.DATA, STORAGE, 15)


def test_clipping_encoded_keeps_the_unit_s_place() -> None:
    """Fails if half a compressed unit is looked for in the middle of its bytes."""
    extent = Extent(100, 20, Kind.ENCODED, STORAGE, 10)
    assert extent.clip(105, 112) == Extent(105, 7, Kind.ENCODED, STORAGE, 10)


@pytest.mark.parametrize(
    ("second", "joins"),
    [
        (Extent(10, 5, Kind.DATA, STORAGE, 30), True),
        (Extent(10, 5, Kind.DATA, STORAGE, 31), False),
        (Extent(10, 5, Kind.DATA, OTHER, 30), False),
        (Extent(11, 5, Kind.DATA, STORAGE, 31), False),
        (Extent(10, 5, Kind.HOLE), False),
    ],
)
def test_data_goes_on_only_in_the_same_place(second: Extent, joins: bool) -> None:
    """Fails if neighbours on the disk are joined that are none in the file."""
    first = Extent(0, 10, Kind.DATA, STORAGE, 20)
    assert second.follows(first) is joins
    assert len(list(coalesce([first, second]))) == (1 if joins else 2)


def test_nothing_stays_nothing() -> None:
    """Fails if an empty map gives an extent."""
    assert list(coalesce([])) == []
    assert list(cut([], 10)) == []
