"""The header section: which header counts, and where the regions are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.formats.vhdx.layout import (
    ALIGNMENT,
    HEADER_OFFSETS,
    HEADER_SECTION_BYTES,
    NO_GUID,
    REGION_BAT,
    REGION_COUNT_MAX,
    REGION_METADATA,
    REGION_TABLE_BYTES,
    REGION_TABLE_OFFSETS,
    SIGNATURE,
    Header,
    RegionEntry,
    RegionHeader,
    guid_text,
    is_sealed,
    sealed,
)

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

LOG_BYTES_MAX: Final = 64 * MIB
"""Of a log that has to be replayed, since it is read at once; 1 MiB in practice."""

SEQUENCE_MAX: Final = 1 << 63
"""Of a header: so that there is a next one. It is 9 in practice."""


@dataclass(frozen=True)
class Headers:
    """What the two headers say.

    Attributes:
        header: the one that counts.
        slot: 0 or 1: which one it is.
        valid: whether each of them is sound.
    """

    header: Header
    slot: int
    valid: tuple[bool, bool]

    @property
    def is_dirty(self) -> bool:
        """Whether the log has to be replayed before anything else is believed."""
        return self.header.log_guid != NO_GUID


@dataclass(frozen=True)
class Region:
    """A part of the file, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


@dataclass(frozen=True)
class Regions:
    """What the region tables say.

    Attributes:
        entries: all of them, as they stand in the table.
        bat: the block allocation table.
        metadata: what is known of the disk.
        valid: whether each of the two tables is sound.
    """

    entries: tuple[RegionEntry, ...]
    bat: Region
    metadata: Region
    valid: tuple[bool, bool]

    def used(self) -> list[Region]:
        """All regions, whatever they are for."""
        return [Region(entry.offset, entry.length) for entry in self.entries]


def read_headers(storage: Storage) -> Headers:
    """Read both headers, and choose.

    Raises:
        CorruptImageError: if neither is sound, or the log lies where it cannot.
        UnsupportedFeatureError: for another version of the format or of the log.
    """
    if read(storage, 0, len(SIGNATURE)) != SIGNATURE:
        raise CorruptImageError("expected a file that begins with 'vhdxfile'", name=storage.name)
    found: list[Header | None] = []
    for offset in HEADER_OFFSETS:
        data = read(storage, offset, Header.SIZE)
        is_sound = data[:4] == b"head" and is_sealed(data)
        found.append(Header.unpack(data) if is_sound else None)
    best = max(
        ((header.sequence, -slot, header) for slot, header in enumerate(found) if header),
        key=lambda item: item[:2],
        default=None,
    )
    if best is None:
        raise CorruptImageError(
            "expected at least one header with the right CRC-32C, found none",
            name=storage.name,
            offset=HEADER_OFFSETS[0],
        )
    header, slot = best[2], -best[1]
    need = partial(header.require, where=storage.name, at=HEADER_OFFSETS[slot])
    need("sequence", header.sequence < SEQUENCE_MAX, f"below 0x{SEQUENCE_MAX:x}")
    need("version", header.version == 1, "1", error=UnsupportedFeatureError)
    if header.log_guid != NO_GUID:
        need("log_version", header.log_version == 0, "0", error=UnsupportedFeatureError)
        check_log(storage, header, HEADER_OFFSETS[slot])
        small = header.log_length <= LOG_BYTES_MAX
        need("log_length", small, f"at most 0x{LOG_BYTES_MAX:x}", error=UnsupportedFeatureError)
    return Headers(header, slot, (found[0] is not None, found[1] is not None))


def check_log(storage: Storage, header: Header, at: int) -> None:
    """Refuse a log that is not wholly in the file, or nothing at all.

    Raises:
        CorruptImageError: if it is so.
    """
    need = partial(header.require, where=storage.name, at=at)
    length, offset = header.log_length, header.log_offset
    need("log_length", length > 0 and length % ALIGNMENT == 0, "a multiple of 1 MiB")
    aligned = offset >= HEADER_SECTION_BYTES and offset % ALIGNMENT == 0
    need("log_offset", aligned, "a multiple of 1 MiB, behind the first")
    need("log_offset", offset + length <= storage.size, f"inside the file's {storage.size} bytes")


