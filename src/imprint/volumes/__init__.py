"""Partition tables: where the parts of a disk are, and what the table calls them.

Read: GPT, from either of its copies, and MBR with logical partitions; sectors of 512 and of
4096 bytes. Nothing is written.

Which table a disk has is decided as Linux does: a protective entry in the MBR means GPT; a
first sector that is the boot sector of a file system means that there is no table, although
it ends with the same signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.events import Finding, Severity
from imprint.core.units import MIB
from imprint.filters.peek import Peek
from imprint.volumes import gpt, mbr
from imprint.volumes.table import Partition, PartitionTable

if TYPE_CHECKING:
    from imprint.core.contracts import Source

__all__ = ["TABLE_BYTES_MAX", "Partition", "PartitionTable", "read_table"]

TABLE_BYTES_MAX: Final = 1 * MIB
"""What reading a table may read: two GPT copies of 2048 entries, or 256 logical partitions."""

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
_UNANNOUNCED: Final = Finding(
    Severity.WARNING,
    "GPT",
    "the disk has a GPT too, which the MBR does not announce: the MBR is what counts",
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
    peek = Peek(source, budget=TABLE_BYTES_MAX)
    sizes = _sector_sizes(source, sector_size)
    record = mbr.record_at(peek, 0)
    if record is not None and mbr.is_protective(record):
        table = gpt.read(peek, sizes)
        if table is not None:
            return table.add_findings(mbr.hybrid_findings(record))
    if record is not None and (mbr.is_volume(record) or not mbr.is_plausible(record, peek.size)):
        return None
    if record is not None and mbr.is_protective(record):
        return PartitionTable("gpt", sizes[0], None, (), (_LOST,))
    # The backup alone does not count without a protective entry: it outlives the table when a
    # disk is formatted as a whole.
    stray = gpt.read(peek, sizes, needs_primary=True)
    if record is None or (stray is not None and mbr.is_empty(record)):
        return None if stray is None else stray.add_findings([_UNPROTECTED])
    table = mbr.read(peek, record, sizes)
    return table if stray is None else table.add_findings([_UNANNOUNCED])


def _sector_sizes(source: Source, known: int | None) -> tuple[int, ...]:
    """What to try, the likeliest first, none twice."""
    if known is not None:
        return (known,)
    return tuple(dict.fromkeys((source.traits.logical_sector, *_SECTOR_SIZES)))
