"""Disk labels of FreeBSD, NetBSD, OpenBSD and their relatives.

Source: FreeBSD ``sys/sys/disklabel.h``, OpenBSD ``sys/sys/disklabel.h``, Linux
``block/partitions/msdos.c`` (``parse_bsd``), libblkid ``partitions/bsd.c``.

A label describes a disk of its own, or what is in an MBR partition. Its numbers are in the
byte order of the machine that wrote it, and count from the disk's start; FreeBSD's count from
the start of its MBR partition, if the third entry, which stands for all of it, begins at 0.
"""

from __future__ import annotations

import string
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.events import Finding, Severity
from imprint.core.layout import Structure, raw, uint
from imprint.volumes.table import (
    Partition,
    PartitionTable,
    bounds_findings,
    checksum16,
    is_part_of_more,
    is_sane,
    limited,
    overlap_findings,
)
from imprint.volumes.type_names import bsd_type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.filters.peek import Peek

MAGIC: Final = 0x82564557
FREEBSD: Final = 0xA5
MBR_TYPES: Final = frozenset({FREEBSD, 0xA6, 0xA9})
"""FreeBSD, OpenBSD, NetBSD."""

ENTRY_COUNT_MAX: Final = 64
"""Entries that are read: OpenBSD has 52, the others less."""

_UNUSED: Final = 0
_WHOLE_ENTRY: Final = 2  # the letter c
_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)

# Where machines that are no PCs have the label in their first sector.
_FIRST_SECTOR_PLACES: Final = (64, 128)


class Label(Structure, size=148, endian="<"):
    """What the entries follow."""

    magic: int = uint(4, at=0, doc="MAGIC")
    sector_size: int = uint(4, at=40, doc="that offsets and sizes count in")
    uid: bytes = raw(8, at=64, doc="of the disk, in OpenBSD's version 1")
    version: int = uint(2, at=114, doc="1: OpenBSD's, with numbers of 48 bits")
    magic2: int = uint(4, at=132, doc="MAGIC")
    checksum: int = uint(2, at=136, doc="makes the exclusive or of all 16-bit words zero")
    entry_count: int = uint(2, at=138, doc="8 or 16")


class BigLabel(Label, size=148, endian=">"):
    """The same, written by a machine with the other byte order."""


class Entry(Structure, size=16, endian="<"):
    """One partition."""

    sector_count: int = uint(4, at=0, doc="low 32 bits")
    start_sector: int = uint(4, at=4, doc="low 32 bits")
    start_high: int = uint(2, at=8, doc="of version 1; else part of the fragment size")
    count_high: int = uint(2, at=10, doc="of version 1; else part of the fragment size")
    type: int = uint(1, at=12, doc="0: the entry is not used")


class BigEntry(Entry, size=16, endian=">"):
    """The same in the other byte order."""


def read(peek: Peek, sector_sizes: Sequence[int]) -> PartitionTable | None:
    """The label of a disk, or ``None`` if it has none, or only that of what it is a part of.

    Partitions are numbered as libblkid does, without those that are not used; their names are
    the letters that BSD calls them by.
    """
    for place in (*sorted(sector_sizes), *_FIRST_SECTOR_PLACES):
        try:
            label, entries, findings = _load(peek, place, "BSD label")
        except (ReadError, FormatError):
            continue  # most disks have none: that it could be there is nothing to tell
        if label is not None:
            return _table(label, entries, findings, peek.size, sector_sizes[0])
    return None


def _table(
    label: Label, entries: list[Entry], findings: list[Finding], disk_size: int, sector_size: int
) -> PartitionTable | None:
    unit = _unit(label, sector_size)
    used = _used(entries)
    partitions: list[Partition] = []
    for index, (number, entry) in enumerate(used, start=1):
        start, length = (count * unit for count in _sectors(label, entry))
        if not is_sane(start, length):
            if length:
                findings.append(_left_out(f"BSD partition {_letter(number)}", "sectors of a disk"))
            continue
        item = _partition(entry, number, index, (start, length))
        # The third entry is the whole disk, whatever its type says.
        is_whole = number == _WHOLE_ENTRY and start == 0 and len(used) > 1
        partitions.append(replace(item, is_container=is_whole))
    if is_part_of_more(partitions, disk_size):
        return None
    findings += bounds_findings(partitions, disk_size)
    findings += overlap_findings(item for item in partitions if not item.is_container)
    uid = label.uid.hex() if label.version == 1 and any(label.uid) else None
    return PartitionTable("bsd", unit, uid, tuple(partitions), tuple(limited(findings)))


