"""What a partition table says, whatever kind it is."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.events import Finding, Severity
from imprint.core.limits import DISK_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = Literal["gpt", "mbr", "apm", "bsd", "sun"]

FINDINGS_MAX: Final = 32
"""Findings of one kind: a table made to annoy must not fill the screen."""


@dataclass(frozen=True)
class Partition:
    """One entry of a table. Offsets and lengths are bytes of the disk.

    Attributes:
        index: its number, as Linux counts: ``p2`` of an address has index 2.
        start: first byte.
        length: as the table says, even if the disk ends before.
        type: its type, for people.
        code: its type as the table has it: ``0x83``, a GUID in lower case, ``Apple_HFS``.
        name: what the user called it, in a GPT or an Apple map; the letter in a BSD label.
        uuid: as Linux shows it (``PARTUUID``), if the table has one.
        flags: ``boot`` in an MBR or an Apple map; in a GPT ``required``, ``no-block-io``,
            ``legacy-boot`` and ``bit-48`` to ``bit-63``, which belong to the partition's type;
            of a Sun label ``unmountable`` and ``read-only``.
        is_container: whether it only holds other partitions of this table.
        is_free: whether it is the table's way to say that there is room.
    """

    index: int
    start: int
    length: int
    type: str
    code: str
    name: str = ""
    uuid: str | None = None
    flags: tuple[str, ...] = ()
    is_container: bool = False
    is_free: bool = False

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.length


@dataclass(frozen=True)
class PartitionTable:
    """A table as it was found.

    Attributes:
        kind: of table.
        sector_size: that its numbers count in, in bytes.
        uuid: of the disk (``PTUUID``): a GUID, the MBR's eight digits, OpenBSD's sixteen.
        partitions: by index.
        findings: what is wrong with it.
    """

    kind: Kind
    sector_size: int
    uuid: str | None
    partitions: tuple[Partition, ...]
    findings: tuple[Finding, ...] = ()

    def find(self, index: int) -> Partition | None:
        """The partition of that number."""
        return next((item for item in self.partitions if item.index == index), None)

    def gaps(self, disk_size: int) -> list[tuple[int, int]]:
        """Start and length of what is in no partition, ascending; the table itself is there.

        Containers count for nothing: what their inner partitions leave is a gap.
        """
        gaps, position = [], 0
        for item in sorted(self.partitions, key=lambda item: item.start):
            if item.is_container or item.is_free:
                continue
            start = min(item.start, disk_size)
            if start > position:
                gaps.append((position, start - position))
            position = max(position, min(item.end, disk_size))
        if position < disk_size:
            gaps.append((position, disk_size - position))
        return gaps

    def add_findings(self, findings: Iterable[Finding]) -> PartitionTable:
        """The same table with more findings."""
        return replace(self, findings=(*self.findings, *findings))


def checksum16(data: bytes) -> int:
    """The exclusive or of all 16-bit words: 0 in a sound label, in either byte order."""
    return functools.reduce(operator.xor, memoryview(data).cast("H"), 0)


def is_sane(start: int, length: int) -> bool:
    """Whether a partition can be on any disk: what is not is dropped, with a finding."""
    return start >= 0 and length > 0 and start + length <= DISK_SIZE_MAX


def is_part_of_more(partitions: Sequence[Partition], disk_size: int) -> bool:
    """Whether a label describes a larger disk, of which this one is a partition.

    What begins with a disk, or with a slice, has their label in its first sectors.
    """
    ends = [item.end for item in partitions]
    is_short = max(ends, default=0) > disk_size
    return is_short and any(item.length == disk_size for item in partitions)


def bounds_findings(partitions: Sequence[Partition], disk_size: int) -> list[Finding]:
    """One for each partition that is not wholly on the disk."""
    findings = [
        Finding(
            Severity.ERROR,
            f"partition {item.index}",
            f"expected its end inside the disk's {disk_size} bytes, found {item.end}",
        )
        for item in partitions
        if item.end > disk_size
    ]
    return limited(findings)


def overlap_findings(partitions: Iterable[Partition]) -> list[Finding]:
    """One for each partition that begins inside another one that begins before it."""
    findings = []
    widest: Partition | None = None
    for item in sorted(partitions, key=lambda item: (item.start, item.index)):
        if widest is not None and item.start < widest.end:
            what = f"expected it behind partition {widest.index}, found that they overlap"
            findings.append(Finding(Severity.ERROR, f"partition {item.index}", what))
        if widest is None or item.end > widest.end:
            widest = item
    return limited(findings)


def limited(findings: list[Finding]) -> list[Finding]:
    """The first of many, and how many more there are."""
    if len(findings) <= FINDINGS_MAX:
        return findings
    rest = len(findings) - FINDINGS_MAX
    more = Finding(Severity.ERROR, "partition table", f"and {rest} more of the same kind")
    return [*findings[:FINDINGS_MAX], more]
