"""Master boot records, with logical partitions in chains of extended boot records.

Source: there is no standard; Linux ``block/partitions/msdos.c`` and libblkid
``partitions/dos.c`` say what is accepted today, "Master boot record" and "Extended boot
record" of Wikipedia describe it.

Numbers count in sectors of the disk, and nothing in the table says how large those are. 512
bytes is assumed unless the source knows better, or the boot signatures at the partitions'
starts speak for another size.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.events import Finding, Severity
from imprint.core.layout import Structure, raw, uint
from imprint.volumes import bsd
from imprint.volumes.table import (
    Partition,
    PartitionTable,
    bounds_findings,
    limited,
    overlap_findings,
)
from imprint.volumes.type_names import mbr_type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.filters.peek import Peek

SIGNATURE: Final = 0xAA55
PROTECTIVE_TYPE: Final = 0xEE
EXTENDED_TYPES: Final = frozenset({0x05, 0x0F, 0x85})
BOOTABLE: Final = 0x80

CHAIN_LENGTH_MAX: Final = 256
"""Extended boot records that are followed. Linux makes no more than 256 partitions of a disk."""

FIRST_LOGICAL: Final = 5

# Partitions of these types begin with a boot sector, or an extended boot record, that ends
# with the signature: they tell the sector size.
_SIGNED_TYPES: Final = EXTENDED_TYPES | {0x01, 0x04, 0x06, 0x07, 0x0B, 0x0C, 0x0E, 0xEF}

_DISC_MARK: Final = b"\x01CD001"
_DISC_MARK_AT: Final = 16 * 2048

# What follows the jump in the boot sector of a file system that is no FAT.
_VOLUME_MARKS: Final = (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0")


class BootRecord(Structure, size=512, endian="<"):
    """The disk's first sector, or an extended boot record."""

    head: bytes = raw(40, at=0, doc="boot code; in a volume's boot sector BiosParameters")
    disk_id: int = uint(4, at=440, doc="chosen at random by whoever made the table")
    entries: bytes = raw(64, at=446, doc="four entries")
    signature: int = uint(2, at=510, doc="SIGNATURE")


class Entry(Structure, size=16, endian="<"):
    """One of the four entries of a record. Cylinders and heads are not used by anybody."""

    status: int = uint(1, at=0, doc="BOOTABLE or 0")
    type: int = uint(1, at=4, doc="what it is for")
    start_lba: int = uint(4, at=8, doc="relative to the record, or to the extended partition")
    sector_count: int = uint(4, at=12, doc="0: the entry is not used")


class BiosParameters(Structure, size=40, endian="<"):
    """What the boot sector of a FAT file system begins with, as far as all kinds share it."""

    sector_size: int = uint(2, at=11, doc="512 to 4096")
    cluster_sectors: int = uint(1, at=13, doc="a power of two")
    reserved_sectors: int = uint(2, at=14, doc="before the first FAT; at least 1")
    fat_count: int = uint(1, at=16, doc="2 in practice")
    sector_count_16: int = uint(2, at=19, doc="of the file system; 0: see sector_count_32")
    media: int = uint(1, at=21, doc="0xf0, or 0xf8 and above")
    sector_count_32: int = uint(4, at=32, doc="used if sector_count_16 is 0")


def record_at(peek: Peek, offset: int) -> BootRecord | None:
    """The boot record at ``offset``, if it has the signature."""
    record = BootRecord.unpack(peek.read(offset, BootRecord.SIZE))
    return record if record.signature == SIGNATURE else None


def is_protective(record: BootRecord) -> bool:
    """Whether it announces a GPT."""
    return any(entry.type == PROTECTIVE_TYPE for entry in _entries(record))


def is_empty(record: BootRecord) -> bool:
    """Whether it has no partitions."""
    return not any(entry.sector_count for entry in _entries(record))


def is_plausible(record: BootRecord, disk_size: int) -> bool:
    """Whether what stands where the entries should be can be entries.

    Boot code of a file system's first sector may stand there as well.
    """
    entries = _entries(record)
    if any(entry.status not in (0, BOOTABLE) for entry in entries):
        return False
    starts = [entry.start_lba * 512 for entry in entries if entry.sector_count]
    return not starts or min(starts) < disk_size


