"""Images ("redologs") of the Bochs emulator, version 1 and 2. Only read.

::

    0x000  header, 512 bytes in practice
    header_size   catalog: one 32-bit number of an extent for each part of the disk
    …             extents: a bitmap in whole sectors, then the sectors it speaks of

Growing images stand alone. Undoable and volatile ones have what was written over another image,
which only their own file's name tells: ``disk.img.redolog`` is of ``disk.img``, as is
``disk.img.`` with six random letters. All integers are little-endian. There is no specification.

Source: Bochs ``iodev/hdimage/hdimage.h`` (``redolog_header_t``) and ``hdimage.cc``
(``undoable_image_t``, ``volatile_image_t``); QEMU ``block/bochs.c``.
"""

from __future__ import annotations

from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.contracts import Reference, Traits
from imprint.core.errors import (
    ReferenceRefusedError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.info import ImageInfo
from imprint.core.layout import Structure, raw, uint
from imprint.core.readonly import ReadOnlyFormat
from imprint.core.tables import read_table, run_length
from imprint.core.units import MIB, align_up, div_up
from imprint.core.usage import findings

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding
    from imprint.core.info import Value

MAGIC: Final = b"Bochs Virtual HD Image"
TYPE_REDOLOG: Final = b"Redolog"
SUBTYPE_GROWING: Final = b"Growing"
SUBTYPES: Final = (SUBTYPE_GROWING, b"Undoable", b"Volatile")
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
    subtype: bytes = raw(16, at=0x30, doc="one of SUBTYPES; all but the first have a base")
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
    def has_base(self) -> bool:
        """Whether what was never written is in another image."""
        return self.subtype.rstrip(b"\0") != SUBTYPE_GROWING

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
    lacking("subtype", header.subtype.rstrip(b"\0") in SUBTYPES, "Growing, Undoable or Volatile")
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

    def __init__(
        self, storage: Storage, header: Header, catalog: array[int], base: str | None = None
    ) -> None:
        """``base`` is the name of the image below, for :meth:`info`."""
        self._base = base
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
        options: dict[str, Value] = {
            "version": header.version >> 16,
            "subtype": header.subtype.rstrip(b"\0").decode("ascii").lower(),
            "extent_size": header.extent_size,
        }
        notes: tuple[str, ...] = ()
        if self._base is not None:
            notes = ("The image below is known by the file's name only.",)
        return ImageInfo("bochs", header.disk_size, options=options, parent=self._base, notes=notes)

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
    title = "Bochs redolog"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The magic."""
        head = bytearray(min(32, storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head.rstrip(b"\0") == MAGIC else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with the base of an undoable or volatile image.

        Raises:
            ReferenceRefusedError: if it is not there, or may not be opened.
        """
        header, catalog = _read(storage)
        if not header.has_base:
            return Image(BochsLayer(storage, header, catalog), name=storage.name)
        base = _base_name(storage)
        parent = opener.parent(Reference(base), storage)
        layer = BochsLayer(storage, header, catalog, base)
        return Image(layer, name=storage.name, parent=parent)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the catalog with itself and the file; nothing is repaired."""
        del opener, repair
        return findings(_problems(*_read(storage), storage.size))


def _read(storage: Storage) -> tuple[Header, array[int]]:
    header = read_header(storage)
    count = header.catalog_entries
    return header, read_table(storage, header.header_size, count, "I", "little")


def _base_name(storage: Storage) -> str:
    """The image's own name without its last suffix.

    Raises:
        ReferenceRefusedError: if it has none.
    """
    path = PurePath(storage.name)
    if not path.suffix:
        raise ReferenceRefusedError(
            "builds upon an image that only its name could tell: expected NAME.redolog, "
            f"found {path.name!r}",
            name=storage.name,
        )
    return path.stem


def _problems(header: Header, catalog: array[int], file_size: int) -> Iterator[tuple[str, str]]:
    seen: set[int] = set()
    for index, number in enumerate(catalog):
        if number == ABSENT:
            continue
        end = header.data_offset + (number + 1) * header.stride
        what = None
        if number in seen:
            what = f"expected an extent of its own, found {number}, which is used twice"
        elif end > file_size:
            what = f"expected extent {number} to end inside the file, found 0x{end:x}"
        seen.add(number)
        if what is not None:
            yield f"catalog entry {index}", what


FORMAT: Final = BochsFormat()
