"""Sizes as users write and read them, and rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import UsageError
from imprint.core.units import (
    GIB,
    KIB,
    MIB,
    TIB,
    align_down,
    align_up,
    div_up,
    format_size,
    parse_size,
)

GRAINS = st.integers(1, 1 << 40)
VALUES = st.integers(0, 1 << 60)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("64K", 64 * KIB),
        ("64k", 64 * KIB),
        ("10M", 10 * MIB),
        ("2G", 2 * GIB),
        ("1T", TIB),
        ("1.5G", 1536 * MIB),
        ("0.5K", 512),
        ("2TiB", 2 * TIB),
        ("3 MB", 3 * MIB),
        ("7B", 7),
        ("1P", 1 << 50),
        ("1E", 1 << 60),
        (" 5G ", 5 * GIB),
    ],
)
def test_a_size_means_powers_of_1024(text: str, size: int) -> None:
    """Fails if a disk gets another size than its user asked for."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "1.5", "1,5G", "1e9", "0x10", "12X", "1 2", "G1", "9" * 5000]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """Fails if a slip of the keyboard becomes a size."""
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (KIB, "1 KiB"),
        (1536, "1.5 KiB"),
        (MIB - 1, "1 MiB"),
        (MIB, "1 MiB"),
        (1536 * MIB, "1.5 GiB"),
        (5 * TIB, "5 TiB"),
    ],
)
def test_a_size_is_shown_in_its_largest_unit(size: int, text: str) -> None:
    """Fails if a user reads 1024 KiB, or a fraction of a byte."""
    assert format_size(size) == text


@given(st.integers(0, 1 << 62))
def test_what_is_shown_is_near_what_is(size: int) -> None:
    """Fails if the shown size is off by more than its last digit."""
    number, unit = format_size(size).split()
    factor = 1 if unit.startswith("byte") else 1 << (10 * ("KMGTPE".index(unit[0]) + 1))
    assert abs(float(number) * factor - size) <= 0.0501 * factor + 1


@given(VALUES, GRAINS)
def test_alignment_encloses_the_value(value: int, grain: int) -> None:
    """Fails if rounding is off at a multiple, or beside one."""
    low, high = align_down(value, grain), align_up(value, grain)
    assert low % grain == high % grain == 0
    assert low <= value <= high
    assert high - low == (0 if value % grain == 0 else grain)
    assert div_up(value, grain) * grain == high
