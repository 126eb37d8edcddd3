"""VHD on-disk structures, and what has to hold of them before anything is computed from them.

::

    fixed                            dynamic and differencing
    0x000  the disk                  0x000  copy of the footer
    end    footer                    0x200  header; behind it the parent's names
                                            block table: one 32-bit sector number a block
                                            blocks: a bitmap of their sectors, then their data
                                     end    footer

All integers are big-endian, sizes are in bytes. Checksums are known to be wrong in real files,
so a wrong one is told and not refused.

Source: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0 (2006); which size counts:
QEMU ``block/vpc.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import GIB, MIB, align_up, div_up
from imprint.formats.vhd.geometry import CHS_MAX, Geometry

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.formats import SizePolicy

SECTOR_BYTES: Final = 512
FOOTER_COOKIE: Final = b"conectix"
HEADER_COOKIE: Final = b"cxsparse"
VERSION_1: Final = 0x00010000
NOWHERE: Final = 0xFFFFFFFFFFFFFFFF
EPOCH_S: Final = 946_684_800
"""2000-01-01 UTC, from which VHD counts seconds."""

TYPE_FIXED: Final = 2
TYPE_DYNAMIC: Final = 3
TYPE_DIFFERENCING: Final = 4
SUBFORMATS: Final = {
    TYPE_FIXED: "fixed",
    TYPE_DYNAMIC: "dynamic",
    TYPE_DIFFERENCING: "differencing",
}

BLOCK_ABSENT: Final = 0xFFFFFFFF
BLOCK_SIZE_MIN: Final = SECTOR_BYTES
BLOCK_SIZE_MAX: Final = 256 * MIB
BLOCK_COUNT_MAX: Final = 1 << 22
"""A table of 16 MiB, 2 TiB in blocks of 512 KiB: refuse more before allocating it."""
DISK_SIZE_MAX: Final = 2040 * GIB
"""Beyond it, the sector number of a block would not fit into the table's 32 bits."""

RESIZING: Final = b"resizing"
"""In the reserved bytes of a fixed image's footer, as long as it stands too far away: after a
kill, that it is farther away than its disk goes is no sign of a raw disk with a copied end."""

ASKED: Final = "asked for"
"""Why a size is the geometry's or not, where the caller has said it."""

