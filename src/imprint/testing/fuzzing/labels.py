"""Targets: partition maps of Apple, labels of BSD and Sun."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.testing.fuzzing.contents import survey_bad_disk, survey_disk
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.tables import (
    SECTOR_BYTES,
    apm_disk,
    apm_entry,
    bsd_label,
    disk_with,
    mbr_entry,
    mbr_record,
    sun_label,
    xor16,
)
from imprint.volumes import apm, bsd, mbr, sun

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK: Final = b"WEV\x82"
_ENTRIES_AT: Final = bsd.Label.SIZE


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target(
        "labels",
        seeds=_seeds,
        steps=(survey_disk, survey_bad_disk),
        places=(
            Place(apm.DriverDescriptor),
            Place(apm.Entry, b"PM"),
            Place(bsd.Label, _MARK),
            Place(bsd.BigLabel, _MARK[::-1]),
            *(Place(bsd.Entry, _MARK, -_ENTRIES_AT - 16 * number) for number in range(3)),
            Place(sun.Label),
            Place(mbr.BootRecord),
            *(Place(mbr.Entry, 446 + 16 * number) for number in range(4)),
        ),
        seal=_seal,
    )


def _seeds() -> list[bytes]:
    apple = [
        apm_entry(3, 1, 63, "Apple_partition_map"),
        apm_entry(3, 64, 100, "Apple_HFS", name="one"),
        apm_entry(3, 200, 36, "Apple_Free"),
    ]
    plain = bsd_label((16, 100, 7), (116, 84, 1), (0, 2048, 7))
    inner = bsd_label((110, 20, 7), (150, 30, 1), (0, 2048, 0))
    slices = mbr_record(mbr_entry(0xA5, 100, 1000), mbr_entry(0xA6, 1100, 500))
    disks = [
        apm_disk(*apple),
        apm_disk(*apple, block_size=2048),
        disk_with((512, plain)),
        disk_with((64, bsd_label((16, 100, 7), (116, 84, 1), endian=">", version=1))),
        disk_with((0, slices), (101 * 512, inner), (1101 * 512, bsd_label((1110, 20, 7)))),
        disk_with((0, sun_label((0, 160, 2), (10, 320, 3), (0, 1600, 5)))),
    ]
    return [bytes(disk) for disk in disks]


def _seal(content: bytearray) -> None:
    """Make the checksums of labels right."""
    if len(content) >= SECTOR_BYTES and content[508:510] == struct.pack(">H", sun.MAGIC):
        struct.pack_into("<H", content, 510, 0)
        struct.pack_into("<H", content, 510, xor16(content[:SECTOR_BYTES]))
    for mark, endian in ((_MARK, "<"), (_MARK[::-1], ">")):
        at = content.find(mark)
        for _ in range(4):
            if at < 0 or at + bsd.Label.SIZE > len(content):
                break
            (count,) = struct.unpack_from(endian + "H", content, at + 138)
            end = at + _ENTRIES_AT + 16 * min(count, bsd.ENTRY_COUNT_MAX)
            if end <= len(content):
                struct.pack_into("<H", content, at + 136, 0)
                struct.pack_into("<H", content, at + 136, xor16(content[at:end]))
            at = content.find(mark, at + 132 + 4)
