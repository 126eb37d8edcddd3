"""File allocation tables, which FAT and exFAT have in common: chains of clusters.

Clusters are numbered from 2. An entry says which cluster comes next; 0 is free.
"""

from __future__ import annotations

import re
import sys
from array import array
from itertools import groupby
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_CLUSTER: Final = 2

_TAKEN: Final = re.compile(rb"[^\0]+")
_LOW_NIBBLE: Final = bytes(value & 0x0F for value in range(256))
_HIGH_NIBBLE: Final = bytes(value & 0xF0 for value in range(256))


def taken_clusters(table: bytes | bytearray, entry_bits: int, cluster_count: int) -> Runs:
    """Numbers of the clusters whose entry is not 0: in use, reserved or bad.

    The bytes of all entries are laid over each other by arithmetic with large numbers, so
    that a table of 100 MiB takes a second.

    Args:
        table: the first entry is that of cluster 0; it has an entry for each cluster.
        entry_bits: 12, 16 or 32; of 32 the upper four do not count.
        cluster_count: clusters in the data area, numbered from 2.
    """
    if entry_bits == 12:
        first, second, third = (bytes(table[at::3]) for at in range(3))
        even = folded(first, second.translate(_LOW_NIBBLE))
        odd = folded(second.translate(_HIGH_NIBBLE), third)
        marks = bytearray(2 * max(len(even), len(odd)))
        marks[0 : 2 * len(even) : 2] = even
        marks[1 : 2 * len(odd) : 2] = odd
    elif entry_bits == 16:
        marks = bytearray(folded(*(bytes(table[at::2]) for at in range(2))))
    else:
        columns = [bytes(table[at::4]) for at in range(4)]
        columns[3] = columns[3].translate(_LOW_NIBBLE)
        marks = bytearray(folded(*columns))
    end = FIRST_CLUSTER + cluster_count
    found = _TAKEN.finditer(marks, FIRST_CLUSTER, end)
    return Runs.of((match.start(), match.end() - match.start()) for match in found)


def folded(*columns: bytes) -> bytes:
    """A byte for each entry, 0 exactly if all of its bytes are."""
    size = max(len(column) for column in columns)
    number = 0
    for column in columns:
        number |= int.from_bytes(column, "little")
    return number.to_bytes(size, "little")


def entries_of(table: bytes | bytearray, entry_bits: int) -> array[int]:
    """The entries as numbers, for walking chains."""
    if entry_bits == 12:
        entries = array("I")
        for at in range(0, len(table) - 2, 3):
            number = int.from_bytes(table[at : at + 3], "little")
            entries.extend((number & 0xFFF, number >> 12))
        return entries
    entries = array("H" if entry_bits == 16 else "I")
    entries.frombytes(bytes(table[: len(table) // entries.itemsize * entries.itemsize]))
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


class Chains:
    """Follows chains; each cluster is given once, whoever else claims it."""

    def __init__(self, entries: array[int], cluster_count: int, *, mask: int, name: str) -> None:
        """``mask`` is what counts of an entry; ``name`` is the volume's, for errors."""
        self._entries = entries
        self._end = min(FIRST_CLUSTER + cluster_count, len(entries))
        self._mask = mask
        self._name = name
        self._seen = bytearray(self._end)

    def follow(self, first: int) -> Iterator[int]:
        """The clusters of a chain, up to its end mark, or to one that was there before.

        Raises:
            CorruptImageError: if it leads to a cluster that is free or does not exist.
        """
        cluster = first
        while not (FIRST_CLUSTER <= cluster < self._end and self._seen[cluster]):
            if not FIRST_CLUSTER <= cluster < self._end:
                raise CorruptImageError(
                    f"chain from cluster {first}: expected a cluster below {self._end}, "
                    f"found {cluster}",
                    name=self._name,
                )
            self._seen[cluster] = 1
            yield cluster
            cluster = self._entries[cluster] & self._mask
            if cluster > self._mask - 8:  # an end mark; the one below them all says bad
                return

    def take(self, first: int, count: int) -> bool:
        """Claim clusters that are one behind the other; whether they were not seen before.

        Raises:
            CorruptImageError: if some of them do not exist.
        """
        if first < FIRST_CLUSTER or first + count > self._end:
            raise CorruptImageError(
                f"expected clusters below {self._end}, found {first} to {first + count - 1}",
                name=self._name,
            )
        is_new = not any(self._seen[first : first + count])
        self._seen[first : first + count] = b"\1" * count
        return is_new


def runs_of(clusters: Iterator[int]) -> Iterator[tuple[int, int]]:
    """``(first, count)`` of neighbours in a chain."""
    for _, group in groupby(enumerate(clusters), key=lambda item: item[1] - item[0]):
        members = list(group)
        yield members[0][1], len(members)


def doubts_of_dirty(reached: Iterator[tuple[int, int]], used: Runs) -> list[str]:
    """Why the map of a file system that was not unmounted should not be relied upon.

    Args:
        reached: what its tree reaches, in bytes of the volume.
        used: what its map says to be in use.
    """
    try:
        lacking = Runs.of(reached) - used
    except CorruptImageError as error:
        return [f"it was not unmounted, and {error.args[0]}"]
    return ["it was not unmounted, and uses what is marked as free"] if len(lacking) else []
