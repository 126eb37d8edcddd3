"""Disk labels of Sun, with the table of contents (VTOC) of Solaris on SPARC.

Source: Linux ``block/partitions/sun.h`` and ``sun.c``; illumos ``sys/dklabel.h``.

Slices begin at cylinders; how long those are stands in the label. The third slice is by
convention the whole disk, and tagged so: what the others hold is in it. The label of Solaris
on x86, which is inside of an MBR partition, is another one and not read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.events import Finding, Severity
from imprint.core.layout import Structure, raw, uint
from imprint.volumes.table import (
    Partition,
    PartitionTable,
    bounds_findings,
    checksum16,
    is_part_of_more,
    is_sane,
    overlap_findings,
)
from imprint.volumes.type_names import sun_type_name

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

MAGIC: Final = 0xDABE
SANITY: Final = 0x600DDEEE
SLICE_COUNT: Final = 8
WHOLE_DISK: Final = 5
SECTOR_BYTES: Final = 512
"""What all numbers count in, whatever the disk's own sectors are."""

_WHOLE_SLICE: Final = 2
_FLAGS: Final = {0x01: "unmountable", 0x10: "read-only"}


class Label(Structure, size=512, endian=">"):
    """The disk's first sector."""

    text: bytes = raw(128, at=0, doc="for people: model and geometry")
    version: int = uint(4, at=128, doc="of the VTOC: 1")
    volume: bytes = raw(8, at=132, doc="the disk's name")
    slice_count: int = uint(2, at=140, doc="8")
    tags: bytes = raw(32, at=142, doc="for each slice its tag and its flags, two bytes each")
    sanity: int = uint(4, at=188, doc="SANITY, if there is a VTOC")
    cylinders: int = uint(2, at=432, doc="with data")
    tracks: int = uint(2, at=436, doc="of a cylinder")
    sectors: int = uint(2, at=438, doc="of a track")
    slices: bytes = raw(64, at=444, doc="eight: start cylinder, count of sectors, 4 bytes each")
    magic: int = uint(2, at=508, doc="MAGIC")
    checksum: int = uint(2, at=510, doc="makes the exclusive or of all 16-bit words zero")


def read(peek: Peek) -> PartitionTable | None:
    """The table, or ``None`` if the first sector is no label with the right checksum.

    Nor is there one in a slice that begins with the disk, although the label is.
    """
    sector = peek.read(0, Label.SIZE)
    label = Label.unpack(sector)
    if label.magic != MAGIC or checksum16(sector):
        return None
    has_tags = (label.sanity, label.version) == (SANITY, 1) or not (label.sanity or label.version)
    tags = struct.unpack(">16H", label.tags) if has_tags else (0,) * 2 * SLICE_COUNT
    places = struct.unpack(">16I", label.slices)
    cylinder_bytes = label.tracks * label.sectors * SECTOR_BYTES
    partitions, findings = [], []
    for number in range(SLICE_COUNT):
        start_cylinder, sector_count = places[2 * number : 2 * number + 2]
        tag, flags = tags[2 * number : 2 * number + 2]
        if not sector_count:
            continue
        start, length = start_cylinder * cylinder_bytes, sector_count * SECTOR_BYTES
        if not is_sane(start, length) or (start_cylinder and not cylinder_bytes):
            what = f"expected a cylinder of the disk, found {start_cylinder}: it is left out"
            findings.append(Finding(Severity.ERROR, f"partition {number + 1}", what))
            continue
        partitions.append(
            Partition(
                index=number + 1,
                start=start,
                length=length,
                type=sun_type_name(tag),
                code=f"0x{tag:02x}",
                flags=tuple(name for bit, name in _FLAGS.items() if flags & bit),
                is_container=tag == WHOLE_DISK or (number, tag, start) == (_WHOLE_SLICE, 0, 0),
            )
        )
    if is_part_of_more(partitions, peek.size):
        return None
    findings += bounds_findings(partitions, peek.size)
    findings += overlap_findings(item for item in partitions if not item.is_container)
    return PartitionTable("sun", SECTOR_BYTES, None, tuple(partitions), tuple(findings))