CHS_CREATORS: Final = (b"vpc ", b"qemu")
"""Programs that show a guest as many sectors as the geometry has, whatever the size is."""
CURRENT_CREATORS: Final = (b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0")
"""Programs that take the size from its field, which QEMU knows. So do all others, we assume."""


class Footer(Structure, size=512, endian=">"):
    """What a VHD is. Every byte belongs to a field, so that writing it back keeps all."""

    cookie: bytes = raw(8, at=0, doc="FOOTER_COOKIE")
    features: int = uint(4, at=8, doc="2: reserved, always set", default=2)
    version: int = uint(4, at=12, doc="of the format", default=VERSION_1)
    data_offset: int = uint(8, at=16, doc="of the header; NOWHERE if fixed", default=NOWHERE)
    timestamp: int = uint(4, at=24, doc="of creation, in seconds since 2000")
    creator_app: bytes = raw(4, at=28, doc="who made it; decides which size counts")
    creator_version: int = uint(4, at=32, doc="of that program")
    creator_os: bytes = raw(4, at=36, doc="Wi2k or Mac")
    original_size: int = uint(8, at=40, doc="of the disk when it was made")
    current_size: int = uint(8, at=48, doc="of the disk")
    cylinders: int = uint(2, at=56, doc="of the geometry")
    heads: int = uint(1, at=58, doc="likewise")
    sectors: int = uint(1, at=59, doc="likewise: of a track")
    disk_type: int = uint(4, at=60, doc="TYPE_…")
    checksum: int = uint(4, at=64, doc="one's complement of the sum of the other bytes")
    uuid: bytes = raw(16, at=68, doc="of the image, in the order in which it is written")
    saved_state: int = uint(1, at=84, doc="1: a machine was suspended", default=0)
    reserved: bytes = raw(427, at=85, doc="kept as it is")

    @property
    def is_sound(self) -> bool:
        """Whether the checksum is right."""
        return self.checksum == checksum(self.pack(), 64)

    @property
    def is_fixed(self) -> bool:
        """Whether the disk's bytes stand in front of the footer as they are."""
        return self.disk_type == TYPE_FIXED

    @property
    def has_parent(self) -> bool:
        """Whether what is absent is read from another image."""
        return self.disk_type == TYPE_DIFFERENCING

    @property
    def geometry(self) -> Geometry:
        """Cylinders, heads, sectors."""
        return Geometry(self.cylinders, self.heads, self.sectors)

    def sealed(self) -> Footer:
        """With the right checksum."""
        return self.replace(checksum=checksum(self.pack(), 64))

    @property
    def is_resizing(self) -> bool:
        """Whether a resize of a fixed image was killed between two steps."""
        return self.is_fixed and self.reserved.startswith(RESIZING)

    def waiting(self) -> Footer:
        """The same, for a fixed image whose footer is too far away for now."""
        return self.replace(reserved=RESIZING + self.reserved[len(RESIZING) :]).sealed()

    def settled(self) -> Footer:
        """The same, where it belongs."""
        if not self.is_resizing:
            return self.sealed()
        return self.replace(reserved=bytes(len(RESIZING)) + self.reserved[len(RESIZING) :]).sealed()

    @property
    def creator(self) -> str:
        """The program's name, as text."""
        return self.creator_app.decode("latin-1").strip("\0 ")

    def wants_chs(self) -> bool:
        """Whether its creator takes the size from the geometry; not from the largest one."""
        return self.creator_app in CHS_CREATORS and self.has_geometry()

    def wants_current(self) -> bool:
        """Whether its creator is known to take the size from its field."""
        return self.creator_app in CURRENT_CREATORS

    def has_geometry(self) -> bool:
        """Whether there is one that says how large the disk is."""
        return self.geometry.size not in (0, CHS_MAX.size)


class Header(Structure, size=1024, endian=">"):
    """Of a dynamic or differencing image. What changes in place is in its first sector."""

    cookie: bytes = raw(8, at=0, doc="HEADER_COOKIE")
    data_offset: int = uint(8, at=8, doc="unused", default=NOWHERE)
    table_offset: int = uint(8, at=16, doc="of the block table")
    version: int = uint(4, at=24, doc="of the header", default=VERSION_1)
    table_entries: int = uint(4, at=28, doc="may be more than the disk has blocks")
    block_size: int = uint(4, at=32, doc="2 MiB in practice; without the bitmap")
    checksum: int = uint(4, at=36, doc="as in the footer")
    parent_uuid: bytes = raw(16, at=40, doc="the parent's uuid; zeros: none, or a raw parent")
    parent_timestamp: int = uint(4, at=56, doc="the parent's modification, since 2000")
    unused: int = uint(4, at=60, doc="reserved", default=0)
    parent_name: bytes = raw(512, at=64, doc="file name, UTF-16BE")
    locators: bytes = raw(192, at=576, doc="eight of Locator")
    reserved: bytes = raw(256, at=768, doc="kept as it is")

    @property
    def is_sound(self) -> bool:
        """Whether the checksum is right."""
        return self.checksum == checksum(self.pack(), 36)

    @property
    def bitmap_bytes(self) -> int:
        """In front of each block's data: a bit for each of its sectors."""
        return align_up(div_up(self.block_size // SECTOR_BYTES, 8), SECTOR_BYTES)

    @property
    def stride(self) -> int:
        """What a block takes up in the file, bitmap and data."""
        return self.bitmap_bytes + self.block_size

    def sealed(self) -> Header:
        """With the right checksum."""
        return self.replace(checksum=checksum(self.pack(), 36))


class Locator(Structure, size=24, endian=">"):
    """Where one of the parent's names is."""

    platform: bytes = raw(4, at=0, doc="W2ru, W2ku, MacX …; zeros: none")
    space: int = uint(4, at=4, doc="room for it; sectors in some files, bytes in others")
    length: int = uint(4, at=8, doc="of the name in bytes")
    unused: int = uint(4, at=12, doc="reserved", default=0)
    offset: int = uint(8, at=16, doc="of the name in the file")


def checksum(data: bytes, at: int) -> int:
    """The one's complement of the sum of all bytes but the four at ``at``."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


@dataclass(frozen=True)
class Footers:
    """The footers that a file has.

    Attributes:
        active: the one that counts.
        head: the copy at the file's start, if that is one.
        tail: the one at its end, likewise.
        tail_offset: where that is.
    """

    active: Footer
    head: Footer | None
    tail: Footer | None
    tail_offset: int

    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        found = []
        if not self.active.is_sound:
            found.append("The footer's checksum is wrong.")
        if not self.active.is_fixed:
            if self.tail is None:
                found.append("The footer at the end is missing: its copy at the start is used.")
            elif self.head is None:
                found.append("The footer's copy at the start is missing.")
            elif self.head != self.tail:
                found.append("The footer and its copy at the start differ.")
        if self.active.saved_state:
            found.append("It belongs to a machine that was suspended.")
        return tuple(found)


def read_footers(storage: Storage) -> Footers:
    """Find the footer that counts.

    A sound one of a fixed image at the end wins over everything: what stands at the file's
    start is then the guest's to write. Otherwise the copy at the start wins if it is sound,
    since the end may have been overwritten by a new block when a writer was killed.

    Raises:
        CorruptImageError: if there is none.
        UnsupportedFeatureError: if it is of an unknown version or type.
    """
    head = _footer_at(storage, 0)
    tail, tail_offset = None, storage.size
    for length in (512, 511):  # early versions of Virtual PC wrote one byte less
        if tail is None and storage.size >= length:
            tail = _footer_at(storage, storage.size - length)
            tail_offset = storage.size - length
    if tail_offset == 0:
        head = None
    if tail is not None and tail.is_fixed and (tail.is_sound or head is None or head.is_fixed):
        return Footers(_checked(tail, storage, tail_offset), None, tail, tail_offset)
    found = [footer for footer in (head, tail) if footer is not None and not footer.is_fixed]
    if not found:
        raise CorruptImageError(
            "expected a footer that begins with 'conectix' at the end, found none",
            name=storage.name,
        )
    active = next((footer for footer in found if footer.is_sound), found[0])
    where = 0 if active is head else tail_offset
    return Footers(_checked(active, storage, where), head, tail, tail_offset)


def read_header(storage: Storage, footer: Footer, *, at: int = 0) -> Header:
    """Read and check the header that a footer at ``at`` names.

    Raises:
        CorruptImageError: if a field contradicts the format or the file's size.
        UnsupportedFeatureError: for another version, or larger tables than we allow.
    """
    where = footer.data_offset
    inside = SECTOR_BYTES <= where <= storage.size - Header.SIZE
    footer.require("data_offset", inside, "a header inside the file", where=storage.name, at=at)
    data = bytearray(Header.SIZE)
    storage.readinto(memoryview(data), where)
    header = Header.unpack(data, where=storage.name)
    need = partial(header.require, where=storage.name, at=where)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("cookie", header.cookie == HEADER_COOKIE, repr(HEADER_COOKIE))
    lacking("version", header.version >> 16 == VERSION_1 >> 16, f"0x{VERSION_1:x} (1.0)")
    size = header.block_size
    need("block_size", size.bit_count() == 1, "a power of two")
    in_range = BLOCK_SIZE_MIN <= size <= BLOCK_SIZE_MAX
    lacking("block_size", in_range, f"0x{BLOCK_SIZE_MIN:x} to 0x{BLOCK_SIZE_MAX:x}")
    end = header.table_offset + 4 * header.table_entries
    need("table_offset", header.table_offset >= SECTOR_BYTES, "at least 0x200")
    need("table_entries", end <= storage.size, f"a table in the file's {storage.size} bytes")
    count = header.table_entries
    lacking("table_entries", count <= BLOCK_COUNT_MAX, f"at most 0x{BLOCK_COUNT_MAX:x}")
    return header


class DiskSize(NamedTuple):
    """What the disk's size is taken to be.

    Attributes:
        size: in bytes.
        is_chs: whether it is that of the geometry.
        reason: why.
    """

    size: int
    is_chs: bool
    reason: str


def disk_size(
    footers: Footers, header: Header | None, storage: Storage, *, policy: SizePolicy | None = None
) -> DiskSize:
    """The disk's size: ``current_size``, or the geometry's if its creator counts so.

    Args:
        footers: of the image.
        header: ``None`` if it is fixed.
        storage: the file.
        policy: decides, whoever made the image; but the largest geometry is never a size.

    Raises:
        TruncatedImageError: if a fixed image is shorter than that.
        CorruptImageError: if the block table of another one is.
        UnsupportedFeatureError: if the disk is larger than 2040 GiB, and not fixed.
    """
    footer = footers.active
    is_chs, reason = _chosen(footer, policy)
    room = footers.tail_offset if header is None else header.table_entries * header.block_size
    if is_chs and policy is None and footer.geometry.size > room:
        is_chs, reason = False, "the image is too short for its geometry"
    size = footer.geometry.size if is_chs else footer.current_size
    if header is None:
        if size > room:
            raise TruncatedImageError(
                f"expected a disk of {size} bytes before the footer, found {room}",
                name=storage.name,
                offset=room,
            )
        return DiskSize(size, is_chs, reason)
    needed, at = div_up(size, header.block_size), footer.data_offset
    header.require(
        "table_entries", size <= room, f"at least 0x{needed:x}", where=storage.name, at=at
    )
    if size > DISK_SIZE_MAX:
        raise UnsupportedFeatureError(
            f"expected a disk of at most 2040 GiB, found {size} bytes", name=storage.name
        )
    return DiskSize(size, is_chs, reason)


def _chosen(footer: Footer, policy: SizePolicy | None) -> tuple[bool, str]:
    """Whether the geometry counts, and why."""
    if policy == "current":
        return False, ASKED
    if not footer.has_geometry():
        kind = "none" if footer.geometry.size == 0 else "the largest one, which says nothing"
        return False, f"its geometry is {kind}"
    if policy == "chs":
        return True, ASKED
    creator = repr(footer.creator)
    if footer.wants_chs():
        return True, f"its creator {creator} goes by the geometry"
    if footer.wants_current():
        return False, f"its creator {creator} goes by the field"
    return False, f"its creator {creator} is not known to go by the geometry"


def _footer_at(storage: Storage, offset: int) -> Footer | None:
    """The footer there, whatever it says; a byte that is cut off was a reserved one."""
    data = bytearray(min(Footer.SIZE, storage.size - offset))
    if len(data) < Footer.SIZE - 1:
        return None
    storage.readinto(memoryview(data), offset)
    if not data.startswith(FOOTER_COOKIE):
        return None
    return Footer.unpack(data.ljust(Footer.SIZE, b"\0"))


def _checked(footer: Footer, storage: Storage, at: int) -> Footer:
    need = partial(footer.require, where=storage.name, at=at, error=UnsupportedFeatureError)
    need("version", footer.version >> 16 == VERSION_1 >> 16, f"0x{VERSION_1:x} (1.0)")
    need("disk_type", footer.disk_type in SUBFORMATS, "2 fixed, 3 dynamic or 4 differencing")
    return footer
