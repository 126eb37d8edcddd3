"""Which units of a file are in use: what checks find, and what writers are given."""

from __future__ import annotations

import pytest

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.usage import FINDINGS_MAX, UNITS_MAX, Usage, findings
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage


def test_a_range_is_taken_once_and_inside_the_file() -> None:
    """Fails if a shared place, an odd one, or one behind the end passes."""
    usage = Usage(MemoryStorage(bytes(1000)), 100)
    assert usage.take(0, 250) is None
    assert "twice" in (usage.take(200, 100) or "")
    assert "whole units" in (usage.take(350, 100) or "")
    assert "inside the file" in (usage.take(1000, 1) or "")
    assert usage.take(900, 200) is None  # the last ones may be cut off
    assert "inside the file" in (usage.take(800, 300, whole=True) or "")
    assert usage.free == 6


def test_free_units_are_used_before_the_file_grows() -> None:
    """Fails if a unit is given away twice, or one in the middle is never used again."""
    usage = Usage(MemoryStorage(bytes(1000)), 100)
    assert usage.take(0, 1000) is None
    assert usage.release([300, 400, 900]) == [300, 400]
    assert usage.end == 900
    assert usage.reserve(3) == (300, 2)
    assert usage.reserve(3) == (900, 3)
    assert usage.release([500]) == [500]
    assert usage.reserve(2, whole=True) == (1200, 2)
    assert usage.reserve(9) == (500, 1)
    assert usage.end == 1400


def test_a_file_of_too_many_units_is_refused() -> None:
    """Fails if memory is taken for a sparse file of any length."""

    class Huge(CountingStorage):
        size = UNITS_MAX + 1

    with pytest.raises(UnsupportedFeatureError, match="too large to be checked"):
        Usage(Huge(MemoryStorage()), 1)


def test_long_lists_are_cut_off_and_counted() -> None:
    """Fails if a table of garbage prints millions of lines."""
    found = list(findings(("here", str(number)) for number in range(FINDINGS_MAX + 7)))
    assert len(found) == FINDINGS_MAX + 1
    assert found[-1].what.startswith("and 7 more")
