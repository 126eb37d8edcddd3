"""Partition tables: where the parts of a disk are, and what the table calls them.

Read: GPT, from either of its copies; MBR with logical partitions, and with the partitions of
BSD labels; labels of BSD and Sun, and maps of Apple; sectors of 512 and of 4096 bytes. Nothing is
written.

Which table a disk has is decided as Linux does: a protective entry in the MBR means GPT; a
first sector that is the boot sector of a file system means that there is no table, although
it ends with the same signature; the other kinds count where there is no MBR with partitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.events import Finding, Severity
from imprint.core.units import KIB, MIB
from imprint.filters.peek import Peek
from imprint.volumes import apm, bsd, gpt, mbr, sun
from imprint.volumes.table import Partition, PartitionTable

if TYPE_CHECKING:
    from imprint.core.contracts import Source

__all__ = ["TABLE_BYTES_MAX", "Partition", "PartitionTable", "read_table"]

TABLE_BYTES_MAX: Final = 1 * MIB
"""What reading a table may read: two GPT copies of 2048 entries, or 256 logical partitions
and a few labels and maps."""

_HEAD_BYTES: Final = 8 * KIB  # where most labels are: one read instead of ten
_SECTOR_SIZES: Final = (512, 4096)

_LOST: Final = Finding(
    Severity.ERROR,
    "GPT",
    "the MBR says that there is a GPT, but neither of its copies is valid",
)
_UNPROTECTED: Final = Finding(
    Severity.WARNING,
    "MBR at 0x0",
    "expected a protective entry of type 0xee, found none: other systems may take the disk "
    "for an empty one",
)
_MAP_TOO: Final = Finding(
    Severity.INFO,
    "Apple partition map",
    "the disk has one too, for Macs: the MBR is what counts",
)
_UNANNOUNCED: Final = (
    "the disk has a GPT too, which the MBR does not announce: the MBR is what counts"
)


def read_table(source: Source, *, sector_size: int | None = None) -> PartitionTable | None:
    """The partition table of a disk, or ``None`` if it has none.

    A table that is damaged or contradicts itself is read as far as it can be trusted; its
    findings say what is wrong. Partitions are as the table says: they may end behind the
    disk's end, or overlap.

    Args:
        source: the disk.
        sector_size: of the disk, where the caller knows it. By default all are tried, the
            source's own first.

    Raises:
        ReadError: if the source cannot be read there.
        FormatError: if what the image says of its first sectors makes no sense.
    """
    peek = Peek(source, budget=TABLE_BYTES_MAX, head=_HEAD_BYTES)
    sizes = _sector_sizes(source, sector_size)
    record = mbr.record_at(peek, 0)
    if record is not None and mbr.is_protective(record):
        table = gpt.read(peek, sizes)
        if table is not None:
            return table.add_findings(mbr.hybrid_findings(record, table))
    if record is not None and mbr.is_volume(record):
        return None
    has_entries = record is not None and mbr.is_plausible(record, peek.size)
    if record is None or not has_entries or mbr.is_empty(record) or mbr.is_all_bsd(record):
        table = sun.read(peek) or apm.read(peek) or bsd.read(peek, sizes)
        if table is not None:
            return table
    if record is not None and not has_entries:
        return None
    if record is not None and mbr.is_protective(record):
        return PartitionTable("gpt", sizes[0], None, (), (_LOST,))
    # The backup alone does not count without a protective entry: it outlives the table when a
    # disk is formatted as a whole.
    stray = gpt.read(peek, sizes, needs_primary=True)
    if record is None or (stray is not None and mbr.is_empty(record)):
        return None if stray is None else stray.add_findings([_UNPROTECTED])
    table = mbr.read(peek, record, sizes)
    more = []
    if stray is not None:  # a hybrid disc image has both on purpose
        severity = Severity.INFO if mbr.is_disc(peek) else Severity.WARNING
        more.append(Finding(severity, "GPT", _UNANNOUNCED))
    if apm.find(peek) is not None:
        more.append(_MAP_TOO)
    return table.add_findings(more)


def _sector_sizes(source: Source, known: int | None) -> tuple[int, ...]:
    """What to try, the likeliest first, none twice."""
    if known is not None:
        return (known,)
    return tuple(dict.fromkeys((source.traits.logical_sector, *_SECTOR_SIZES)))
