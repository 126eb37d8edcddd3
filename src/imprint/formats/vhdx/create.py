"""Laying out a new VHDX, and predicting its size."""

from __future__ import annotations

import uuid
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.image import Image
from imprint.core.units import MIB, TIB, align_up, div_up
from imprint.formats.vhdx.bat import Bat, check_count
from imprint.formats.vhdx.header import Headers, Region, Regions, write_regions
from imprint.formats.vhdx.journal import seal_header
from imprint.formats.vhdx.layer import Tables
from imprint.formats.vhdx.layout import (
    ALIGNMENT,
    BLOCK_SIZE_MAX,
    BLOCK_SIZE_MIN,
    DISK_BYTES_MAX,
    FULLY_PRESENT,
    HEADER_OFFSETS,
    HEADER_SECTION_BYTES,
    REGION_BAT,
    REGION_METADATA,
    SECTOR_SIZES,
    SIGNATURE,
    ZERO,
    Header,
    Identifier,
    RegionEntry,
)
from imprint.formats.vhdx.locator import pack_locator
from imprint.formats.vhdx.metadata import Metadata, pack_metadata
from imprint.formats.vhdx.parent import locator_for
from imprint.formats.vhdx.writer import WritableVhdxLayer

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage
    from imprint.core.formats import CreateSpec

SUBFORMAT: Final = Option(
    "subformat",
    "dynamic: a block is stored when it is written; fixed: all are from the start",
    choices=("dynamic", "fixed"),
)
BLOCK_SIZE: Final = Option(
    "block_size",
    "what is allocated at a time, a power of two from 1M to 256M; by default 1M up to 1 TiB",
    OptionKind.SIZE,
)
LOG_SIZE: Final = Option("log_size", "of the log, in whole MiB", OptionKind.SIZE, default=1 * MIB)
SECTOR_SIZE: Final = Option(
    "logical_sector_size",
    "what the disk's user can address; 4096 makes a 4Kn disk, which QEMU does not read",
    OptionKind.NUMBER,
    choices=SECTOR_SIZES,
)
STATE_ZERO: Final = Option(
    "block_state_zero",
    "on: mark what is not written as zero instead of not present",
    OptionKind.SWITCH,
    default=False,
)
UUID: Final = Option("uuid", "of the virtual disk; by default a random one")
OPTIONS: Final = (SUBFORMAT, BLOCK_SIZE, LOG_SIZE, SECTOR_SIZE, STATE_ZERO, UUID)

LOG_SIZE_MAX: Final = 64 * MIB
METADATA_BYTES: Final = 1 * MIB

_CREATOR: Final = "imprint"


@dataclass(frozen=True)
class Plan:
    """Where everything goes.

    Attributes:
        metadata: of the disk.
        log: the log's place.
        meta: the metadata region.
        bat: the block allocation table's region.
        state_zero: whether what is not written is marked as zero.
        guids: of the first header: of the file's and of the data's writing.
    """

    metadata: Metadata
    log: Region
    meta: Region
    bat: Region
    state_zero: bool
    guids: tuple[bytes, bytes]

    @property
    def data_offset(self) -> int:
        """Where blocks begin."""
        return self.bat.end


def plan(spec: CreateSpec) -> Plan:
    """The layout of the image that ``spec`` asks for.

    Raises:
        UsageError: if it makes no sense.
    """
    options = spec.options
    locator = None
    if spec.parent is not None:
        locator = locator_for(spec.parent, spec.parent_source)
        if options.get("subformat") == "fixed":
            raise UsageError("a fixed vhdx cannot have a parent")
        if options.get("block_state_zero"):
            raise UsageError("block_state_zero would hide the parent")
    inherited = _parent_sector(spec.parent_source)
    sector = int(options.get("logical_sector_size", inherited))
    if spec.parent is not None and sector != inherited:
        raise UsageError(
            f"option logical_sector_size: expected that of the parent, {inherited}, found {sector}"
        )
    size = align_up(spec.size, sector)
    check_size(size, sector)
    disk_id = _disk_id(spec)
    metadata = Metadata(
        block_size=_block_size(spec, size),
        disk_size=size,
        disk_id=disk_id.bytes_le,
        logical_sector=sector,
        is_fixed=options.get("subformat") == "fixed",
        locator=locator,
    )
    check_count(metadata)
    log = Region(HEADER_SECTION_BYTES, _log_size(spec))
    meta = Region(log.end, METADATA_BYTES)
    bat = Region(meta.end, bat_bytes(metadata))
    is_given = options.get("uuid") is not None
    # Derived, so that whoever gives the UUID gets the same file each time; an overlay that is
    # made anew over a parent that has changed is another one for its own children.
    linkage = (locator or {}).get("parent_linkage", "")
    file_write = uuid.uuid5(disk_id, "file" + linkage) if is_given else uuid.uuid4()
    data_write = uuid.uuid5(disk_id, "data" + linkage) if is_given else uuid.uuid4()
    guids = (file_write.bytes_le, data_write.bytes_le)
    return Plan(metadata, log, meta, bat, bool(options.get("block_state_zero")), guids)


