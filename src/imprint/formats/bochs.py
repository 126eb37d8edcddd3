"""Growing images ("redologs") of the Bochs emulator, version 1 and 2. Only read.

::

    0x000  header, 512 bytes in practice
    header_size   catalog: one 32-bit number of an extent for each part of the disk
    …             extents: a bitmap in whole sectors, then the sectors it speaks of

All integers are little-endian. There is no specification.

Source: Bochs ``iodev/hdimage/hdimage.h`` (``redolog_header_t``); QEMU ``block/bochs.c``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import TruncatedImageError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Match
from imprint.core.image import Image
from imprint.core.info import ImageInfo
from imprint.core.layout import Structure, raw, uint
from imprint.core.readonly import ReadOnlyFormat
from imprint.core.tables import read_table, run_length
from imprint.core.units import MIB, align_up, div_up

if TYPE_CHECKING:
    from array import array

    from imprint.core.contracts import Opener, Storage

MAGIC: Final = b"Bochs Virtual HD Image"
TYPE_REDOLOG: Final = b"Redolog"
SUBTYPE_GROWING: Final = b"Growing"
VERSIONS: Final = (0x00010000, 0x00020000)
ABSENT: Final = 0xFFFFFFFF
SECTOR_BYTES: Final = 512

CATALOG_ENTRIES_MAX: Final = 1 << 20
EXTENT_BYTES_MAX: Final = 8 * MIB
"""Both are what QEMU opens; Bochs makes catalogs of 16 Ki entries and extents of 4 MiB."""


class Header(Structure, size=0x60, endian="<"):
    """The part of the header that says something."""

    magic: bytes = raw(32, at=0x00, doc="MAGIC, padded with zeros")
    kind: bytes = raw(16, at=0x20, doc="TYPE_REDOLOG, padded")
    subtype: bytes = raw(16, at=0x30, doc="Growing; Undoable and Volatile have a base image")
    version: int = uint(4, at=0x40, doc="one of VERSIONS")
    header_size: int = uint(4, at=0x44, doc="in bytes; the catalog follows")
    catalog_entries: int = uint(4, at=0x48, doc="of the catalog")
    bitmap_size: int = uint(4, at=0x4C, doc="of an extent's bitmap, in bytes; a bit per sector")
    extent_size: int = uint(4, at=0x50, doc="of the disk's part in an extent, in bytes")
    tail: bytes = raw(12, at=0x54, doc="version 1: disk size; version 2: time, disk size")

    @property
    def disk_size(self) -> int:
        """In bytes."""
        start = 0 if self.version == VERSIONS[0] else 4
        return int.from_bytes(self.tail[start : start + 8], "little")

    @property
    def data_offset(self) -> int:
        """Where extent 0 begins in the file."""
        return self.header_size + 4 * self.catalog_entries

    @property
    def bitmap_bytes(self) -> int:
        """Of an extent's bitmap in the file: whole sectors."""
        return align_up(self.bitmap_size, SECTOR_BYTES)

    @property
    def stride(self) -> int:
        """From one extent to the next in the file."""
        return self.bitmap_bytes + self.extent_size


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the format or the file's size.
        UnsupportedFeatureError: for another version, type or subtype.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("magic", header.magic.rstrip(b"\0") == MAGIC, repr(MAGIC))
    lacking("kind", header.kind.rstrip(b"\0") == TYPE_REDOLOG, repr(TYPE_REDOLOG))
    is_growing = header.subtype.rstrip(b"\0") == SUBTYPE_GROWING
    lacking("subtype", is_growing, f"{SUBTYPE_GROWING!r}; others need an image that is not named")
    lacking("version", header.version in VERSIONS, "0x10000 or 0x20000")
    need("header_size", header.header_size >= Header.SIZE, f"at least 0x{Header.SIZE:x}")
    size = header.extent_size
    need("extent_size", size % SECTOR_BYTES == 0 and size > 0, "whole sectors")
    lacking("extent_size", size <= EXTENT_BYTES_MAX, f"at most 0x{EXTENT_BYTES_MAX:x}")
    bits_needed = size // SECTOR_BYTES
    bits = header.bitmap_size * 8
    need("bitmap_size", bits_needed <= bits, f"at least {div_up(bits_needed, 8)}")
    lacking("bitmap_size", header.bitmap_size <= EXTENT_BYTES_MAX, f"at most {EXTENT_BYTES_MAX}")
    entries_needed = div_up(header.disk_size, size)
    need("catalog_entries", header.catalog_entries >= entries_needed, f"at least {entries_needed}")
    limit = CATALOG_ENTRIES_MAX
    lacking("catalog_entries", header.catalog_entries <= limit, f"at most {limit}")
    return header


