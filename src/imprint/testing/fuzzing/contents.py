"""Targets: what is on a disk: partition tables and file systems."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB
from imprint.endpoints.survey import describe, open_partition
from imprint.filesystems import identify
from imprint.filesystems.identify import IDENTIFY_BYTES_MAX
from imprint.filesystems.probes import apple, linux, members, microsoft, optical
from imprint.filesystems.table import allocator
from imprint.filesystems.udf import layout as udf
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage, FaultyStorage
from imprint.testing.fuzzing.images import read_some
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.tables import gpt_disk, mbr_disk, mbr_entry, mbr_record
from imprint.volumes import TABLE_BYTES_MAX, gpt, mbr, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXTENDED: Final = 5
_LINUX: Final = 0x83

_FILE_SYSTEMS: Final = (
    Place(members.LuksHeader),
    Place(members.LvmLabel, b"LABELONE"),
    Place(members.RaidSuperblock, 4096),
    Place(linux.ExtSuperblock, 1024),
    Place(linux.XfsSuperblock),
    Place(linux.BtrfsSuperblock, 65536),
    Place(linux.F2fsSuperblock, 1024),
    Place(linux.SquashfsSuperblock),
    Place(linux.SwapHeader, 1024),
    Place(microsoft.FatBootSector),
    Place(microsoft.Fat32BootSector),
    Place(microsoft.ExfatBootSector),
    Place(microsoft.NtfsBootSector),
    Place(microsoft.MftRecord, b"FILE"),
    Place(apple.HfsMasterBlock, 1024),
    Place(apple.HfsPlusHeader, 1024),
    Place(apple.ApfsSuperblock),
    Place(optical.IsoDescriptor, 32768),
    Place(udf.Anchor, 256 * 2048),
)


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target(
        "partitions",
        seeds=_table_seeds,
        steps=(survey_disk, survey_bad_disk),
        places=(
            Place(mbr.BootRecord),
            *(Place(mbr.Entry, 446 + 16 * number) for number in range(4)),
            *(Place(mbr.Entry, 100 * 512 + 446 + 16 * number) for number in range(2)),
            Place(gpt.Header, b"EFI PART"),
            Place(gpt.Entry, 1024),
            Place(gpt.Entry, 1024 + 2 * 128),
        ),
        seal=_seal_gpt,
    )
    # Real ones are in the corpus, cut down to what is read.
    yield Target("filesystems", _marks, (identify_volume, map_volume), _FILE_SYSTEMS)


def survey_disk(content: bytes) -> None:
    """Read the table, look into the partitions, and read some of each."""
    counting = CountingStorage(MemoryStorage(content, name="disk"))
    table = read_table(counting)
    assert counting.bytes_read <= TABLE_BYTES_MAX
    json.dumps(describe(MemoryStorage(content, name="disk")).to_json())
    for partition in table.partitions[:8] if table is not None else ():
        assert partition.start >= 0
        assert partition.length > 0
        if not partition.is_container:
            read_some(open_partition(MemoryStorage(content, name="disk"), partition.index))


def survey_bad_disk(content: bytes) -> None:
    """The same on a disk that fails at one of the first reads."""
    fail_at = zlib.crc32(content) % 6
    describe(FaultyStorage(MemoryStorage(content, name="disk"), fail_at=fail_at, lasting=False))


def identify_volume(content: bytes) -> None:
    """Which file system it is."""
    counting = CountingStorage(MemoryStorage(content, name="volume"))
    found = identify(counting)
    assert counting.bytes_read <= IDENTIFY_BYTES_MAX
    if found is not None:
        json.dumps([found.kind, found.version, found.label, found.uuid]).encode()


def map_volume(content: bytes) -> None:
    """What it uses, if its kind can tell: nothing outside of the volume."""
    found = identify(MemoryStorage(content, name="volume"))
    kind = allocator(found.kind) if found is not None else None
    if kind is not None:
        allocation = kind.allocation(MemoryStorage(content, name="volume"))
        assert allocation.used.end <= len(content)


def _marks() -> list[bytes]:
    """The marks of file systems that no tool at hand makes."""
    found = []
    for at, mark in (
        *((1024, b"H+\0\x04"), (1024, b"BD"), (32, b"NXSB"), (512, b"LABELONE"), (3, b"-FVE-FS-")),
        (4096, b"\xfc\x4e\x2b\xa9\x01"),
    ):
        content = bytearray(8 * KIB)
        content[at : at + len(mark)] = mark
        found.append(bytes(content))
    return found


def _table_seeds() -> list[bytes]:
    first = mbr_record(mbr_entry(_EXTENDED, 100, 900), mbr_entry(_LINUX, 1, 50, status=0x80))
    second = mbr_record(mbr_entry(_LINUX, 1, 40), mbr_entry(_EXTENDED, 200, 100))
    third = mbr_record(mbr_entry(_LINUX, 1, 40))
    return [bytes(gpt_disk()), bytes(mbr_disk({0: first, 100: second, 300: third}))]


def _seal_gpt(content: bytearray) -> None:
    """Make the checksums of both copies right."""
    at = content.find(b"EFI PART")
    for _ in range(4):
        if at < 0 or at + gpt.Header.SIZE > len(content):
            return
        header = gpt.Header.unpack(bytes(content[at : at + gpt.Header.SIZE]))
        start, size = header.entries_lba * 512, header.entry_count * header.entry_size
        if size <= 1 << 20 and start + size <= len(content):
            struct.pack_into("<I", content, at + 88, zlib.crc32(content[start : start + size]))
        if gpt.Header.SIZE <= header.header_size <= 512:
            struct.pack_into("<I", content, at + 16, 0)
            crc = zlib.crc32(content[at : at + header.header_size])
            struct.pack_into("<I", content, at + 16, crc)
        at = content.find(b"EFI PART", at + 1)
