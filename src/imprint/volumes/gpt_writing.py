"""GUID partition tables fitted to a disk of another size, or of other sectors.

Source: UEFI Specification 2.10, section 5.2.3 "Protective MBR" and section 5.3 "GUID Partition
Table (GPT) Disk Layout": the backup header is in the last sector with its entries before it,
the last usable sector is before these; at least 16 KiB are reserved for entries.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import is_zero
from imprint.core.errors import TargetTooSmallError, UnsupportedFeatureError
from imprint.core.units import KIB, div_up
from imprint.volumes import mbr
from imprint.volumes.changing import Patch
from imprint.volumes.gpt import ENTRIES_BYTES_MAX, PRIMARY_LBA, SIGNATURE, Entry, Header

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.volumes.changing import Change

_RESERVED_BYTES: Final = 16 * KIB
_PRIMARY_ENTRIES_LBA: Final = 2
_UNUSED: Final = bytes(16)
_AS_IT_IS: Final = "--sector-size with that of the image restores it as it is, byte by byte"
_LBA_MAX: Final = 0xFFFFFFFF
_CHS_MAX: Final = b"\xfe\xff\xff"


def usable_end(source: Source, sector_size: int, change: Change) -> int:
    """Where partitions have to end at the latest on the disk that the table shall fit, in bytes.

    Args:
        source: a disk with a sound GPT.
        sector_size: that the GPT counts in now.
        change: of which only size and sectors count.

    Raises:
        ReadError: if the table cannot be read.
    """
    header = _header(source, sector_size)
    return _backup_entries_lba(header, change) * change.sector_size


def fit(source: Source, sector_size: int, change: Change) -> list[Patch]:
    """What has to be replaced so that the table fits the disk, in order of their places.

    Both copies have to be sound and the same: :func:`imprint.volumes.read_table` had nothing
    to find. What stood where a copy is no longer is zeroed.

    Args:
        source: the disk as it is.
        sector_size: that its GPT counts in now.
        change: what it shall fit.

    Raises:
        TargetTooSmallError: if a partition would end behind the last usable sector.
        UnsupportedFeatureError: if places are no multiples of the new sector, something
            else is where the table would be, or the MBR has partitions of its own.
        ReadError: if the table cannot be read.
    """
    header = _header(source, sector_size)
    _check_place(source, header, sector_size, change)
    entries = _read(source, header.entries_lba * sector_size, _entries_size(header))
    usable = _backup_entries_lba(header, change)
    entries = _moved(header, entries, sector_size, change, usable)
    new = header.replace(
        other_lba=change.size // change.sector_size - 1,
        last_usable_lba=usable - 1,
        entries_crc=zlib.crc32(entries),
    )
    if change.sector_size != sector_size:
        first = _first_usable_lba(source, header, entries, sector_size, change.sector_size)
        new = new.replace(entries_lba=_PRIMARY_ENTRIES_LBA, first_usable_lba=first)
    tail = _read(source, sector_size + Header.SIZE, header.header_size - Header.SIZE)
    backup = new.replace(own_lba=new.other_lba, other_lba=PRIMARY_LBA, entries_lba=usable)
    old = [
        (PRIMARY_LBA * sector_size, sector_size),
        (header.entries_lba * sector_size, _entries_size(header)),
        *_old_backup(source, header, sector_size),
    ]
    return [
        _protective(source, change),
        *(
            Patch(start, bytes(min(length, change.size - start)))
            for start, length in old
            if start < change.size
        ),
        *_copy(new, tail, entries, change.sector_size),
        *_copy(backup, tail, entries, change.sector_size),
    ]


def _old_backup(source: Source, header: Header, sector_size: int) -> list[tuple[int, int]]:
    """Where the old backup is; nothing if it is not behind all that can be used."""
    place = header.other_lba * sector_size
    backup = Header.unpack(_read(source, place, sector_size))
    if backup.signature != SIGNATURE or backup.own_lba != header.other_lba:
        return []
    if min(backup.entries_lba, backup.own_lba) <= header.last_usable_lba:
        return []
    return [(backup.entries_lba * sector_size, _entries_size(header)), (place, sector_size)]


def _header(source: Source, sector_size: int) -> Header:
    header = Header.unpack(_read(source, PRIMARY_LBA * sector_size, sector_size))
    name = source.name
    header.require("signature", header.signature == SIGNATURE, SIGNATURE.decode(), where=name)
    fits = header.entry_size >= Entry.SIZE and 0 < _entries_size(header) <= ENTRIES_BYTES_MAX
    header.require("entry_count", fits, "entries of 128 bytes or more", where=name)
    fits = Header.SIZE <= header.header_size <= sector_size
    header.require("header_size", fits, "less than a sector", where=name)
    return header


def _check_place(source: Source, header: Header, sector_size: int, change: Change) -> None:
    """Refuse a table that is where nobody puts one, and a disk that has no room for two."""
    name, at = source.name, sector_size
    end = header.entries_lba + div_up(_entries_size(header), sector_size)
    is_before = header.entries_lba > PRIMARY_LBA and end <= header.first_usable_lba
    expected = "entries between the header and what can be used"
    header.require("entries_lba", is_before, expected, where=name, at=at)
    is_short = header.header_size <= change.sector_size
    header.require("header_size", is_short, "less than a sector", where=name, at=at)
    first_usable = header.first_usable_lba * sector_size
    if _backup_entries_lba(header, change) * change.sector_size <= first_usable:
        raise TargetTooSmallError(f"has {change.size} bytes: too few for a GPT and its backup")


def _entries_size(header: Header) -> int:
    return header.entry_count * header.entry_size


def _entries_sectors(header: Header, sector_size: int) -> int:
    return div_up(max(_entries_size(header), _RESERVED_BYTES), sector_size)


def _backup_entries_lba(header: Header, change: Change) -> int:
    """Where the backup's entries begin on the new disk: partitions end before."""
    last = change.size // change.sector_size - 1
    return last - _entries_sectors(header, change.sector_size)