def read_regions(storage: Storage) -> Regions:
    """Read both region tables; the first one that is sound counts.

    Raises:
        CorruptImageError: if neither is sound, or a region lies where it cannot.
        UnsupportedFeatureError: for a required region that is not known.
    """
    tables = [read(storage, offset, REGION_TABLE_BYTES) for offset in REGION_TABLE_OFFSETS]
    valid = [data[:4] == b"regi" and is_sealed(data) for data in tables]
    if not any(valid):
        raise CorruptImageError(
            "expected at least one region table with the right CRC-32C, found none",
            name=storage.name,
            offset=REGION_TABLE_OFFSETS[0],
        )
    slot = valid.index(True)
    data, at = tables[slot], REGION_TABLE_OFFSETS[slot]
    head = RegionHeader.unpack(data)
    head.require(
        *("count", head.count <= REGION_COUNT_MAX, f"at most {REGION_COUNT_MAX}"),
        where=storage.name,
        at=at,
    )
    entries = []
    for index in range(head.count):
        place = RegionHeader.SIZE + RegionEntry.SIZE * index
        entry = RegionEntry.unpack(data[place:])
        _check_region(storage, entry, at + place)
        entries.append(entry)
    by_guid = {entry.guid: Region(entry.offset, entry.length) for entry in entries}
    if len(by_guid) != len(entries):
        raise CorruptImageError("expected each region once", name=storage.name, offset=at)
    try:
        bat, metadata = by_guid[REGION_BAT], by_guid[REGION_METADATA]
    except KeyError:
        raise CorruptImageError(
            "expected a BAT and a metadata region", name=storage.name, offset=at
        ) from None
    ordered = sorted(by_guid.values(), key=lambda region: region.offset)
    for before, region in itertools.pairwise(ordered):
        if region.offset < before.end:
            raise CorruptImageError(
                "expected regions that do not overlap", name=storage.name, offset=region.offset
            )
    return Regions(tuple(entries), bat, metadata, (valid[0], valid[1]))


def _check_region(storage: Storage, entry: RegionEntry, at: int) -> None:
    need = partial(entry.require, where=storage.name, at=at)
    if entry.guid not in (REGION_BAT, REGION_METADATA) and entry.required & 1:
        raise UnsupportedFeatureError(
            f"needs the region {guid_text(entry.guid)}, which imprint does not know",
            name=storage.name,
            offset=at,
        )
    aligned = entry.offset >= HEADER_SECTION_BYTES and entry.offset % ALIGNMENT == 0
    need("offset", aligned, "a multiple of 1 MiB, behind the first")
    need("length", entry.length > 0 and entry.length % ALIGNMENT == 0, "a multiple of 1 MiB")
    is_inside = entry.offset + entry.length <= storage.size
    need("offset", is_inside, f"a region inside the file's {storage.size} bytes")


def pack_regions(entries: tuple[RegionEntry, ...]) -> bytes:
    """A region table as it stands in the file."""
    body = b"".join(entry.pack() for entry in entries)
    head = RegionHeader(signature=b"regi", count=len(entries)).pack()
    return sealed((head + body).ljust(REGION_TABLE_BYTES, b"\0"))


def write_regions(
    storage: Storage, entries: tuple[RegionEntry, ...], valid: tuple[bool, bool] = (True, True)
) -> None:
    """Write both tables, each made durable; the one that does not count first."""
    table = pack_regions(entries)
    order = (0, 1) if valid[1] else (1, 0)
    for slot in order:
        storage.write(memoryview(table), REGION_TABLE_OFFSETS[slot])
        storage.flush()


def read(storage: Storage, offset: int, length: int) -> bytes:
    """Bytes of the file.

    Raises:
        TruncatedImageError: if it ends before them.
    """
    if offset + length > storage.size:
        raise TruncatedImageError(
            f"expected {length} bytes at 0x{offset:x}, found a file of {storage.size} bytes",
            name=storage.name,
            offset=offset,
            length=length,
        )
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)
