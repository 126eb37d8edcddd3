"""VDI on-disk structures, and what has to hold of them before anything is computed from them.

::

    0x000  pre-header and header, 0x1C8 or 0x1D8 bytes
    map_offset    block map: one 32-bit slot number for each block of the disk
    data_offset   slots: block_extra + block_size bytes each, in any order

All integers are little-endian, sizes are in bytes. There is no specification.

Source: VirtualBox ``VDICore.h`` (``VDIPREHEADER``, ``VDIHEADER1``, ``VDIHEADER1PLUS``) and
``VDI.cpp`` (``vdiValidateHeader``); QEMU ``block/vdi.c``.
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import MIB, div_up

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

SIGNATURE: Final = 0xBEDA107F
SIGNATURE_OFFSET: Final = 0x40
VERSION_1_1: Final = 0x00010001
SECTOR_BYTES: Final = 512

TYPE_DYNAMIC: Final = 1
TYPE_FIXED: Final = 2
TYPE_DIFFERENCING: Final = 4  # 3 was "undo", which VirtualBox never wrote

BLOCK_ABSENT: Final = 0xFFFFFFFF
"""Never written: reads from the parent, else as zeros (VirtualBox: ``BLOCK_FREE``)."""
BLOCK_ZERO: Final = 0xFFFFFFFE
"""Discarded: reads as zeros, even over a parent. Below this, an entry is a slot's number."""

BLOCK_SIZE_MIN: Final = 512
BLOCK_SIZE_MAX: Final = 256 * MIB
BLOCK_COUNT_MAX: Final = 1 << 25
"""A map of 128 MiB, 32 TiB in blocks of 1 MiB: refuse more before allocating it."""


class Header(Structure, size=0x1C8, endian="<"):
    """Pre-header and version 1.1 header as one. Every byte belongs to a field."""

    text: bytes = raw(64, at=0x000, doc="free text, shown by file(1)")
    signature: int = uint(4, at=0x040, doc="SIGNATURE", default=SIGNATURE)
    version: int = uint(4, at=0x044, doc="major << 16 | minor", default=VERSION_1_1)
    header_size: int = uint(4, at=0x048, doc="from this field on: 0x180, or 0x190 with LCHS")
    image_type: int = uint(4, at=0x04C, doc="TYPE_…")
    flags: int = uint(4, at=0x050, doc="kept as it is", default=0)
    comment: bytes = raw(256, at=0x054, doc="text, ends with a NUL")
    map_offset: int = uint(4, at=0x154, doc="of the block map")
    data_offset: int = uint(4, at=0x158, doc="of slot 0")
    cylinders: int = uint(4, at=0x15C, doc="of a geometry that nobody uses", default=0)
    heads: int = uint(4, at=0x160, doc="likewise", default=0)
    sectors: int = uint(4, at=0x164, doc="likewise", default=0)
    sector_size: int = uint(4, at=0x168, doc="of that geometry; QEMU demands 512", default=512)
    unused: int = uint(4, at=0x16C, doc="was the geometry's translation", default=0)
    disk_size: int = uint(8, at=0x170, doc="of the disk")
    block_size: int = uint(4, at=0x178, doc="1 MiB in practice; a power of two")
    block_extra: int = uint(
        4, at=0x17C, doc="in front of each block's data; 0 in practice", default=0
    )
    block_count: int = uint(4, at=0x180, doc="entries of the block map")
    blocks_allocated: int = uint(4, at=0x184, doc="slots in use; the next one is taken by writers")
    image_uuid: bytes = raw(16, at=0x188, doc="of this image; Microsoft byte order, as all")
    modify_uuid: bytes = raw(16, at=0x198, doc="changes with the content")
    parent_uuid: bytes = raw(16, at=0x1A8, doc="the parent's image_uuid; zeros: no parent")
    parent_modify_uuid: bytes = raw(16, at=0x1B8, doc="the parent's modify_uuid at that time")

    @property
    def has_parent(self) -> bool:
        """Whether what is absent is read from another image."""
        return self.image_type == TYPE_DIFFERENCING

    @property
    def stride(self) -> int:
        """From one slot to the next, in bytes."""
        return self.block_extra + self.block_size

    def slot_offset(self, slot: int) -> int:
        """Where a slot begins in the file; its data follows ``block_extra`` bytes later."""
        return self.data_offset + slot * self.stride


