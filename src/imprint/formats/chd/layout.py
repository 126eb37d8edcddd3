"""CHD version 5: header and metadata, and what has to hold of them.

::

    0x00  header, 124 bytes
    map_offset   where each hunk of the disk is: plain or compressed
    meta_offset  a linked list of metadata
    …            hunks

All integers are big-endian, sizes are in bytes.

Source: MAME ``src/lib/util/chd.h`` (the comment on version 5) and ``chd.cpp``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import MIB, div_up

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

TAG: Final = b"MComprHD"
VERSION: Final = 5

HUNK_BYTES_MAX: Final = 1 * MIB
"""Hunks are decoded whole; chdman makes 4 KiB for hard disks, and never more than this."""
HUNK_COUNT_MAX: Final = 1 << 23
"""32 GiB in hunks of 4 KiB, and 120 MiB of memory: refuse more before allocating it."""

NO_CODEC: Final = bytes(4)
TAG_HARD_DISK: Final = b"GDDD"
TAGS_OF_OTHERS: Final = {
    b"CHCD": "a CD",
    b"CHTR": "a CD",
    b"CHT2": "a CD",
    b"CHGT": "a GD-ROM",
    b"CHGD": "a GD-ROM",
    b"AVAV": "a laser disc",
}
"""Their hunks hold more than a disk's sectors."""

_METADATA_COUNT_MAX: Final = 256
_TEXT_BYTES_MAX: Final = 256


class Header(Structure, size=124, endian=">"):
    """The file's first 124 bytes."""

    tag: bytes = raw(8, at=0, doc="TAG")
    length: int = uint(4, at=8, doc="of the header")
    version: int = uint(4, at=12, doc="VERSION")
    codec_0: bytes = raw(4, at=16, doc="four letters; NO_CODEC: nothing is compressed")
    codec_1: bytes = raw(4, at=20, doc="likewise")
    codec_2: bytes = raw(4, at=24, doc="likewise")
    codec_3: bytes = raw(4, at=28, doc="likewise")
    disk_size: int = uint(8, at=32, doc="of the disk")
    map_offset: int = uint(8, at=40, doc="of the map")
    meta_offset: int = uint(8, at=48, doc="of the first metadata; 0: there are none")
    hunk_size: int = uint(4, at=56, doc="of a hunk of the disk")
    unit_size: int = uint(4, at=60, doc="of a sector")
    raw_sha1: bytes = raw(20, at=64, doc="of the disk")
    sha1: bytes = raw(20, at=84, doc="of the disk and its metadata")
    parent_sha1: bytes = raw(20, at=104, doc="of the parent; zeros: there is none")

    @property
    def codecs(self) -> tuple[bytes, ...]:
        """All four."""
        return (self.codec_0, self.codec_1, self.codec_2, self.codec_3)

    @property
    def hunk_count(self) -> int:
        """Hunks of the disk."""
        return div_up(self.disk_size, self.hunk_size)


class MetadataHeader(Structure, size=16, endian=">"):
    """What is in front of each piece of metadata."""

    tag: bytes = raw(4, at=0, doc="what it is")
    length: int = uint(4, at=4, doc="flags in the top byte, the length below")
    next_offset: int = uint(8, at=8, doc="of the next one; 0: it is the last")


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the format.
        UnsupportedFeatureError: for another version, a parent, or a disk that is too large.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    if len(head) >= 16 and head.startswith(TAG):
        version = int.from_bytes(head[12:16], "big")
        if version != VERSION:  # other versions have another layout, and shorter headers
            raise UnsupportedFeatureError(
                f"expected a CHD of version {VERSION}, found version {version}",
                name=storage.name,
                advice="chdman copy makes a new one of an old one",
            )
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("tag", header.tag == TAG, repr(TAG))
    need("length", header.length == Header.SIZE, str(Header.SIZE))
    size = header.hunk_size
    need("hunk_size", size > 0, "at least 1")
    lacking("hunk_size", size <= HUNK_BYTES_MAX, f"at most {HUNK_BYTES_MAX}")
    need("unit_size", 0 < header.unit_size <= size, "1 to the size of a hunk")
    need("disk_size", header.disk_size <= DISK_SIZE_MAX, f"at most 0x{DISK_SIZE_MAX:x}")
    limit = HUNK_COUNT_MAX * size
    lacking("disk_size", header.disk_size <= limit, f"at most 0x{limit:x} in hunks of {size}")
    lacking("parent_sha1", not any(header.parent_sha1), "no parent")
    return header


def read_metadata(storage: Storage, header: Header) -> str | None:
    """The text of the hard disk's metadata, if it has them.

    Raises:
        CorruptImageError: if the list has no end, or leaves the file.
        UnsupportedFeatureError: if the image is no hard disk.
    """
    text: str | None = None
    offset = header.meta_offset
    for _ in range(_METADATA_COUNT_MAX):
        if offset == 0:
            return text
        if offset + MetadataHeader.SIZE > storage.size:
            break
        head = bytearray(MetadataHeader.SIZE)
        storage.readinto(memoryview(head), offset)
        entry = MetadataHeader.unpack(head)
        if entry.tag in TAGS_OF_OTHERS:
            raise UnsupportedFeatureError(
                f"expected a hard disk, found {TAGS_OF_OTHERS[entry.tag]}", name=storage.name
            )
        if entry.tag == TAG_HARD_DISK:
            start = offset + MetadataHeader.SIZE
            length = min(entry.length & 0xFFFFFF, _TEXT_BYTES_MAX, storage.size - start)
            found = bytearray(length)
            storage.readinto(memoryview(found), start)
            text = found.rstrip(b"\0").decode("ascii", "replace")
        offset = entry.next_offset
    raise CorruptImageError(
        f"metadata: expected an end of the list, found 0x{offset:x}", name=storage.name
    )
