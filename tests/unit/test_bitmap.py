"""Bitmaps, against Python's own sets of numbers."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core import bitmap
from imprint.core.bitmap import (
    complement,
    count_bits,
    runs_of_bits,
    set_bits,
)

# Long equal stretches and lone bytes, as bitmaps have them, around the lengths at which the
# search changes its ways: 32 bytes are a stretch, 1 KiB is written as text, 16 KiB is a piece.
STRETCHES = st.tuples(
    st.sampled_from([b"\0", b"\xff", b"\x01", b"\x80", b"\xfe", b"\x7f", b"\x55"]),
    st.sampled_from([1, 2, 31, 32, 33, 1023, 1024, 1025]),
).map(lambda item: item[0] * item[1])
BITMAPS = st.lists(st.one_of(st.binary(max_size=40), STRETCHES), max_size=8).map(b"".join)


def is_set(data: bytes, bit: int, *, lsb_first: bool) -> bool:
    shift = bit % 8 if lsb_first else 7 - bit % 8
    return bool(data[bit // 8] >> shift & 1)


def naive(data: bytes, first: int, count: int, *, lsb_first: bool) -> list[tuple[int, int]]:
    """Bit by bit."""
    runs: list[tuple[int, int]] = []
    for bit in range(first, first + count):
        if not is_set(data, bit, lsb_first=lsb_first):
            continue
        if runs and sum(runs[-1]) == bit:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((bit, 1))
    return runs


@settings(max_examples=200)
@given(data=BITMAPS, lsb_first=st.booleans(), edges=st.tuples(st.integers(0), st.integers(0)))
def test_runs_are_those_that_a_look_at_each_bit_finds(
    data: bytes, edges: tuple[int, int], *, lsb_first: bool
) -> None:
    """Otherwise blocks that are in use would not be copied."""
    bits = len(data) * 8
    first, end = sorted(edge % (bits + 1) for edge in edges)
    found = list(runs_of_bits(data, first, end - first, lsb_first=lsb_first))
    assert found == naive(data, first, end - first, lsb_first=lsb_first)


@pytest.mark.parametrize("lsb_first", [True, False])
@pytest.mark.parametrize("start", [0, 5, 16384 * 8 - 1, 16384 * 8, 16384 * 8 + 1])
@pytest.mark.parametrize("length", [1, 8, 1000, 16384 * 8, 3 * 16384 * 8 + 3])
def test_a_run_over_several_pieces_is_one(start: int, length: int, *, lsb_first: bool) -> None:
    """Pieces are searched one by one, which nobody may see."""
    data = bytearray(5 * 16384)
    set_bits(data, start, length, lsb_first=lsb_first)
    assert count_bits(data) == length
    assert list(runs_of_bits(data, 0, len(data) * 8, lsb_first=lsb_first)) == [(start, length)]


@given(data=st.binary(max_size=12), lsb_first=st.booleans())
def test_bits_that_are_set_run_by_run_give_the_bitmap_back(data: bytes, *, lsb_first: bool) -> None:
    made = bytearray(len(data))
    for start, length in runs_of_bits(data, 0, len(data) * 8, lsb_first=lsb_first):
        set_bits(made, start, length, lsb_first=lsb_first)
    assert made == data


@given(data=st.binary(max_size=12))
def test_a_bitmap_is_counted_and_complemented_bit_by_bit(data: bytes) -> None:
    assert complement(data) == bytes(byte ^ 255 for byte in data)
    assert count_bits(data) == sum(byte >> bit & 1 for byte in data for bit in range(8))


def test_ranges_outside_of_the_bitmap_are_refused() -> None:
    """Sizes come from images: a range too long must not be cut off silently."""
    for first, count in ((0, 9), (8, 1), (-1, 2), (0, -1)):
        with pytest.raises(ValueError, match="inside 8 bits"):
            runs_of_bits(b"\0", first, count)
        with pytest.raises(ValueError, match="inside 8 bits"):
            set_bits(bytearray(1), first, count)


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(bitmap).failed == 0
