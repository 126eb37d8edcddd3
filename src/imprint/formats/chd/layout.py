"""CHD: headers of all versions, metadata, and what has to hold of them.

::

    0x00  header, 76 to 124 bytes
    map_offset   where each hunk of the disk is: plain or compressed; of old versions, behind
                 the header
    meta_offset  a linked list of metadata
    …            hunks

All integers are big-endian, sizes are in bytes.

Source: MAME ``src/lib/util/chd.h`` (the comment on versions; up to release 0.145 with versions
1 and 2) and ``chd.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import MIB, div_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imprint.core.contracts import Storage

TAG: Final = b"MComprHD"

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

FLAG_PARENT: Final = 1
"""Of versions 1 to 4: the image needs a parent."""
OLD_CODECS: Final = (0, 1, 2)
"""Of versions 1 to 4: none, deflate, deflate by a better encoder; 3 is for laser discs."""

_METADATA_COUNT_MAX: Final = 256
_TEXT_BYTES_MAX: Final = 256
_SECTOR_BYTES: Final = 512


class HeaderV1(Structure, size=76, endian=">"):
    """The file's first 76 bytes; version 2 has four more."""

    tag: bytes = raw(8, at=0, doc="TAG")
    length: int = uint(4, at=8, doc="of the header")
    version: int = uint(4, at=12, doc="1 or 2")
    flags: int = uint(4, at=16, doc="FLAG_…")
    codec: int = uint(4, at=20, doc="one of OLD_CODECS")
    hunk_sectors: int = uint(4, at=24, doc="of a hunk")
    hunk_count: int = uint(4, at=28, doc="of the disk")
    cylinders: int = uint(4, at=32, doc="of the disk")
    heads: int = uint(4, at=36, doc="of the disk")
    sectors: int = uint(4, at=40, doc="of a track")
    md5: bytes = raw(16, at=44, doc="of the disk")
    parent_md5: bytes = raw(16, at=60, doc="of the parent's disk")


class HeaderV3(Structure, size=120, endian=">"):
    """The file's first 120 bytes."""

    tag: bytes = raw(8, at=0, doc="TAG")
    length: int = uint(4, at=8, doc="of the header")
    version: int = uint(4, at=12, doc="3")
    flags: int = uint(4, at=16, doc="FLAG_…")
    codec: int = uint(4, at=20, doc="one of OLD_CODECS")
    hunk_count: int = uint(4, at=24, doc="of the disk")
    disk_size: int = uint(8, at=28, doc="of the disk")
    meta_offset: int = uint(8, at=36, doc="of the first metadata; 0: there are none")
    md5: bytes = raw(16, at=44, doc="of the disk")
    parent_md5: bytes = raw(16, at=60, doc="of the parent's disk")
    hunk_size: int = uint(4, at=76, doc="of a hunk of the disk")
    sha1: bytes = raw(20, at=80, doc="of the disk")
    parent_sha1: bytes = raw(20, at=100, doc="of the parent's disk")


class HeaderV4(Structure, size=108, endian=">"):
    """The file's first 108 bytes."""

    tag: bytes = raw(8, at=0, doc="TAG")
    length: int = uint(4, at=8, doc="of the header")
    version: int = uint(4, at=12, doc="4")
    flags: int = uint(4, at=16, doc="FLAG_…")
    codec: int = uint(4, at=20, doc="one of OLD_CODECS")
    hunk_count: int = uint(4, at=24, doc="of the disk")
    disk_size: int = uint(8, at=28, doc="of the disk")
    meta_offset: int = uint(8, at=36, doc="of the first metadata; 0: there are none")
    hunk_size: int = uint(4, at=44, doc="of a hunk of the disk")
    sha1: bytes = raw(20, at=48, doc="of the disk and its metadata")
    parent_sha1: bytes = raw(20, at=68, doc="the same of the parent")
    raw_sha1: bytes = raw(20, at=88, doc="of the disk")


class HeaderV5(Structure, size=124, endian=">"):
    """The file's first 124 bytes."""

    tag: bytes = raw(8, at=0, doc="TAG")
    length: int = uint(4, at=8, doc="of the header")
    version: int = uint(4, at=12, doc="5")
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
    parent_sha1: bytes = raw(20, at=104, doc="the same of the parent; zeros: there is none")


