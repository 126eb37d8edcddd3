"""Unions of many sets: exact as long as that is affordable, and never too small."""

from __future__ import annotations

import random

import pytest

from imprint.core.runs import Runs
from imprint.filesystems import collected
from imprint.filesystems.collected import CollectedRuns


def numbers(runs: Runs) -> set[int]:
    return {number for start, length in runs for number in range(start, start + length)}


def bits_at(bits: bytes, count: int) -> set[int]:
    return {index for index in range(count) if bits[index // 8] >> index % 8 & 1}


def test_what_is_added_is_there_and_nothing_else() -> None:
    """Fails if pieces of a bitmap are put to the wrong place, or bits behind its end count."""
    dice = random.Random(1)
    found, expected = CollectedRuns(), set()
    for first in (0, 1000, 7000):
        bits = dice.randbytes(101)
        found.add_bits(bits, first, 803)
        expected |= {first + index for index in bits_at(bits, 803)}
    found.add(Runs.of([(500, 600)]))
    expected |= set(range(500, 1100))
    assert numbers(found.runs()) == expected
    assert not found.is_coarse


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_beyond_the_limit_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Fails if the number of runs is bounded by leaving something out."""
    monkeypatch.setattr(collected, "RUN_COUNT_MAX", limit)
    dice = random.Random(2)
    found, expected = CollectedRuns(), set()
    for first in range(0, 9 * 4096, 4096):
        bits = bytes(dice.choice((0, 0, 0, 0, 1, 255)) for _ in range(dice.choice((5, 64, 511))))
        count = 8 * len(bits) - 3
        found.add_bits(bits, first, count)
        expected |= {first + index for index in bits_at(bits, count)}
    runs = found.runs()
    assert expected <= numbers(runs)
    assert len(runs) <= limit
