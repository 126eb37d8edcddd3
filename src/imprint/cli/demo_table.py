"""A GUID partition table, for the demonstration on systems that have no tool to write one."""

from __future__ import annotations

import uuid
import zlib
from typing import TYPE_CHECKING, Final

from imprint.volumes import gpt, mbr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from imprint.cli.demo_disk import Part

SECTOR_BYTES: Final = 512

_ENTRY_COUNT: Final = 128
_ENTRIES_SECTORS: Final = _ENTRY_COUNT * gpt.Entry.SIZE // SECTOR_BYTES


def write_table(disk: BinaryIO, size: int, parts: Sequence[Part]) -> None:
    """Write a protective MBR and both copies of a GPT into a disk of ``size`` bytes.

    Source: UEFI Specification 2.10, section 5.3.
    """
    last = size // SECTOR_BYTES - 1
    entries = b"".join(_entry(part) for part in parts).ljust(_ENTRIES_SECTORS * SECTOR_BYTES, b"\0")
    backup_entries = last - _ENTRIES_SECTORS
    header = gpt.Header(
        signature=gpt.SIGNATURE,
        revision=0x10000,
        header_size=gpt.Header.SIZE,
        own_lba=gpt.PRIMARY_LBA,
        other_lba=last,
        first_usable_lba=gpt.PRIMARY_LBA + 1 + _ENTRIES_SECTORS,
        last_usable_lba=backup_entries - 1,
        disk_guid=uuid.uuid4().bytes_le,
        entries_lba=gpt.PRIMARY_LBA + 1,
        entry_count=_ENTRY_COUNT,
        entry_size=gpt.Entry.SIZE,
        entries_crc=zlib.crc32(entries),
    )
    backup = header.replace(own_lba=last, other_lba=gpt.PRIMARY_LBA, entries_lba=backup_entries)
    for lba, content in (
        (0, _protective_record(last)),
        (header.own_lba, _sealed(header)),
        (header.entries_lba, entries),
        (backup.entries_lba, entries),
        (backup.own_lba, _sealed(backup)),
    ):
        disk.seek(lba * SECTOR_BYTES)
        disk.write(content)


def _protective_record(last_lba: int) -> bytes:
    """An MBR that keeps programs that know no GPT from taking the disk for an empty one."""
    entry = mbr.Entry(type=mbr.PROTECTIVE_TYPE, start_lba=1, sector_count=last_lba)
    return mbr.BootRecord(entries=entry.pack().ljust(64, b"\0"), signature=mbr.SIGNATURE).pack()


def _entry(part: Part) -> bytes:
    return gpt.Entry(
        type_guid=uuid.UUID(part.type_guid).bytes_le,
        unique_guid=uuid.uuid4().bytes_le,
        first_lba=part.start // SECTOR_BYTES,
        last_lba=(part.start + part.length) // SECTOR_BYTES - 1,
        name=part.name.encode("utf-16-le"),
    ).pack()


def _sealed(header: gpt.Header) -> bytes:
    """The header with the checksum of itself."""
    return header.replace(header_crc=zlib.crc32(header.pack())).pack()