def is_volume(record: BootRecord) -> bool:
    """Whether it is the boot sector of a file system that is on the disk without a table.

    The signature is the same, and so may be the bytes where entries would be.
    """
    if record.head[3:11] in _VOLUME_MARKS:
        return True
    fields = BiosParameters.unpack(record.head)
    sector_count = fields.sector_count_16 or fields.sector_count_32
    return (
        fields.sector_size in (512, 1024, 2048, 4096)
        and fields.cluster_sectors.bit_count() == 1
        and 0 < fields.reserved_sectors < sector_count
        and fields.fat_count > 0
        and (fields.media == 0xF0 or fields.media >= 0xF8)
    )


def is_all_bsd(record: BootRecord) -> bool:
    """Whether its only partition is a BSD's, and begins with the disk: the label counts.

    FreeBSD calls it dangerously dedicated. The size in the entry is made up.
    """
    used = [entry for entry in _entries(record) if entry.sector_count]
    return len(used) == 1 and used[0].type in bsd.MBR_TYPES and used[0].start_lba == 0


def is_disc(peek: Peek) -> bool:
    """Whether the disk as a whole is an ISO 9660 file system.

    Source: ECMA-119, section 8.1: descriptors begin in sector 16 of 2048 bytes.
    """
    try:
        return peek.read(_DISC_MARK_AT, len(_DISC_MARK)) == _DISC_MARK
    except (ReadError, FormatError):
        return False


def hybrid_findings(record: BootRecord, table: PartitionTable) -> list[Finding]:
    """What to say of an MBR that has partitions of its own beside the entry for a GPT.

    Systems that do not know GPTs use them. One that is none of the GPT's, but takes room from
    one, means that the two tables contradict each other.
    """
    own = [
        (number, entry)
        for number, entry in enumerate(_entries(record), start=1)
        if entry.sector_count and entry.type != PROTECTIVE_TYPE
    ]
    if not own:
        return []
    what = f"it is hybrid: it has {len(own)} partitions beside those of the GPT, which count"
    findings = [Finding(Severity.INFO, "MBR at 0x0", what)]
    places = {(item.start, item.length) for item in table.partitions}
    for number, entry in own:
        item = _partition(entry, number, 0, table.sector_size, 0)
        if (item.start, item.length) in places:
            continue
        crossed = [other for other in table.partitions if _cross(item, other)]
        name = f"MBR entry {number} ({item.code} at 0x{item.start:x}, {item.length} bytes)"
        if crossed:
            what = f"expected a partition of the GPT, found that it overlaps {crossed[0].index}"
            findings.append(Finding(Severity.ERROR, name, what))
        else:
            findings.append(Finding(Severity.INFO, name, "the GPT does not have this partition"))
    return findings


def _cross(one: Partition, other: Partition) -> bool:
    return one.start < other.end and other.start < one.end


def read(peek: Peek, record: BootRecord, sector_sizes: Sequence[int]) -> PartitionTable:
    """The table that begins with ``record``; the first of ``sector_sizes`` is the likeliest."""
    sector_size = _sector_size(peek, record, sector_sizes)
    primary = [
        _partition(entry, index, 0, sector_size, record.disk_id)
        for index, entry in enumerate(_entries(record), start=1)
        if entry.sector_count
    ]
    logical, findings = _logical(
        peek, [item for item in primary if item.is_container], sector_size, record.disk_id
    )
    overlaps = overlap_findings(primary) + overlap_findings(logical)
    nested, more = _nested(peek, primary, FIRST_LOGICAL + len(logical), sector_size)
    findings += more
    partitions = (*primary, *logical, *nested)
    findings += bounds_findings(partitions, peek.size)
    findings += _on_purpose(overlaps) if overlaps and is_disc(peek) else overlaps
    disk_id = f"{record.disk_id:08x}" if record.disk_id else None
    return PartitionTable("mbr", sector_size, disk_id, partitions, tuple(findings))


def _nested(
    peek: Peek, primary: list[Partition], first_index: int, sector_size: int
) -> tuple[list[Partition], list[Finding]]:
    """What BSD labels in primary partitions describe; such a partition becomes a container."""
    nested: list[Partition] = []
    findings: list[Finding] = []
    numbers = itertools.count(first_index)
    for at, outer in enumerate(primary):
        type_ = int(outer.code, 16)
        if type_ not in bsd.MBR_TYPES or not outer.start:
            continue
        inner, more = bsd.read_nested(peek, outer, type_, numbers, sector_size)
        findings += more
        if inner:
            nested += inner
            primary[at] = replace(outer, is_container=True)
    return nested, findings