HEADER_SIZE_OFFSET: Final = 0x048
HEADER_SIZE_MIN: Final = Header.SIZE - HEADER_SIZE_OFFSET


class Geometry(Structure, size=0x10, endian="<"):
    """What a version "1.1 plus" header has behind :class:`Header`: the BIOS's geometry."""

    cylinders: int = uint(4, at=0x0, doc="0: not computed", default=0)
    heads: int = uint(4, at=0x4, doc="likewise", default=0)
    sectors: int = uint(4, at=0x8, doc="likewise", default=0)
    sector_size: int = uint(4, at=0xC, doc="VirtualBox demands 512", default=512)


HEADER_SIZE_PLUS: Final = HEADER_SIZE_MIN + Geometry.SIZE


def read_header(storage: Storage) -> Header:
    """Read and check the header.

    Raises:
        CorruptImageError: if a field contradicts the format or the file's size.
        UnsupportedFeatureError: for another version, an undo image, or a larger map than
            ``BLOCK_COUNT_MAX``.
    """
    head = bytearray(min(Header.SIZE, storage.size))
    storage.readinto(memoryview(head), 0)
    header = Header.unpack(head, where=storage.name)
    need = partial(header.require, where=storage.name)
    lacking = partial(need, error=UnsupportedFeatureError)
    need("signature", header.signature == SIGNATURE, f"0x{SIGNATURE:x}")
    lacking("version", header.version == VERSION_1_1, f"0x{VERSION_1_1:x} (1.1)")
    need("header_size", header.header_size >= HEADER_SIZE_MIN, f"at least 0x{HEADER_SIZE_MIN:x}")
    types = (TYPE_DYNAMIC, TYPE_FIXED, TYPE_DIFFERENCING)
    lacking("image_type", header.image_type in types, "1 dynamic, 2 fixed or 4 differencing")
    size = header.block_size
    need("block_size", size.bit_count() == 1, "a power of two")
    in_range = BLOCK_SIZE_MIN <= size <= BLOCK_SIZE_MAX
    lacking("block_size", in_range, f"0x{BLOCK_SIZE_MIN:x} to 0x{BLOCK_SIZE_MAX:x}")
    blocks_needed = div_up(header.disk_size, size)
    need("block_count", header.block_count >= blocks_needed, f"at least 0x{blocks_needed:x}")
    count_ok = header.block_count <= BLOCK_COUNT_MAX
    lacking("block_count", count_ok, f"at most 0x{BLOCK_COUNT_MAX:x}")
    need("map_offset", header.map_offset >= Header.SIZE, f"at least 0x{Header.SIZE:x}")
    map_end = header.map_offset + 4 * header.block_count
    need("map_offset", map_end <= storage.size, f"a map inside the file's {storage.size} bytes")
    # VirtualBox refuses this too; writing such an image would overwrite its map.
    need("data_offset", header.data_offset >= map_end, f"at least 0x{map_end:x}, the map's end")
    if header.has_parent:
        need("parent_uuid", any(header.parent_uuid), "a UUID in a differencing image")
        different = header.parent_uuid != header.image_uuid
        need("parent_uuid", different, "another image than itself")
    return header


def uuid_text(stored: bytes) -> str:
    """A stored UUID as people write it."""
    return str(uuid.UUID(bytes_le=stored))


def uuid_bytes(text: str) -> bytes:
    """The reverse of :func:`uuid_text`.

    Raises:
        ValueError: if ``text`` is not a UUID.
    """
    return uuid.UUID(text).bytes_le
