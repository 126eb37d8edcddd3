"""The metadata region: what is known of the disk, as items in a table.

Source: [MS-VHDX] section 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB, align_up, div_up
from imprint.formats.vhdx.header import Region, read
from imprint.formats.vhdx.layout import (
    BLOCK_SIZE_MAX,
    BLOCK_SIZE_MIN,
    CHUNK_SECTORS,
    DISK_BYTES_MAX,
    SECTOR_SIZES,
    MetadataEntry,
    MetadataHeader,
    guid,
    guid_text,
)
from imprint.formats.vhdx.locator import unpack_locator

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

TABLE_BYTES: Final = 64 * KIB
ITEM_COUNT_MAX: Final = 2047
ITEMS_BYTES_MAX: Final = 1 * MIB
"""Of all items together: the specification's limit."""

ITEM_FILE_PARAMETERS: Final = guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
ITEM_DISK_SIZE: Final = guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
ITEM_DISK_ID: Final = guid("beca12ab-b2e6-4523-93ef-c309e000c746")
ITEM_LOGICAL_SECTOR: Final = guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
ITEM_PHYSICAL_SECTOR: Final = guid("cda348c7-445d-4471-9cc9-e9885251c556")
ITEM_PARENT_LOCATOR: Final = guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")

FLAG_USER: Final = 1
FLAG_DISK: Final = 2
FLAG_REQUIRED: Final = 4

_FLAGS: Final = {
    ITEM_FILE_PARAMETERS: FLAG_REQUIRED,
    ITEM_DISK_SIZE: FLAG_REQUIRED | FLAG_DISK,
    ITEM_DISK_ID: FLAG_REQUIRED | FLAG_DISK,
    ITEM_LOGICAL_SECTOR: FLAG_REQUIRED | FLAG_DISK,
    ITEM_PHYSICAL_SECTOR: FLAG_REQUIRED | FLAG_DISK,
    ITEM_PARENT_LOCATOR: FLAG_REQUIRED,
}
_LENGTHS: Final = {
    ITEM_FILE_PARAMETERS: 8,
    ITEM_DISK_SIZE: 8,
    ITEM_DISK_ID: 16,
    ITEM_LOGICAL_SECTOR: 4,
    ITEM_PHYSICAL_SECTOR: 4,
}
_LEAVE_ALLOCATED: Final = 1
_HAS_PARENT: Final = 2


@dataclass(frozen=True)
class Metadata:
    """The items that every VHDX has, and those of differencing images.

    Attributes:
        block_size: in bytes.
        disk_size: in bytes.
        disk_id: of the virtual disk; copies of it have the same.
        logical_sector: 512 or 4096.
        physical_sector: likewise.
        is_fixed: no block gives up its place.
        locator: keys and values that name the parent; ``None``: there is none.
    """

    block_size: int
    disk_size: int
    disk_id: bytes
    logical_sector: int = 512
    physical_sector: int = 4096
    is_fixed: bool = False
    locator: dict[str, str] | None = None

    @property
    def has_parent(self) -> bool:
        """Whether what is not present is read from another image."""
        return self.locator is not None

    @property
    def block_count(self) -> int:
        """Payload blocks of the disk."""
        return div_up(self.disk_size, self.block_size)

    @property
    def chunk_ratio(self) -> int:
        """Payload blocks for each sector bitmap block."""
        return CHUNK_SECTORS * self.logical_sector // self.block_size

    @property
    def entry_count(self) -> int:
        """Entries of the BAT: a bitmap's stands behind those of each whole chunk.

        If there is a parent, it stands behind the last chunk too, which then counts as whole.
        """
        count, ratio = self.block_count, self.chunk_ratio
        if self.has_parent:
            return div_up(count, ratio) * (ratio + 1)
        return count + max(0, count - 1) // ratio

    def items(self) -> dict[bytes, bytes]:
        """As they stand in the file; the locator apart."""
        flags = _LEAVE_ALLOCATED * self.is_fixed | _HAS_PARENT * self.has_parent
        return {
            ITEM_FILE_PARAMETERS: _numbers(self.block_size, flags),
            ITEM_DISK_SIZE: self.disk_size.to_bytes(8, "little"),
            ITEM_DISK_ID: self.disk_id,
            ITEM_LOGICAL_SECTOR: _numbers(self.logical_sector),
            ITEM_PHYSICAL_SECTOR: _numbers(self.physical_sector),
        }

    def resized(self, size: int) -> Metadata:
        """The same of a disk of another size."""
        return replace(self, disk_size=size)


