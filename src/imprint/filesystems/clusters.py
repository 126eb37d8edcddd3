"""File allocation tables, which FAT and exFAT have in common: chains of clusters.

Clusters are numbered from 2. An entry says which cluster comes next; 0 is free.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.filesystems.allocation import VolumeReader

FIRST_CLUSTER: Final = 2
TABLE_BYTES_AT_ONCE: Final = 3 * MIB
"""What of a table is held at once: whole entries of 12 bits, too."""

FOLDER_BYTES_AT_ONCE: Final = 64 * KIB
_PAGE_BYTES: Final = 48 * KIB
_PAGES_KEPT: Final = 1024
_SEEN_CLUSTERS: Final = 1 << 15

_ZEROS: Final = bytes(TABLE_BYTES_AT_ONCE)
_TAKEN: Final = re.compile(rb"[^\0]+")
_LOW_NIBBLE: Final = bytes(value & 0x0F for value in range(256))
_HIGH_NIBBLE: Final = bytes(value & 0xF0 for value in range(256))


def taken_clusters(table: bytes | bytearray, entry_bits: int) -> Runs:
    """Numbers of the entries that are not 0: in use, reserved or bad; counted from the first.

    The bytes of all entries are laid over each other by arithmetic with large numbers, so
    that 100 MiB take a second.

    Args:
        table: some of a table, from the beginning of an entry on.
        entry_bits: 12, 16 or 32; of 32 the upper four do not count.
    """
    if is_zero(table):
        return Runs.of([])
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
    found = _TAKEN.finditer(marks)
    return Runs.of((match.start(), match.end() - match.start()) for match in found)


def is_zero(content: bytes | bytearray) -> bool:
    """Whether there are only zeros, and no more of them than ``TABLE_BYTES_AT_ONCE``."""
    return _ZEROS.startswith(content)


def folded(*columns: bytes) -> bytes:
    """A byte for each entry, 0 exactly if all of its bytes are."""
    size = max(len(column) for column in columns)
    number = 0
    for column in columns:
        number |= int.from_bytes(column, "little")
    return number.to_bytes(size, "little")


def pieces_of(extents: Iterable[tuple[int, int]], bytes_at_once: int) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of what some extents are read in."""
    for start, length in extents:
        for offset in range(start, start + length, bytes_at_once):
            yield offset, min(bytes_at_once, start + length - offset)


class Table:
    """A table on a volume, read in pages as chains need them; 48 MiB of it are kept."""

    def __init__(self, reader: VolumeReader, offset: int, size: int, entry_bits: int) -> None:
        """``offset`` and ``size`` are in bytes of the volume."""
        self._bits = entry_bits
        self.count = size * 8 // entry_bits

        def page(number: int) -> bytearray:
            start = number * _PAGE_BYTES
            length = min(_PAGE_BYTES, size - start)
            return reader.read(offset + start, length, "allocation table")

        self._page = lru_cache(_PAGES_KEPT)(page)

    def __getitem__(self, cluster: int) -> int:
        """What stands in a cluster's entry, which has to exist."""
        place = cluster * self._bits // 8
        number, at = divmod(place, _PAGE_BYTES)
        page = self._page(number)
        if self._bits == 12:
            # A page has whole pairs of entries, which share three bytes.
            pair = int.from_bytes(page[at : at + 2], "little")
            return pair >> 4 if cluster % 2 else pair & 0xFFF
        return int.from_bytes(page[at : at + self._bits // 8], "little")


class Chains:
    """Follows chains; each cluster is given once, whoever else claims it."""

    def __init__(self, table: Table, cluster_count: int, *, mask: int, name: str) -> None:
        """``mask`` is what counts of an entry; ``name`` is the volume's, for errors."""
        self._table = table
        self._end = min(FIRST_CLUSTER + cluster_count, table.count)
        self._mask = mask
        self._name = name
        self._seen: dict[int, bytearray] = {}
        self._starts: list[int] = []
        self._ends: list[int] = []

    def follow(self, first: int) -> Iterator[int]:
        """The clusters of a chain, up to its end mark, or to one that a chain has had before.

        Raises:
            CorruptImageError: if it leads to a cluster that is free or does not exist.
        """
        cluster = first
        while True:
            if not FIRST_CLUSTER <= cluster < self._end:
                raise CorruptImageError(
                    f"chain from cluster {first}: expected a cluster below {self._end}, "
                    f"found {cluster}",
                    name=self._name,
                )
            number, at = divmod(cluster, _SEEN_CLUSTERS)
            seen = self._seen.get(number)
            if seen is None:
                seen = self._seen[number] = bytearray(_SEEN_CLUSTERS // 8)
            bit = 1 << at % 8
            if seen[at // 8] & bit:
                return
            seen[at // 8] |= bit
            yield cluster
            cluster = self._table[cluster] & self._mask
            if cluster > self._mask - 8:  # an end mark; the one below them all says bad
                return

    def take(self, first: int, count: int) -> bool:
        """Claim clusters that are one behind the other; whether none was claimed so before.

        Raises:
            CorruptImageError: if some of them do not exist.
        """
        end = first + count
        if count == 0:
            return True
        if first < FIRST_CLUSTER or end > self._end:
            raise CorruptImageError(
                f"expected clusters below {self._end}, found {first} to {end - 1}",
                name=self._name,
            )
        low, high = bisect_right(self._ends, first), bisect_left(self._starts, end)
        if low < high:
            first, end = min(first, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [first]
        self._ends[low:high] = [end]
        return low >= high


def runs_of(clusters: Iterable[int]) -> Iterator[tuple[int, int]]:
    """``(first, count)`` of neighbours in a chain."""
    first = count = 0
    for cluster in clusters:
        if cluster == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = cluster, 1
    if count:
        yield first, count


def doubts_of_dirty(reached: Iterator[tuple[int, int]], used: Runs) -> list[str]:
    """Why the map of a file system that was not unmounted should not be relied upon.

    Args:
        reached: what its tree reaches, in bytes of the volume.
        used: what its map says to be in use.
    """
    try:
        is_lacking = not all(used.covers(offset, length) for offset, length in reached)
    except CorruptImageError as error:
        return [f"it was not unmounted, and {error.args[0]}"]
    return ["it was not unmounted, and uses what is marked as free"] if is_lacking else []
