"""What L2 entries say: runs of one kind in a slice of an L2 table.

The unit of a run is the grain: a cluster, or a subcluster where entries are extended. These
are the loops that every lookup goes through, hence plain functions of plain arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.extent import Kind
from imprint.formats.qcow2.layout import (
    COMPRESSED,
    COPIED,
    L2_RESERVED,
    OFFSET_MASK,
    SUBCLUSTERS,
    ZERO,
)

if TYPE_CHECKING:
    import array

_NOT_A_PLACE: Final = (1 << 64) - 1 - (OFFSET_MASK | COPIED)
_ALL: Final = (1 << SUBCLUSTERS) - 1


class Run(NamedTuple):
    """A run of grains of one kind.

    Attributes:
        kind: of all of them.
        host: of ``DATA``: where the first one's bytes begin; else 0.
        grains: how many.
    """

    kind: Kind
    host: int
    grains: int


def standard_run(table: array.array[int], index: int, limit: int, cluster_size: int) -> Run:
    """The run of at most ``limit`` clusters from entry ``index`` on. 35 ns per cluster.

    Raises:
        CorruptImageError: if the entry breaks a rule that concerns reading.
    """
    entry = table[index]
    # No slices of the array: they would copy up to 64 KiB for the shortest run.
    rest = memoryview(table)[index + 1 : index + limit]
    count = 1
    if entry == 0:
        for other in rest:
            if other:
                break
            count += 1
        return Run(Kind.HOLE, 0, count)
    if entry & COMPRESSED:
        for other in rest:
            if not other & COMPRESSED:
                break
            count += 1
        return Run(Kind.ENCODED, 0, count)
    if entry & _NOT_A_PLACE == ZERO:
        for other in rest:
            if other & _NOT_A_PLACE != ZERO:
                break
            count += 1
        return Run(Kind.ZERO, 0, count)
    check_place(entry, cluster_size)
    host = expected = entry & OFFSET_MASK
    for other in rest:
        expected += cluster_size
        if other & ~COPIED != expected:
            break
        count += 1
    return Run(Kind.DATA, host, count)


def copied_run(table: array.array[int], index: int, limit: int, cluster_size: int) -> Run | None:
    """As :func:`standard_run`, but only clusters that may be overwritten in place.

    ``ZERO``: they read as zeros, but have a place that was reserved for them.
    """
    entry = table[index]
    if not entry & COPIED or entry & COMPRESSED:
        return None
    check_place(entry, cluster_size)
    count, expected = 1, entry
    for other in memoryview(table)[index + 1 : index + limit]:
        expected += cluster_size
        if other != expected:
            break
        count += 1
    return Run(Kind.ZERO if entry & ZERO else Kind.DATA, entry & OFFSET_MASK, count)


def extended_run(
    table: array.array[int], index: int, sub: int, limit: int, cluster_size: int
) -> Run:
    """The run of at most ``limit`` subclusters from subcluster ``sub`` of entry ``index`` on.

    Raises:
        CorruptImageError: if the entry breaks a rule that concerns reading.
    """
    kind, host, count = _subclusters(table, index, sub, cluster_size)
    grain = cluster_size // SUBCLUSTERS
    while count < limit and (sub + count) % SUBCLUSTERS == 0:
        following = index + (sub + count) // SUBCLUSTERS
        if 2 * following >= len(table):
            break
        more = _subclusters(table, following, 0, cluster_size)
        if more.kind is not kind:
            break
        if kind is Kind.DATA and more.host != host + count * grain:
            break
        count += more.grains
    return Run(kind, host, min(count, limit))


def _subclusters(table: array.array[int], index: int, sub: int, cluster_size: int) -> Run:
    """The run from subcluster ``sub`` on, inside one cluster."""
    entry, bitmap = table[2 * index], table[2 * index + 1]
    if entry & COMPRESSED:
        return Run(Kind.ENCODED, 0, SUBCLUSTERS - sub)
    allocated, zero = bitmap & _ALL, bitmap >> SUBCLUSTERS
    if allocated & zero:
        raise CorruptImageError(
            f"subcluster bitmap: expected no bit both allocated and zero, found 0x{bitmap:016x}"
        )
    if zero >> sub & 1:
        return Run(Kind.ZERO, 0, _ones(zero >> sub))
    if not allocated >> sub & 1:
        return Run(Kind.HOLE, 0, _ones((~(allocated | zero) & _ALL) >> sub))
    if entry & ZERO:
        raise CorruptImageError(
            f"extended L2 entry: expected bit 0 to be clear, found 0x{entry:016x}"
        )
    check_place(entry, cluster_size)
    host = (entry & OFFSET_MASK) + sub * (cluster_size // SUBCLUSTERS)
    return Run(Kind.DATA, host, _ones(allocated >> sub))


def check_place(entry: int, cluster_size: int) -> None:
    """Refuse an entry of a standard cluster that cannot be where one is.

    An offset of 0 with the COPIED bit is where an external data file begins; the layer knows
    whether there is one.

    Raises:
        CorruptImageError: if it has reserved bits or no aligned offset.
    """
    if entry & L2_RESERVED:
        raise CorruptImageError(
            f"L2 entry: expected reserved bits to be clear, found 0x{entry:016x}"
        )
    offset = entry & OFFSET_MASK
    if offset % cluster_size or (offset == 0 and not entry & COPIED):
        raise CorruptImageError(
            f"L2 entry: expected an offset that is a multiple of the cluster size, "
            f"found 0x{entry:016x}"
        )


def _ones(bits: int) -> int:
    """How many of the lowest bits are set without a gap."""
    return (~bits & bits + 1).bit_length() - 1
