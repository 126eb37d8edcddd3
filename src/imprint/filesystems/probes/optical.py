"""ISO 9660 and UDF.

Source: ECMA-119 (ISO 9660), 8.4 and 8.5; the Joliet Specification 1995; ECMA-167 parts 2 and 3;
OSTA Universal Disk Format Specification 2.60.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB
from imprint.filesystems.facts import FileSystem, text
from imprint.filesystems.udf.layout import DOMAIN, Anchor, LogicalVolume, Primary, Tag
from imprint.filesystems.udf.text import dstring

if TYPE_CHECKING:
    from imprint.filters.peek import Peek

DESCRIPTORS_OFFSET: Final = 32 * KIB
DESCRIPTOR_BYTES: Final = 2 * KIB

ISO_DESCRIPTORS_MAX: Final = 16
"""Volume descriptors that are looked at; a disc has three or four."""

UDF_DESCRIPTORS_MAX: Final = 64
"""Of the recognition sequence, and of the volume descriptors; each has about ten."""

_UDF_BLOCKS: Final = (512, 1024, 2048, 4096)
_UDF_ANCHORS: Final = (256, 512)
_RECOGNISED: Final = (b"BEA01", b"BOOT2", b"CD001", b"CDW02", b"TEA01")
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_JOLIET_CHARACTERS: Final = 16


class IsoDescriptor(Structure, size=DESCRIPTOR_BYTES, endian="<"):
    """A volume descriptor, primary or supplementary."""

    type: int = uint(1, at=0, doc="1 primary, 2 supplementary, 255 the last")
    mark: bytes = raw(5, at=1, doc="CD001")
    volume_id: bytes = raw(32, at=40, doc="the label")
    block_count: int = uint(4, at=80, doc="of the volume")
    escapes: bytes = raw(32, at=88, doc="supplementary: one of _JOLIET")
    block_size: int = uint(2, at=128, doc="2048 in practice")
    created: bytes = raw(17, at=813, doc="16 digits and the offset from UTC")
    modified: bytes = raw(17, at=830, doc="the same")


def iso9660(peek: Peek) -> FileSystem | None:
    """ISO 9660, with or without the names of Joliet."""
    primary = joliet = None
    for number in range(ISO_DESCRIPTORS_MAX):
        offset = DESCRIPTORS_OFFSET + number * DESCRIPTOR_BYTES
        item = IsoDescriptor.unpack(peek.read(offset, DESCRIPTOR_BYTES))
        if item.mark != b"CD001" or item.type == 255:
            break
        if item.type == 1 and primary is None:
            primary = item
        if item.type == 2 and joliet is None and item.escapes[:3] in _JOLIET:
            joliet = item
    if primary is None:
        return None
    label = text(primary.volume_id)
    if joliet is not None:
        wide = text(joliet.volume_id, "utf-16-be")
        label = wide if wide is None or label is None else _whole_label(wide, label)
    size = primary.block_count * primary.block_size
    return FileSystem("iso9660", label, _iso_uuid(primary), size=size)


def _whole_label(joliet: str, primary: str) -> str:
    """The label from both of its forms.

    Joliet keeps any character but only 16 of them; the primary descriptor keeps 32, in
    capitals, with ``_`` for what it does not have.
    """
    fits = len(joliet) == _JOLIET_CHARACTERS and all(
        b in ("_", a, a.upper()) for a, b in zip(joliet, primary, strict=False)
    )
    return joliet + primary[_JOLIET_CHARACTERS:] if fits else joliet


def _iso_uuid(primary: IsoDescriptor) -> str | None:
    """The time of the last change, or of creation, as blkid writes it."""
    for stamp in (primary.modified, primary.created):
        if stamp != b"0" * 16 + b"\0":
            digits = stamp[:16].decode("ascii", errors="replace")
            parts = (digits[:4], *(digits[at : at + 2] for at in range(4, 16, 2)))
            return "-".join(parts)
    return None


def udf(peek: Peek) -> FileSystem | None:
    """UDF, alone or beside ISO 9660."""
    for block_size in _UDF_BLOCKS:
        if not _has_udf_mark(peek, max(block_size, DESCRIPTOR_BYTES)):
            continue
        end = peek.size // block_size
        for anchor in (*_UDF_ANCHORS, end - 1, end - 257):
            data = peek.read(anchor * block_size, Anchor.SIZE)
            tag = Tag.unpack(data)
            if (tag.id, tag.location) == (2, anchor):
                return _udf_volume(peek, Anchor.unpack(data), block_size)
    return None


def _has_udf_mark(peek: Peek, step: int) -> bool:
    """Whether the recognition sequence has the descriptor that says UDF."""
    for number in range(UDF_DESCRIPTORS_MAX):
        mark = peek.read(DESCRIPTORS_OFFSET + number * step, 6)[1:]
        if mark in (b"NSR02", b"NSR03"):
            return True
        if mark not in _RECOGNISED:
            return False
    return False


def _udf_volume(peek: Peek, anchor: Anchor, block_size: int) -> FileSystem | None:
    """What the volume descriptors say; not every file system of ECMA-167 is UDF."""
    label = identity = None
    is_udf = False
    for number in range(min(anchor.length // block_size, UDF_DESCRIPTORS_MAX)):
        block = anchor.location + number
        data = peek.read(block * block_size, 512)
        tag = Tag.unpack(data)
        if tag.id in (0, 8) or tag.location != block:
            break
        if tag.id == 1 and identity is None:
            identity = _udf_uuid(dstring(Primary.unpack(data).volume_set_id))
        if tag.id == 6:
            volume = LogicalVolume.unpack(data)
            is_udf = is_udf or volume.domain.startswith(DOMAIN)
            label = label or dstring(volume.volume_id).rstrip() or None
    return FileSystem("udf", label, identity) if is_udf else None


def _udf_uuid(volume_set_id: str) -> str | None:
    """As blkid makes it from the unique part of the volume set's name.

    16 hexadecimal digits are taken as they are; of other text, the bytes in hexadecimal, from
    where it stops to be digits: from the start, or behind the first eight.
    """
    unique = volume_set_id.encode()[:16]
    if len(unique) < 8:
        return None
    unique = unique.ljust(16, b"\0")
    digits = next((at for at, byte in enumerate(unique) if chr(byte) not in string.hexdigits), 16)
    if digits < 8:
        return unique[:8].hex()
    if digits < 16:
        return unique[:8].decode().lower() + unique[8:12].hex()
    return unique.decode().lower()
