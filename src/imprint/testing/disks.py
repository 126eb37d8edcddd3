"""Random disks, as the writes that make them.

A disk model is a list of :class:`Write`; :func:`imprint.testing.oracles.paint` turns it into
bytes. hypothesis is imported when a strategy is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.buffers import ZEROS, is_zero
from imprint.core.units import KIB

if TYPE_CHECKING:
    import random

    from hypothesis.strategies import SearchStrategy

    from imprint.core.contracts import Target

SECTOR_BYTES: Final = 512


class Write(NamedTuple):
    """``length`` times ``byte`` at ``offset``; both in bytes, inside the disk, never empty."""

    offset: int
    length: int
    byte: int


def writes(
    disk_size: int,
    *,
    length_max: int | None = None,
    count_max: int = 8,
    grain: int = 1,
    with_zeros: bool = False,
) -> SearchStrategy[list[Write]]:
    """Lists of writes for hypothesis, unit borders being as likely as anything else.

    Args:
        disk_size: in bytes.
        length_max: of one write; by default a quarter of the disk.
        count_max: writes in a list.
        grain: offsets and lengths are multiples of it.
        with_zeros: whether some writes are of zeros.
    """
    from hypothesis import strategies as st

    units = disk_size // grain
    longest = max(1, (length_max or disk_size // 4) // grain)
    powers = st.integers(0, max(0, units.bit_length() - 1)).map(lambda power: 1 << power)
    near = st.tuples(powers, st.integers(0, 64), st.integers(-1, 1)).map(
        lambda parts: min(max(0, parts[0] * parts[1] + parts[2]), units - 1)
    )
    offsets = st.one_of(st.integers(0, units - 1), near)
    lengths = st.one_of(st.integers(1, longest), powers.map(lambda power: min(power, longest)))

    def make(parts: tuple[int, int, int]) -> Write:
        offset, length, byte = parts
        return Write(offset * grain, min(length, units - offset) * grain, byte)

    values = st.integers(0 if with_zeros else 1, 255)
    return st.lists(st.tuples(offsets, lengths, values).map(make), max_size=count_max)


def random_writes(
    randomness: random.Random, disk_size: int, *, count: int = 6, grain: int = 1
) -> list[Write]:
    """One such list, from a generator with a known seed."""
    units = disk_size // grain
    found = []
    for _ in range(count):
        offset = randomness.randrange(units)
        length = randomness.randint(1, min(units - offset, max(1, units // 4)))
        found.append(Write(offset * grain, length * grain, randomness.randint(1, 255)))
    return found


def fill(target: Target, disk: bytes, *, step: int = 64 * KIB) -> None:
    """Write a whole disk in ascending order, runs of zeros as zeros; does not commit."""
    view = memoryview(disk)
    for start in range(0, len(disk), step):
        piece = view[start : start + step]
        if not is_zero(piece):
            target.write(piece, start)
        elif not target.traits.reads_zero:
            target.zero(start, len(piece))
    assert len(ZEROS) >= step
