"""What a partition table says, whatever kind it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.events import Finding, Severity
from imprint.core.limits import DISK_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        code: its type as the table has it: ``0x83``, or a GUID in lower case.
        name: what the user called it; only GPT has names.
        uuid: as Linux shows it (``PARTUUID``), if the table has one.
        flags: ``boot`` in an MBR; in a GPT ``required``, ``no-block-io``, ``legacy-boot``
            and ``bit-48`` to ``bit-63``, which belong to the partition's type.
        is_container: whether it only holds other partitions of this table.
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
        uuid: of the disk (``PTUUID``): a GUID, or the MBR's eight digits.
        partitions: by index.
        findings: what is wrong with it.
    """

    kind: Literal["gpt", "mbr"]
    sector_size: int
    uuid: str | None
    partitions: tuple[Partition, ...]
    findings: tuple[Finding, ...] = ()

    def find(self, index: int) -> Partition | None:
        """The partition of that number."""
        return next((item for item in self.partitions if item.index == index), None)

    def add_findings(self, findings: Iterable[Finding]) -> PartitionTable:
        """The same table with more findings."""
        return replace(self, findings=(*self.findings, *findings))


def is_sane(start: int, length: int) -> bool:
    """Whether a partition can be on any disk: what is not is dropped, with a finding."""
    return start >= 0 and length > 0 and start + length <= DISK_SIZE_MAX


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