def create_layer(storage: Storage, spec: CreateSpec) -> WritableVhdxLayer:
    """Write everything of an empty disk. Durable at the layer's first flush.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
    """
    made = plan(spec)
    metadata = made.metadata
    bat = _empty_bat(made)
    end = made.data_offset
    if metadata.is_fixed:
        end += metadata.block_count * metadata.block_size
    storage.resize(end)
    identifier = Identifier(signature=SIGNATURE, creator=_CREATOR.encode("utf-16-le"))
    storage.write(memoryview(identifier.pack()), 0)
    entries = (
        RegionEntry(guid=REGION_BAT, offset=made.bat.offset, length=made.bat.length, required=1),
        RegionEntry(
            guid=REGION_METADATA, offset=made.meta.offset, length=made.meta.length, required=1
        ),
    )
    write_regions(storage, entries)
    locator = None if metadata.locator is None else pack_locator(metadata.locator)
    storage.write(memoryview(pack_metadata(metadata, locator, [])), made.meta.offset)
    if metadata.is_fixed or made.state_zero:
        bat.write_all(storage)
    headers = _write_headers(storage, made)
    regions = Regions(entries, made.bat, made.meta, (True, True))
    return WritableVhdxLayer(Tables(storage, headers, regions, metadata), bat, is_fresh=True)


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Blocks that have data, and what lies before them."""
    made = plan(spec)
    size = made.metadata.block_size
    full = made.data_offset + made.metadata.block_count * size
    if made.metadata.is_fixed:
        return Measure(full, full)
    used = behind = 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(behind, extent.offset // size)
            behind = max(behind, div_up(extent.end, size))
            used += max(0, behind - first)
    return Measure(made.data_offset + used * size, full)


def check_size(size: int, sector: int) -> None:
    """Refuse a disk that VHDX cannot hold.

    Raises:
        UsageError: if it cannot.
    """
    if size % sector:
        raise UsageError(
            f"vhdx: expected a size in whole sectors of {sector} bytes, found {size}",
            advice=f"{align_up(size, sector)} bytes would be",
        )
    if size > DISK_BYTES_MAX:
        raise UsageError(f"vhdx: expected at most 64 TiB, found {size} bytes")


def bat_bytes(metadata: Metadata) -> int:
    """Length of the region for a disk's BAT: as if it had a parent, so that it can get one."""
    chunks = div_up(metadata.block_count, metadata.chunk_ratio)
    return max(ALIGNMENT, align_up(8 * chunks * (metadata.chunk_ratio + 1), ALIGNMENT))


def _empty_bat(made: Plan) -> Bat:
    metadata = made.metadata
    bat = Bat(array("Q"), made.bat, metadata).resized(made.bat, metadata)
    if metadata.is_fixed:
        for block in range(metadata.block_count):
            position = made.data_offset + block * metadata.block_size
            bat.set_payload(block, position | FULLY_PRESENT)
    elif made.state_zero:
        bat.fill(0, metadata.block_count, ZERO)
    bat.dirty.clear()  # it is written whole
    return bat


def _write_headers(storage: Storage, made: Plan) -> Headers:
    for number, offset in enumerate(HEADER_OFFSETS):
        header = Header(
            signature=b"head",
            sequence=number + 1,
            file_write_guid=made.guids[0],
            data_write_guid=made.guids[1],
            version=1,
            log_length=made.log.length,
            log_offset=made.log.offset,
        )
        storage.write(memoryview(seal_header(header)), offset)
    return Headers(header, 1, (True, True))


def _block_size(spec: CreateSpec, size: int) -> int:
    given = spec.options.get("block_size")
    if given is None:
        # 1 MiB is what Microsoft advises for Linux; larger disks need a table that fits.
        block_size = BLOCK_SIZE_MIN
        while block_size < 64 * MIB and size > block_size // MIB * TIB:
            block_size *= 2
        return block_size
    assert isinstance(given, int)
    if given.bit_count() != 1 or not BLOCK_SIZE_MIN <= given <= BLOCK_SIZE_MAX:
        raise UsageError(
            f"option block_size: expected a power of two from 1M to 256M, found {given}"
        )
    return given


def _log_size(spec: CreateSpec) -> int:
    size = spec.options.get("log_size", LOG_SIZE.default)
    assert isinstance(size, int)
    if size % MIB or not 0 < size <= LOG_SIZE_MAX:
        raise UsageError(f"option log_size: expected whole MiB up to 64M, found {size}")
    return size


def _parent_sector(parent: Source | None) -> int:
    """The sectors of a child are its parent's."""
    if isinstance(parent, Image):
        sector = parent.traits.logical_sector
        return sector if sector in SECTOR_SIZES else SECTOR_SIZES[0]
    return SECTOR_SIZES[0]


def _disk_id(spec: CreateSpec) -> uuid.UUID:
    given = spec.options.get("uuid")
    if given is None:
        return uuid.uuid4()
    try:
        found = uuid.UUID(str(given))
    except ValueError:
        raise UsageError(f"expected a UUID, found {given!r}") from None
    if found.int == 0:
        raise UsageError("expected a UUID that is not zero")
    return found
