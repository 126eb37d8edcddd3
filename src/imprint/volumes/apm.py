"""Partition maps of Apple, from the time before Intel processors, and on hybrid discs.

Source: Inside Macintosh: Devices, chapter 3 "SCSI Manager", "The Driver Descriptor Record" and
"The Partition Map"; Linux ``block/partitions/mac.c``.

Block 0 may have the driver descriptor record, which says how large blocks are; the map is in
the blocks from 1 on, an entry each, and each says how many there are. It has an entry for
itself, and entries for room that is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.events import Finding, Severity
from imprint.core.layout import Structure, raw, uint
from imprint.volumes.table import (
    Partition,
    PartitionTable,
    bounds_findings,
    is_sane,
    limited,
    overlap_findings,
)
from imprint.volumes.type_names import apm_type_name

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

DRIVER_SIGNATURE: Final = 0x4552
ENTRY_SIGNATURE: Final = 0x504D

ENTRY_COUNT_MAX: Final = 256
"""Entries that are read. Linux makes no more than 256 partitions of a disk."""

_BLOCK_SIZES: Final = (512, 1024, 2048, 4096)
_MAP_TYPE: Final = "Apple_partition_map"
_FREE_TYPES: Final = frozenset({"Apple_Free", "Apple_Void", "Apple_Extra"})
_BOOTABLE: Final = 0x08


class DriverDescriptor(Structure, size=512, endian=">"):
    """Block 0."""

    signature: int = uint(2, at=0, doc="DRIVER_SIGNATURE")
    block_size: int = uint(2, at=2, doc="512, or 2048 on discs")
    block_count: int = uint(4, at=4, doc="of the disk")


class Entry(Structure, size=512, endian=">"):
    """One partition."""

    signature: int = uint(2, at=0, doc="ENTRY_SIGNATURE")
    entry_count: int = uint(4, at=4, doc="of the whole map")
    start_block: int = uint(4, at=8, doc="of the partition")
    block_count: int = uint(4, at=12, doc="of the partition")
    name: bytes = raw(32, at=16, doc="ended by zero if shorter")
    type: bytes = raw(32, at=48, doc="Apple_HFS, Apple_Free …")
    status: int = uint(4, at=88, doc="bit 3: bootable")


def read(peek: Peek) -> PartitionTable | None:
    """The map, or ``None`` if there is none."""
    block_size = find(peek)
    if block_size is None:
        return None
    first = Entry.unpack(peek.read(block_size, Entry.SIZE))
    count = min(first.entry_count, ENTRY_COUNT_MAX)
    findings = []
    if first.entry_count > ENTRY_COUNT_MAX:
        what = f"expected at most {ENTRY_COUNT_MAX} entries, found {first.entry_count}"
        findings.append(Finding(Severity.ERROR, "Apple partition map", what))
    partitions = []
    for index in range(1, count + 1):
        where = f"partition {index}"
        entry, problem = _entry(peek, index * block_size)
        if entry is None:
            what = f"{problem}: partitions from here on are missing"
            findings.append(Finding(Severity.ERROR, where, what))
            break
        start, length = entry.start_block * block_size, entry.block_count * block_size
        if not entry.block_count:
            continue
        if not is_sane(start, length):
            what = f"expected blocks of a disk, found {entry.start_block} and so on: it is left out"
            findings.append(Finding(Severity.ERROR, where, what))
            continue
        partitions.append(_partition(entry, index, start, length))
    findings += bounds_findings(partitions, peek.size)
    findings += overlap_findings(item for item in partitions if not item.is_free)
    return PartitionTable("apm", block_size, None, tuple(partitions), tuple(limited(findings)))


def find(peek: Peek) -> int | None:
    """In blocks of how many bytes there is a map; ``None`` if there is none."""
    driver = DriverDescriptor.unpack(peek.read(0, DriverDescriptor.SIZE))
    sizes: tuple[int, ...] = _BLOCK_SIZES
    has_driver = driver.signature == DRIVER_SIGNATURE
    if has_driver and driver.block_size in _BLOCK_SIZES:
        # What it says, but for discs that have two maps, and this record from the other one.
        sizes = tuple(dict.fromkeys((driver.block_size, *_BLOCK_SIZES)))
    entries = {size: _entry(peek, size)[0] for size in sizes}
    # In blocks that are larger than those of the map, a later entry looks like the first one.
    found = [size for size, entry in entries.items() if entry is not None and _is_map(entry)]
    if not found:
        # Two letters are not much of a mark: without block 0, a type of Apple's has to follow.
        found = [
            size
            for size, entry in entries.items()
            if entry is not None and (has_driver or _text(entry.type).startswith("Apple_"))
        ]
    return found[0] if found else None


def _is_map(entry: Entry) -> bool:
    """Whether it is the map's entry for itself, which comes first in all maps but odd ones."""
    return _text(entry.type) == _MAP_TYPE and entry.start_block == 1


def _entry(peek: Peek, offset: int) -> tuple[Entry | None, str]:
    """The entry at ``offset``; ``None``, and why, if there is none."""
    try:
        entry = Entry.unpack(peek.read(offset, Entry.SIZE))
    except (ReadError, FormatError) as error:
        return None, f"could not be read: {error.args[0]}"
    if entry.signature != ENTRY_SIGNATURE:
        return None, f"expected the signature PM at 0x{offset:x}, found none"
    return entry, ""


def _partition(entry: Entry, index: int, start: int, length: int) -> Partition:
    code = _text(entry.type)
    return Partition(
        index=index,
        start=start,
        length=length,
        type=apm_type_name(code),
        code=code,
        name=_text(entry.name),
        flags=("boot",) if entry.status & _BOOTABLE else (),
        is_free=code in _FREE_TYPES,
    )


def _text(field: bytes) -> str:
    """As Linux tools write it, or as Macs do."""
    text = field.partition(b"\0")[0]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("mac_roman")