@dataclass(frozen=True)
class Header:
    """What the headers of all versions say. Sizes and offsets are in bytes.

    Attributes:
        version: 1 to 5.
        codecs: what a kind of hunk below ``CODEC_COUNT`` is compressed with; old versions
            have the same one with and without checksums. Empty if nothing is compressed.
        disk_size: of the disk.
        hunk_size: of a hunk of the disk.
        parent_unit: what places in the parent are counted in: sectors, once hunks.
        map_offset: of the map.
        meta_offset: of the first metadata, or 0.
        hashes: of the disk, in hexadecimal, by name.
        ids: digests by which children know the image, in hexadecimal.
        parent_ids: those of the parent; empty if there is none.
    """

    version: int
    codecs: tuple[bytes, ...]
    disk_size: int
    hunk_size: int
    parent_unit: int
    map_offset: int
    meta_offset: int
    hashes: Mapping[str, str]
    ids: tuple[str, ...]
    parent_ids: tuple[str, ...]

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
        UnsupportedFeatureError: for another version, or a disk that is too large.
    """
    head = bytearray(min(HeaderV5.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    version = int.from_bytes(head[12:16], "big")
    if head.startswith(TAG) and version not in _READERS:
        raise UnsupportedFeatureError(
            f"expected a CHD of version 1 to 5, found version {version}", name=storage.name
        )
    return _READERS.get(version, _from_v5)(head, storage.name)


def _from_v5(head: bytearray, name: str) -> Header:
    found = HeaderV5.unpack(head, where=name)
    _check(found, name)
    found.require(
        "unit_size", 0 < found.unit_size <= found.hunk_size, "1 to the size of a hunk", where=name
    )
    codecs = (found.codec_0, found.codec_1, found.codec_2, found.codec_3)
    return Header(
        version=5,
        codecs=() if found.codec_0 == NO_CODEC else codecs,
        disk_size=found.disk_size,
        hunk_size=found.hunk_size,
        parent_unit=found.unit_size,
        map_offset=found.map_offset,
        meta_offset=found.meta_offset,
        hashes=_named(sha1=found.raw_sha1),
        ids=_digests(found.sha1),
        parent_ids=_digests(found.parent_sha1),
    )


def _from_v4(head: bytearray, name: str) -> Header:
    found = HeaderV4.unpack(head, where=name)
    return _from_old(found, name, hashes=_named(sha1=found.raw_sha1), ids=_digests(found.sha1))


def _from_v3(head: bytearray, name: str) -> Header:
    found = HeaderV3.unpack(head, where=name)
    hashes = _named(md5=found.md5, sha1=found.sha1)
    return _from_old(found, name, hashes=hashes, ids=_digests(found.sha1, found.md5))


def _from_old(
    found: HeaderV3 | HeaderV4, name: str, *, hashes: dict[str, str], ids: tuple[str, ...]
) -> Header:
    _check(found, name)
    codecs = _old_codecs(found, name)
    least = div_up(found.disk_size, found.hunk_size)
    found.require("hunk_count", found.hunk_count >= least, f"at least {least}", where=name)
    parents = (found.parent_sha1, *([found.parent_md5] if isinstance(found, HeaderV3) else ()))
    return Header(
        version=found.version,
        codecs=codecs,
        disk_size=found.disk_size,
        hunk_size=found.hunk_size,
        parent_unit=found.hunk_size,
        map_offset=found.SIZE,
        meta_offset=found.meta_offset,
        hashes=hashes,
        ids=ids,
        parent_ids=_old_parents(found, name, parents),
    )


def _from_v1(head: bytearray, name: str) -> Header:
    found = HeaderV1.unpack(head, where=name)
    need = partial(found.require, where=name)
    size = HeaderV1.SIZE + 4 * (found.version - 1)
    sector = _SECTOR_BYTES
    if found.version > 1:
        sector = int.from_bytes(head[HeaderV1.SIZE : HeaderV1.SIZE + 4], "big")
        need("version", sector > 0, "a version 2 with the size of a sector")
    need("tag", found.tag == TAG, repr(TAG))
    need("length", found.length == size, str(size))
    hunk_size = found.hunk_sectors * sector
    need("hunk_sectors", hunk_size > 0, "at least 1")
    lacking = partial(need, error=UnsupportedFeatureError)
    lacking("hunk_sectors", hunk_size <= HUNK_BYTES_MAX, f"at most {HUNK_BYTES_MAX} bytes")
    # How these say that a hunk is in the parent is not known.
    lacking("flags", not found.flags & FLAG_PARENT, "no parent")
    lacking("hunk_count", found.hunk_count <= HUNK_COUNT_MAX, f"at most {HUNK_COUNT_MAX}")
    disk_size = found.cylinders * found.heads * found.sectors * sector
    limit = found.hunk_count * hunk_size
    need("cylinders", disk_size <= limit, f"a disk of at most {limit} bytes in its hunks")
    return Header(
        version=found.version,
        codecs=_old_codecs(found, name),
        disk_size=disk_size,
        hunk_size=hunk_size,
        parent_unit=hunk_size,
        map_offset=size,
        meta_offset=0,
        hashes=_named(md5=found.md5),
        ids=_digests(found.md5),
        parent_ids=(),
    )


_READERS: Final[dict[int, Callable[[bytearray, str], Header]]] = {
    1: _from_v1,
    2: _from_v1,
    3: _from_v3,
    4: _from_v4,
    5: _from_v5,
}


def _check(found: HeaderV3 | HeaderV4 | HeaderV5, name: str) -> None:
    """What has to hold of versions 3 to 5."""
    need = partial(found.require, where=name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("tag", found.tag == TAG, repr(TAG))
    need("length", found.length == found.SIZE, str(found.SIZE))
    size = found.hunk_size
    need("hunk_size", size > 0, "at least 1")
    lacking("hunk_size", size <= HUNK_BYTES_MAX, f"at most {HUNK_BYTES_MAX}")
    need("disk_size", found.disk_size <= DISK_SIZE_MAX, f"at most 0x{DISK_SIZE_MAX:x}")
    limit = HUNK_COUNT_MAX * size
    lacking("disk_size", found.disk_size <= limit, f"at most 0x{limit:x} in hunks of {size}")


def _old_codecs(found: HeaderV1 | HeaderV3 | HeaderV4, name: str) -> tuple[bytes, ...]:
    found.require(
        "codec",
        found.codec in OLD_CODECS,
        "0, 1 or 2; others are for laser discs",
        where=name,
        error=UnsupportedFeatureError,
    )
    return (b"zlib", b"zlib") if found.codec else ()


def _old_parents(
    found: HeaderV3 | HeaderV4, name: str, stored: tuple[bytes, ...]
) -> tuple[str, ...]:
    if not found.flags & FLAG_PARENT:
        return ()
    digests = _digests(*stored)
    found.require("flags", bool(digests), "no parent where there is no digest of it", where=name)
    return digests


def _named(**stored: bytes) -> dict[str, str]:
    """Digests that are there: images that are not compressed have zeros."""
    return {name: digest.hex() for name, digest in stored.items() if any(digest)}


def _digests(*stored: bytes) -> tuple[str, ...]:
    return tuple(digest.hex() for digest in stored if any(digest))


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
