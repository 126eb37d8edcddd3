"""GUID partition tables.

Source: UEFI Specification 2.10, section 5.3 "GUID Partition Table (GPT) Disk Layout".

The table is on the disk twice: a header in sector 1 with its entries behind it, and another
in the last sector with its entries before it. Each copy has a checksum of its header and one
of its entries. A copy counts only if both are right; if no copy has the right entries, those
of a valid header are shown all the same, with a finding.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.events import Finding, Severity
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB
from imprint.volumes.table import (
    Partition,
    PartitionTable,
    bounds_findings,
    is_sane,
    limited,
    overlap_findings,
)
from imprint.volumes.type_names import gpt_type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.filters.peek import Peek

SIGNATURE: Final = b"EFI PART"
PRIMARY_LBA: Final = 1

ENTRIES_BYTES_MAX: Final = 256 * KIB
"""Of one copy: 2048 entries. Tables have 128; both copies must fit into a table's budget."""

_UNUSED: Final = bytes(16)
_FLAGS: Final = {0: "required", 1: "no-block-io", 2: "legacy-boot"}


class Header(Structure, size=92, endian="<"):
    """The sector that describes a copy of the table."""

    signature: bytes = raw(8, at=0, doc="SIGNATURE")
    revision: int = uint(4, at=8, doc="0x10000")
    header_size: int = uint(4, at=12, doc="bytes that the checksum covers; at least 92")
    header_crc: int = uint(4, at=16, doc="CRC-32 of the header with this field zero")
    own_lba: int = uint(8, at=24, doc="of this header")
    other_lba: int = uint(8, at=32, doc="of the other copy's header")
    first_usable_lba: int = uint(8, at=40, doc="where partitions may begin")
    last_usable_lba: int = uint(8, at=48, doc="where they have to end, inclusive")
    disk_guid: bytes = raw(16, at=56, doc="mixed endian, as all GUIDs here")
    entries_lba: int = uint(8, at=72, doc="where this copy's entries begin")
    entry_count: int = uint(4, at=80, doc="128 in practice")
    entry_size: int = uint(4, at=84, doc="128 times a power of two")
    entries_crc: int = uint(4, at=88, doc="CRC-32 of all entries")


class Entry(Structure, size=128, endian="<"):
    """One partition."""

    type_guid: bytes = raw(16, at=0, doc="zeros: the entry is not used")
    unique_guid: bytes = raw(16, at=16, doc="of this partition")
    first_lba: int = uint(8, at=32, doc="inclusive")
    last_lba: int = uint(8, at=40, doc="inclusive")
    attributes: int = uint(8, at=48, doc="bits 0 to 2 are common, 48 to 63 the type's")
    name: bytes = raw(72, at=56, doc="UTF-16, ended by zero if shorter than 36 characters")


@dataclass(frozen=True)
class _Copy:
    """A copy of the table as it was read.

    Attributes:
        where: for findings.
        header: ``None`` if it cannot be trusted.
        entries: as they are on the disk, right or wrong.
        problem: why it does not count; empty if it does.
    """

    where: str
    header: Header | None = None
    entries: bytes = field(default=b"", repr=False)
    problem: str = ""