class BochsLayer:
    """A growing image opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, header: Header, catalog: array[int]) -> None:
        self._storage = storage
        self._header = header
        self._catalog = catalog
        # The bitmap that was looked at last: a copy asks for one extent many times.
        self._last: tuple[int, int] = (ABSENT, 0)

    @property
    def size(self) -> int:
        """As the header says."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is what a catalog entry stands for."""
        return Traits(grain=self._header.extent_size)

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is: absent extents by runs, others by runs of sectors alike.

        Raises:
            TruncatedImageError: if it lies behind the end of the file.
        """
        header = self._header
        index, within = divmod(offset, header.extent_size)
        number = self._catalog[index]
        if number == ABSENT:
            wanted = div_up(within + length, header.extent_size)
            run = run_length(self._catalog, index, wanted)
            return Extent(offset, min(length, run * header.extent_size - within), Kind.HOLE)
        sector, inner = divmod(within, SECTOR_BYTES)
        bits = self._bitmap(number) >> sector
        is_present = bool(bits & 1)
        # The number of low bits that are alike: those below the lowest that differs.
        other = ~bits if is_present else bits
        run = (other & -other).bit_length() - 1
        run = header.extent_size if run < 0 else run * SECTOR_BYTES - inner
        length = min(length, run, header.extent_size - within)
        if not is_present:
            return Extent(offset, length, Kind.HOLE)
        position = self._start(number) + header.bitmap_bytes + within
        if position >= self._storage.size:
            raise self._truncated(number, position)
        return Extent(offset, length, Kind.DATA, self._storage, position)

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What the header says."""
        header = self._header
        options = {"version": header.version >> 16, "extent_size": header.extent_size}
        return ImageInfo("bochs", header.disk_size, options=options)

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _start(self, number: int) -> int:
        return self._header.data_offset + number * self._header.stride

    def _bitmap(self, number: int) -> int:
        """The bitmap of an extent as one number, bit 0 for its first sector."""
        last, bits = self._last  # one tuple, so that threads need no lock
        if last == number:
            return bits
        start, size = self._start(number), self._header.bitmap_size
        if start + size > self._storage.size:
            raise self._truncated(number, start)
        stored = bytearray(size)
        self._storage.readinto(memoryview(stored), start)
        bits = int.from_bytes(stored, "little")
        self._last = (number, bits)
        return bits

    def _truncated(self, number: int, position: int) -> TruncatedImageError:
        return TruncatedImageError(
            f"extent {number}: expected it at 0x{position:x}, "
            f"found a file of {self._storage.size} bytes",
            name=self._storage.name,
            offset=position,
        )


class BochsFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "bochs"
    title = "Bochs growing image"

    def probe(self, storage: Storage) -> Match:
        """The magic."""
        head = bytearray(min(32, storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head.rstrip(b"\0") == MAGIC else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading."""
        del opener
        header = read_header(storage)
        count = header.catalog_entries
        catalog = read_table(storage, header.header_size, count, "I", "little")
        return Image(BochsLayer(storage, header, catalog), name=storage.name)


FORMAT: Final = BochsFormat()