def _moved(header: Header, entries: bytes, sector_size: int, change: Change, usable: int) -> bytes:
    """The entries in new sectors, one of them with its new end."""
    result = bytearray(entries)
    for number in range(header.entry_count):
        at = number * header.entry_size
        record = result[at : at + Entry.SIZE]
        if record[:16] == _UNUSED:
            continue
        entry = Entry.unpack(record)
        index = number + 1
        start, end = entry.first_lba * sector_size, (entry.last_lba + 1) * sector_size
        if index == change.index:
            end = change.end
        if start % change.sector_size or end % change.sector_size:
            raise UnsupportedFeatureError(
                f"partition {index}: expected multiples of {change.sector_size}, "
                f"found that it begins at {start} and ends at {end}",
                advice=_AS_IT_IS,
            )
        if end > usable * change.sector_size:
            raise TargetTooSmallError(
                f"partition {index}: expected its end before {usable * change.sector_size}, "
                f"where the backup GPT begins, found {end}"
            )
        first, last = start // change.sector_size, end // change.sector_size - 1
        result[at : at + Entry.SIZE] = entry.replace(first_lba=first, last_lba=last).pack()
    return bytes(result)


def _first_usable_lba(
    source: Source, old: Header, entries: bytes, old_size: int, new_size: int
) -> int:
    """In other sectors, for moved entries; what would be overwritten has to be nothing."""
    first_free = _PRIMARY_ENTRIES_LBA + _entries_sectors(old, new_size)
    first_usable = max(first_free, div_up(old.first_usable_lba * old_size, new_size))
    used = [
        Entry.unpack(entries[at : at + Entry.SIZE]).first_lba
        for at in range(0, len(entries), old.entry_size)
        if entries[at : at + 16] != _UNUSED
    ]
    if used and min(used) < first_usable:
        raise UnsupportedFeatureError(
            f"expected the first partition behind the table of {first_usable * new_size} bytes, "
            f"found it at {min(used) * new_size}",
            advice=_AS_IT_IS,
        )
    table_end = old.entries_lba * old_size + _entries_size(old)
    is_elsewhere = old.entries_lba != _PRIMARY_ENTRIES_LBA
    behind = _read(source, table_end, max(0, first_free * new_size - table_end))
    if is_elsewhere or not is_zero(memoryview(behind)):
        raise UnsupportedFeatureError(
            f"expected nothing but the table in the first {first_free * new_size} bytes, "
            "found something else: a boot loader",
            advice=_AS_IT_IS,
        )
    return first_usable


def _copy(header: Header, tail: bytes, entries: bytes, sector_size: int) -> list[Patch]:
    """One copy of the table, its checksum made anew; ``tail`` belongs to the header too."""
    covered = header.replace(header_crc=0).pack() + tail
    packed = header.replace(header_crc=zlib.crc32(covered)).pack() + tail
    return [
        Patch(header.entries_lba * sector_size, entries),
        Patch(header.own_lba * sector_size, packed.ljust(sector_size, b"\0")),
    ]


def _protective(source: Source, change: Change) -> Patch:
    """The first sector; its entry for the GPT covers the disk, or as much as it can say."""
    record = bytearray(_read(source, 0, mbr.BootRecord.SIZE))
    count = min(change.size // change.sector_size - 1, _LBA_MAX)
    places = [at for at in range(446, 510, mbr.Entry.SIZE) if any(record[at + 12 : at + 16])]
    protective = [at for at in places if record[at + 4] == mbr.PROTECTIVE_TYPE]
    if protective != places:
        raise UnsupportedFeatureError(
            "expected a protective MBR, found a hybrid one, whose partitions cannot be fitted",
            name=source.name,
        )
    for at in protective[:1]:
        record[at + 5 : at + 8] = _CHS_MAX
        record[at + 12 : at + 16] = count.to_bytes(4, "little")
    return Patch(0, bytes(record))


def _read(source: Source, offset: int, length: int) -> bytes:
    """Bytes of the disk; zeros behind its end."""
    buffer = bytearray(length)
    inside = max(0, min(length, source.size - offset))
    if inside:
        source.readinto(memoryview(buffer)[:inside], offset)
    return bytes(buffer)