def read_nested(
    peek: Peek, outer: Partition, mbr_type: int, numbers: Iterator[int], sector_size: int
) -> tuple[list[Partition], list[Finding]]:
    """What is in an MBR partition of one of :data:`MBR_TYPES`, with the next ``numbers``.

    Nothing if it has no label, or if all of it is one partition: it is itself that one.
    """
    where = f"partition {outer.index}"
    try:
        label, entries, findings = _load(peek, outer.start + sector_size, where)
    except (ReadError, FormatError) as error:
        what = f"its BSD label could not be read: {error.args[0]}"
        return [], [Finding(Severity.ERROR, where, what)]
    if label is None:
        return [], []
    unit = _unit(label, sector_size)
    whole = entries[_WHOLE_ENTRY] if len(entries) > _WHOLE_ENTRY else None
    is_relative = mbr_type == FREEBSD and whole is not None and _sectors(label, whole)[0] == 0
    base = outer.start if is_relative else 0
    partitions: list[Partition] = []
    for number, entry in _used(entries):
        start, length = (count * unit for count in _sectors(label, entry))
        start += base
        if (start, length) == (outer.start, outer.length):
            continue
        if outer.start <= start and start + length <= outer.end:
            item = _partition(entry, number, next(numbers), (start, length))
            if length:  # an empty one has a number, too
                partitions.append(item)
            continue
        name = f"{where}, BSD partition {_letter(number)}"
        is_other = start + length <= outer.start or outer.end <= start
        if is_other and start + length <= peek.size:
            # OpenBSD lists what the other MBR partitions are, too.
            what = "it is outside of its MBR partition: it is left out"
            findings.append(Finding(Severity.INFO, name, what))
        else:
            findings.append(_left_out(name, "a place inside of its MBR partition"))
    findings += overlap_findings(partitions)
    return partitions, limited(findings)


def _load(peek: Peek, place: int, where: str) -> tuple[Label | None, list[Entry], list[Finding]]:
    """The label at byte ``place`` with its entries; ``None`` if there is none."""
    data = peek.read(place, Label.SIZE + ENTRY_COUNT_MAX * Entry.SIZE)
    label, entry_type = Label.unpack(data), Entry
    if label.magic != MAGIC:
        label, entry_type = BigLabel.unpack(data), BigEntry
    if (label.magic, label.magic2) != (MAGIC, MAGIC):
        return None, [], []
    findings = []
    count = min(label.entry_count, ENTRY_COUNT_MAX)
    if count < label.entry_count:
        what = f"expected at most {ENTRY_COUNT_MAX} entries, found {label.entry_count}"
        findings.append(Finding(Severity.ERROR, where, what))
    elif checksum16(data[: Label.SIZE + count * Entry.SIZE]):
        what = "the BSD label does not match its checksum: the partitions may be wrong"
        findings.append(Finding(Severity.ERROR, where, what))
    entries = [entry_type.unpack(data[Label.SIZE + at * Entry.SIZE :]) for at in range(count)]
    return label, list(entries), findings


def _used(entries: Sequence[Entry]) -> list[tuple[int, Entry]]:
    """Entries with a type, by their number from 0."""
    return [(at, entry) for at, entry in enumerate(entries) if entry.type != _UNUSED]


def _unit(label: Label, sector_size: int) -> int:
    return label.sector_size if label.sector_size in _SECTOR_SIZES else sector_size


def _sectors(label: Label, entry: Entry) -> tuple[int, int]:
    """Start and count."""
    if label.version != 1:
        return entry.start_sector, entry.sector_count
    high = entry.start_high << 32, entry.count_high << 32
    return entry.start_sector | high[0], entry.sector_count | high[1]


def _partition(entry: Entry, number: int, index: int, place: tuple[int, int]) -> Partition:
    return Partition(
        index=index,
        start=place[0],
        length=place[1],
        type=bsd_type_name(entry.type),
        code=f"0x{entry.type:02x}",
        name=_letter(number),
    )


def _letter(number: int) -> str:
    return string.ascii_letters[number : number + 1] or str(number + 1)


def _left_out(where: str, expected: str) -> Finding:
    return Finding(Severity.ERROR, where, f"expected {expected}, found another: it is left out")