def _on_purpose(overlaps: Sequence[Finding]) -> list[Finding]:
    """A disc image for USB sticks as well: its first partition is the disc, others are in it."""
    what = "the disk is a disc image that has a partition table too, as isohybrid makes them"
    kept = [replace(item, severity=Severity.INFO) for item in overlaps]
    return [Finding(Severity.INFO, "MBR at 0x0", what), *kept]


def _entries(record: BootRecord) -> list[Entry]:
    return [
        Entry.unpack(record.entries[start : start + Entry.SIZE])
        for start in range(0, len(record.entries), Entry.SIZE)
    ]


def _sector_size(peek: Peek, record: BootRecord, sector_sizes: Sequence[int]) -> int:
    """The first size with which a partition begins with a signature that has to be there."""
    starts = [
        entry.start_lba
        for entry in _entries(record)
        if entry.sector_count and entry.start_lba and entry.type in _SIGNED_TYPES
    ]
    for sector_size in sector_sizes:
        if any(record_at(peek, start * sector_size) is not None for start in starts):
            return sector_size
    return sector_sizes[0]


def _partition(entry: Entry, index: int, base: int, sector_size: int, disk_id: int) -> Partition:
    """An entry whose start counts from byte ``base``."""
    return Partition(
        index=index,
        start=base + entry.start_lba * sector_size,
        length=entry.sector_count * sector_size,
        type=mbr_type_name(entry.type),
        code=f"0x{entry.type:02x}",
        uuid=f"{disk_id:08x}-{index:02x}" if disk_id else None,
        flags=("boot",) if entry.status & BOOTABLE else (),
        is_container=entry.type in EXTENDED_TYPES,
    )


def _logical(
    peek: Peek, containers: Sequence[Partition], sector_size: int, disk_id: int
) -> tuple[list[Partition], list[Finding]]:
    """The logical partitions of all extended ones, numbered in the order of the chains."""
    logical: list[Partition] = []
    findings: list[Finding] = []
    seen = {0}  # a chain that leads to the disk's first sector is as wrong as a loop
    for container in containers:
        position: int | None = container.start
        while position is not None:
            where = f"extended boot record at 0x{position:x}"
            record = _link(peek, position, where, seen, findings)
            if record is None:
                break
            for entry in _data_entries(record, container.length // sector_size):
                index = FIRST_LOGICAL + len(logical)
                item = _partition(entry, index, position, sector_size, disk_id)
                if item.end <= container.end:
                    logical.append(item)
                    continue
                what = f"expected a partition inside {container.index}, found one outside"
                findings.append(Finding(Severity.ERROR, where, f"{what}: it is left out"))
            position = _next_record(record, container, sector_size)
    return logical, limited(findings)


def _link(
    peek: Peek, position: int, where: str, seen: set[int], findings: list[Finding]
) -> BootRecord | None:
    """The next record of a chain; ``None``, with a finding, where the chain is broken."""
    record = None
    if position in seen:
        what = "the chain of logical partitions leads back to where it was"
    elif len(seen) > CHAIN_LENGTH_MAX:
        what = f"expected at most {CHAIN_LENGTH_MAX} logical partitions, found more"
    else:
        what = "expected the signature 0xaa55, found none: logical partitions may be missing"
        try:
            record = record_at(peek, position)
        except (ReadError, FormatError) as error:
            what = f"could not be read: {error.args[0]}"
    if record is None:
        findings.append(Finding(Severity.ERROR, where, what))
    seen.add(position)
    return record


def _data_entries(record: BootRecord, sector_count_max: int) -> list[Entry]:
    """The partitions of an extended boot record: usually one, and first.

    OS/2 uses all four entries; in the last two others leave rubbish, told by its size.
    """
    return [
        entry
        for number, entry in enumerate(_entries(record))
        if entry.sector_count
        and entry.type not in EXTENDED_TYPES
        and (number < 2 or entry.start_lba + entry.sector_count <= sector_count_max)
    ]


def _next_record(record: BootRecord, container: Partition, sector_size: int) -> int | None:
    """Where the chain goes on; links count from the start of the extended partition."""
    for entry in _entries(record):
        if entry.type in EXTENDED_TYPES and entry.sector_count:
            return container.start + entry.start_lba * sector_size
    return None
