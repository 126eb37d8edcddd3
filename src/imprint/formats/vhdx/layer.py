"""Reading a VHDX: lookups in the BAT, and in sector bitmaps where a block is here in part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError
from imprint.core.extent import Extent, Kind, without_holes
from imprint.core.info import ImageInfo
from imprint.core.units import div_up
from imprint.formats.vhdx.bat import Bat, place_of
from imprint.formats.vhdx.header import Headers, Regions, read, read_headers, read_regions
from imprint.formats.vhdx.layout import (
    CHUNK_SECTORS,
    FULLY_PRESENT,
    HEADER_SECTION_BYTES,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    STATE_MASK,
    STATES,
    guid_text,
)
from imprint.formats.vhdx.log import view
from imprint.formats.vhdx.metadata import Metadata, read_metadata
from imprint.formats.vhdx.parent import parent_name

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.info import Value

REPLAYED_NOTE: Final = (
    "The log was not empty: it was replayed in memory, and the file is as it was."
)


@dataclass(frozen=True)
class Tables:
    """Everything in front of the BAT, read and checked.

    Attributes:
        storage: the file, or what it is after the log's replay.
        headers: as they are in the file.
        regions: of ``storage``.
        metadata: likewise.
    """

    storage: Storage
    headers: Headers
    regions: Regions
    metadata: Metadata


def read_tables(storage: Storage) -> Tables:
    """Replay the log in memory if need be, and read what describes the disk.

    Raises:
        CorruptImageError: if something contradicts the format or the file's size.
        UnsupportedFeatureError: for what is required and not known.
    """
    headers = read_headers(storage)
    seen = view(storage, headers)
    regions = read_regions(seen)
    return Tables(seen, headers, regions, read_metadata(seen, regions.metadata))


class VhdxLayer:
    """A VHDX opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, tables: Tables, bat: Bat) -> None:
        self._storage = tables.storage
        self._headers = tables.headers
        self._metadata = tables.metadata
        self._bat = bat
        # A block and its part of the bitmap. Replaced as a whole, so that threads need no lock.
        self._bits: tuple[int, bytes] = (-1, b"")

    @property
    def size(self) -> int:
        """As the metadata say."""
        return self._metadata.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the block."""
        return Traits(
            grain=self._metadata.block_size,
            logical_sector=self._metadata.logical_sector,
            physical_sector=self._metadata.physical_sector,
        )

    @property
    def metadata(self) -> Metadata:
        """As they are in the file, or will be after the next flush."""
        return self._metadata

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many blocks as lie alike.

        Raises:
            CorruptImageError: if its block has a state that there is not, or lies among the
                headers.
            TruncatedImageError: if it begins behind the end of the file.
        """
        block, within = divmod(offset, self._metadata.block_size)
        entry = self._bat.payload(block)
        state = entry & STATE_MASK
        if state not in STATES:
            raise CorruptImageError(
                f"block {block}: expected one of the states {STATES}, found {state}",
                name=self._storage.name,
                offset=self._entry_offset(block),
            )
        if state not in (FULLY_PRESENT, PARTIALLY_PRESENT):
            length = min(length, self._run_bytes(block, within, length))
            return Extent(offset, length, Kind.HOLE if state == NOT_PRESENT else Kind.ZERO)
        self._check_place(block, place_of(entry) + within)
        place = self._place(offset, length, block, within)
        if state == PARTIALLY_PRESENT:
            return self._present_part(place, block, within)
        if self._metadata.is_fixed:
            return without_holes(place)
        return place

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What headers and metadata say."""
        metadata, header = self._metadata, self._headers.header
        locator = metadata.locator
        subformat = "fixed" if metadata.is_fixed else "dynamic"
        options: dict[str, Value] = {
            "subformat": subformat if locator is None else "differencing",
            "block_size": metadata.block_size,
            "log_size": header.log_length,
            "logical_sector_size": metadata.logical_sector,
            "physical_sector_size": metadata.physical_sector,
            "data_write_guid": guid_text(header.data_write_guid),
        }
        parent = None
        if locator is not None:
            parent = parent_name(locator)
            options["parent_linkage"] = locator.get("parent_linkage", "").strip("{}").lower()
        notes = (REPLAYED_NOTE,) if self._headers.is_dirty else ()
        return ImageInfo(
            "vhdx",
            metadata.disk_size,
            options=options,
            parent=parent,
            parent_format="vhdx" if parent else None,
            uuid=guid_text(metadata.disk_id),
            notes=notes,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _entry_offset(self, block: int) -> int:
        return self._bat.region.offset + 8 * self._bat.slot(block)

    def _check_place(self, block: int, position: int) -> None:
        if position < HEADER_SECTION_BYTES:
            raise CorruptImageError(
                f"block {block}: expected data behind the headers, found 0x{position:x}",
                name=self._storage.name,
                offset=self._entry_offset(block),
            )
        if position >= self._storage.size:
            raise TruncatedImageError(
                f"block {block}: expected data at 0x{position:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )

    def _run_bytes(self, block: int, within: int, length: int) -> int:
        """Bytes from ``within`` the block on that lie alike, not much over ``length``."""
        size = self._metadata.block_size
        limit = min(self._metadata.block_count - block, div_up(within + length, size))
        return self._bat.run(block, limit) * size - within

    def _place(self, offset: int, length: int, block: int, within: int) -> Extent:
        """The ``DATA`` extent of a block with a place, and those that follow it in the file."""
        run = self._run_bytes(block, within, length)
        position = place_of(self._bat.payload(block)) + within
        return Extent(offset, min(length, run), Kind.DATA, self._storage, position)

    def _present_part(self, place: Extent, block: int, within: int) -> Extent:
        """The sectors at the start of ``place`` that are all here, or all the parent's."""
        bits = self._bitmap_of(block)
        sector_bytes = self._metadata.logical_sector
        first = within // sector_bytes
        is_here = bool(bits[first // 8] >> first % 8 & 1)
        limit = div_up(within + place.length, sector_bytes)
        end = run_of_bits(bits, first, limit, is_here=is_here)
        length = min(place.length, end * sector_bytes - within)
        if is_here:
            return place._replace(length=length)
        return Extent(place.offset, length, Kind.HOLE)

    def _bitmap_of(self, block: int) -> bytes:
        """The bits of a block's sectors, the lowest bit of each byte first."""
        known, bits = self._bits
        if known == block:
            return bits
        entry = self._bat.bitmap(block)
        if not self._metadata.has_parent or entry & STATE_MASK != FULLY_PRESENT:
            raise CorruptImageError(
                f"block {block}: expected a parent and a sector bitmap for a block that is "
                "here in part",
                name=self._storage.name,
                offset=self._entry_offset(block),
            )
        length = self._metadata.block_size // self._metadata.logical_sector // 8
        assert length * self._bat.ratio == CHUNK_SECTORS // 8
        bits = read(self._storage, place_of(entry) + block % self._bat.ratio * length, length)
        self._bits = (block, bits)
        return bits


def run_of_bits(bits: bytes, first: int, limit: int, *, is_here: bool) -> int:
    """The first bit behind ``first``, at most ``limit``, that is another one."""
    same = 0xFF if is_here else 0
    at = first
    while at < limit and at % 8:
        if bool(bits[at // 8] >> at % 8 & 1) != is_here:
            return at
        at += 1
    rest = bits[at // 8 : div_up(limit, 8)]
    at += 8 * (len(rest) - len(rest.lstrip(bytes([same]))))
    while at < limit and bool(bits[at // 8] >> at % 8 & 1) == is_here:
        at += 1
    return min(at, limit)


def open_layer(tables: Tables) -> VhdxLayer:
    """Read the BAT as well.

    Raises:
        CorruptImageError: if its region is too small.
        UnsupportedFeatureError: if it is larger than imprint reads.
    """
    bat = Bat.load(tables.storage, tables.regions.bat, tables.metadata)
    return VhdxLayer(tables, bat)