def read(
    peek: Peek, sector_sizes: Sequence[int], *, needs_primary: bool = False
) -> PartitionTable | None:
    """The table in sectors of the first of ``sector_sizes`` that fits, or ``None``.

    With ``needs_primary``, only if the first copy is whole.
    """
    for sector_size in sector_sizes:
        primary = _load(peek, PRIMARY_LBA, sector_size, "primary GPT")
        if primary.header is None or (needs_primary and primary.problem):
            continue
        backup = _backup_of(peek, primary.header, sector_size)
        return _choose(peek, primary, backup, sector_size)
    if needs_primary:
        return None
    for sector_size in sector_sizes:
        backup = _load(peek, peek.size // sector_size - 1, sector_size, "backup GPT")
        if backup.header is not None:
            primary = _load(peek, PRIMARY_LBA, sector_size, "primary GPT")
            return _choose(peek, primary, backup, sector_size)
    return None


def _backup_of(peek: Peek, header: Header, sector_size: int) -> _Copy:
    """The other copy, where the first one says that it is."""
    sector_count = peek.size // sector_size
    if header.other_lba < sector_count:
        return _load(peek, header.other_lba, sector_size, "backup GPT")
    end = (header.other_lba + 1) * sector_size
    return _Copy(
        "backup GPT",
        problem=f"expected a disk of {end} bytes, found {peek.size}: its end is missing",
    )


def _load(peek: Peek, lba: int, sector_size: int, name: str) -> _Copy:
    where = f"{name} at 0x{lba * sector_size:x}"
    try:
        return _parse(peek, lba, sector_size, where)
    except (ReadError, FormatError) as error:
        return _Copy(where, problem=f"could not be read: {error.args[0]}")


def _parse(peek: Peek, lba: int, sector_size: int, where: str) -> _Copy:
    sector = peek.read(lba * sector_size, sector_size)
    if not sector.startswith(SIGNATURE):
        return _Copy(where, problem=f"expected the signature {SIGNATURE.decode()}, found none")
    header = Header.unpack(sector)
    if not Header.SIZE <= header.header_size <= sector_size:
        return _Copy(where, problem=f"expected a header size, found {header.header_size}")
    crc_at = Header.FIELDS["header_crc"].at
    covered = sector[:crc_at] + bytes(4) + sector[crc_at + 4 : header.header_size]
    if zlib.crc32(covered) != header.header_crc:
        return _Copy(where, problem="the header does not match its checksum")
    if header.own_lba != lba:
        return _Copy(where, problem=f"expected its own sector {lba}, found {header.own_lba}")
    size = header.entry_count * header.entry_size
    if header.entry_size % Entry.SIZE or not 0 < size <= ENTRIES_BYTES_MAX:
        found = f"{header.entry_count} of {header.entry_size} bytes"
        what = f"expected entries of at most {ENTRIES_BYTES_MAX} bytes in all, found {found}"
        return _Copy(where, problem=what)
    entries = peek.read(header.entries_lba * sector_size, size)
    problem = ""
    if zlib.crc32(entries) != header.entries_crc:
        problem = "the entries do not match their checksum"
    return _Copy(where, header, entries, problem)


def _choose(peek: Peek, primary: _Copy, backup: _Copy, sector_size: int) -> PartitionTable:
    """The first copy that is whole; else the entries of one whose header is."""
    findings = [
        Finding(Severity.WARNING, copy.where, copy.problem)
        for copy in (primary, backup)
        if copy.problem
    ]
    chosen = next((copy for copy in (primary, backup) if not copy.problem), None)
    if chosen is None:
        chosen = primary if primary.header is not None else backup
        what = "neither copy is whole: the partitions may be wrong"
        findings.append(Finding(Severity.ERROR, chosen.where, what))
    elif chosen is primary and not backup.problem:
        findings += _comparison(peek, primary, backup, sector_size)
    assert chosen.header is not None
    partitions, more = _partitions(chosen.header, chosen.entries, sector_size)
    findings += more
    findings += bounds_findings(partitions, peek.size)
    findings += overlap_findings(partitions)
    disk_guid = _guid_text(chosen.header.disk_guid)
    return PartitionTable("gpt", sector_size, disk_guid, tuple(partitions), tuple(findings))


def _comparison(peek: Peek, primary: _Copy, backup: _Copy, sector_size: int) -> list[Finding]:
    """What two whole copies disagree about."""
    assert primary.header is not None
    assert backup.header is not None
    findings = []
    if (primary.header.disk_guid, primary.entries) != (
        backup.header.disk_guid,
        backup.entries,
    ):
        what = "its partitions are other ones than those of the primary GPT, which count"
        findings.append(Finding(Severity.WARNING, backup.where, what))
    last = peek.size // sector_size - 1
    if primary.header.other_lba != last:
        what = f"expected it in the last sector, {last}, found it before: the disk has grown"
        findings.append(Finding(Severity.INFO, backup.where, what))
    return findings


def _partitions(
    header: Header, entries: bytes, sector_size: int
) -> tuple[list[Partition], list[Finding]]:
    partitions, findings = [], []
    view = memoryview(entries)
    for index in range(header.entry_count):
        record = view[index * header.entry_size :][: Entry.SIZE]
        if record[:16] == _UNUSED:
            continue
        entry = Entry.unpack(record)
        start = entry.first_lba * sector_size
        length = (entry.last_lba - entry.first_lba + 1) * sector_size
        if not is_sane(start, length):
            lbas = f"{entry.first_lba} to {entry.last_lba}"
            what = f"expected sectors of a disk, found {lbas}: it is left out"
            findings.append(Finding(Severity.ERROR, f"partition {index + 1}", what))
            continue
        code = _guid_text(entry.type_guid)
        partitions.append(
            Partition(
                index=index + 1,
                start=start,
                length=length,
                type=gpt_type_name(code),
                code=code,
                name=_name_text(entry.name),
                uuid=_guid_text(entry.unique_guid),
                flags=_flag_names(entry.attributes),
            )
        )
    return partitions, limited(findings)


def _guid_text(guid: bytes) -> str:
    return str(uuid.UUID(bytes_le=guid))


def _name_text(name: bytes) -> str:
    return name.decode("utf-16-le", errors="replace").partition("\0")[0]


def _flag_names(attributes: int) -> tuple[str, ...]:
    bits = [bit for bit in range(64) if attributes >> bit & 1]
    return tuple(_FLAGS.get(bit, f"bit-{bit}") for bit in bits)