def read_metadata(storage: Storage, region: Region) -> Metadata:
    """Read and check all items.

    Raises:
        CorruptImageError: if an item is missing, or has a value that it cannot have.
        UnsupportedFeatureError: for a required item that is not known.
    """
    entries = read_entries(storage, region)
    by_guid = {entry.guid: entry for entry in entries if not entry.flags & FLAG_USER}
    values = {}
    for entry in entries:
        is_known = entry.guid in _FLAGS and not entry.flags & FLAG_USER
        if entry.flags & FLAG_REQUIRED and not is_known:
            raise UnsupportedFeatureError(
                f"needs the metadata item {guid_text(entry.guid)}, which imprint does not know",
                name=storage.name,
                offset=region.offset,
            )
    for item, length in _LENGTHS.items():
        if item not in by_guid or by_guid[item].length < length:
            raise CorruptImageError(
                f"expected the metadata item {guid_text(item)} of {length} bytes",
                name=storage.name,
                offset=region.offset,
            )
        values[item] = read(storage, region.offset + by_guid[item].offset, length)
    flags = int.from_bytes(values[ITEM_FILE_PARAMETERS][4:], "little")
    locator = None
    if flags & _HAS_PARENT:
        place = by_guid.get(ITEM_PARENT_LOCATOR)
        if place is None:
            raise CorruptImageError("expected a parent locator, found none", name=storage.name)
        locator = unpack_locator(storage, region.offset + place.offset, place.length)
    found = Metadata(
        block_size=int.from_bytes(values[ITEM_FILE_PARAMETERS][:4], "little"),
        disk_size=int.from_bytes(values[ITEM_DISK_SIZE], "little"),
        disk_id=values[ITEM_DISK_ID],
        logical_sector=int.from_bytes(values[ITEM_LOGICAL_SECTOR], "little"),
        physical_sector=int.from_bytes(values[ITEM_PHYSICAL_SECTOR], "little"),
        is_fixed=bool(flags & _LEAVE_ALLOCATED),
        locator=locator,
    )
    _check(storage, found)
    return found


def read_entries(storage: Storage, region: Region) -> list[MetadataEntry]:
    """The table, every entry checked against the region.

    Raises:
        CorruptImageError: if it is not a table, or an item lies outside the region.
    """
    table = read(storage, region.offset, TABLE_BYTES)
    head = MetadataHeader.unpack(table)
    need = partial(head.require, where=storage.name, at=region.offset)
    need("signature", head.signature == b"metadata", "'metadata'")
    need("count", head.count <= ITEM_COUNT_MAX, f"at most {ITEM_COUNT_MAX}")
    entries = []
    for index in range(head.count):
        at = MetadataHeader.SIZE + MetadataEntry.SIZE * index
        entry = MetadataEntry.unpack(table[at:])
        need = partial(entry.require, where=storage.name, at=region.offset + at)
        need("length", entry.length <= ITEMS_BYTES_MAX, f"at most 0x{ITEMS_BYTES_MAX:x}")
        if entry.length:
            is_inside = TABLE_BYTES <= entry.offset <= region.length - entry.length
            need("offset", is_inside, "an item inside the region, behind the table")
        entries.append(entry)
    return entries


def pack_metadata(
    metadata: Metadata, locator: bytes | None, others: list[tuple[MetadataEntry, bytes]]
) -> bytes:
    """The table and its items; ``others`` are kept as they were, at new places.

    Raises:
        UnsupportedFeatureError: if they are larger than the format allows.
    """
    items = metadata.items()
    if locator is not None:
        items[ITEM_PARENT_LOCATOR] = locator
    listed = [
        (MetadataEntry(guid=key, length=len(value), flags=_FLAGS[key]), value)
        for key, value in items.items()
    ]
    entries, body, at = [], bytearray(), TABLE_BYTES
    for entry, value in [*listed, *others]:
        entries.append(entry.replace(offset=at if value else 0).pack())
        body += value.ljust(align_up(len(value), 8), b"\0")
        at = TABLE_BYTES + len(body)
    if len(body) > ITEMS_BYTES_MAX - TABLE_BYTES or len(entries) > ITEM_COUNT_MAX:
        raise UnsupportedFeatureError("the metadata has more items than fit into their region")
    head = MetadataHeader(signature=b"metadata", count=len(entries)).pack()
    return (head + b"".join(entries)).ljust(TABLE_BYTES, b"\0") + bytes(body)


def read_others(storage: Storage, region: Region) -> list[tuple[MetadataEntry, bytes]]:
    """Items that we do not know, but keep."""
    found = []
    total = 0
    for entry in read_entries(storage, region):
        if entry.guid in _FLAGS and not entry.flags & FLAG_USER:
            continue
        total += entry.length
        if total > ITEMS_BYTES_MAX:
            raise CorruptImageError("expected at most 1 MiB of metadata", name=storage.name)
        found.append((entry, read(storage, region.offset + entry.offset, entry.length)))
    return found


def _check(storage: Storage, found: Metadata) -> None:
    def need(holds: bool, what: str, value: int) -> None:  # noqa: FBT001 - as of require
        if not holds:
            raise CorruptImageError(f"metadata: expected {what}, found {value}", name=storage.name)

    size = found.block_size
    in_range = BLOCK_SIZE_MIN <= size <= BLOCK_SIZE_MAX and size.bit_count() == 1
    need(in_range, "a block size that is a power of two from 1 to 256 MiB", size)
    sector = found.logical_sector
    need(sector in SECTOR_SIZES, "logical sectors of 512 or 4096 bytes", sector)
    physical = found.physical_sector
    need(physical in SECTOR_SIZES, "physical sectors of 512 or 4096 bytes", physical)
    whole = found.disk_size % sector == 0 and found.disk_size <= DISK_BYTES_MAX
    need(whole, f"a disk of whole sectors of {sector} bytes, up to 64 TiB", found.disk_size)


def _numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)
