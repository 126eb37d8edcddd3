"""Physical volumes of LVM2: the label, where the areas are, and the newest metadata.

Source: LVM2 ``lib/format_text/layout.h``, ``lib/label/label.h``, ``lib/format_text/format-text.c``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, uint
from imprint.core.limits import LVM_METADATA_BYTES_MAX
from imprint.core.runs import Runs
from imprint.volumes.members import read_bytes

if TYPE_CHECKING:
    from imprint.core.contracts import Source

SECTOR_BYTES: Final = 512
LABEL_SECTORS: Final = 4
LABEL_MARK: Final = b"LABELONE"
LABEL_TYPE: Final = b"LVM2 001"
AREA_MARK: Final = b" LVM2 x[5A%r0N*>"
AREAS_MAX: Final = 16
"""Of each kind; LVM2 itself makes one or two."""

_CRC_SEED: Final = 0xF597A6CF
_CRC_FROM: Final = 20  # of a label: what the checksum covers begins behind it
_IGNORED: Final = 1
_IN_USE_VERSION: Final = 1  # of the extension: from here on it tells of bootloader areas


class Label(Structure, size=32, endian="<"):
    """What tells that a disk is a physical volume; in one of its first four sectors."""

    mark: bytes = raw(8, at=0, doc="LABEL_MARK")
    sector: int = uint(8, at=8, doc="that the label is in")
    crc: int = uint(4, at=16, doc="of the rest of the sector")
    header_at: int = uint(4, at=20, doc="PvHeader, from the label's start")
    type: bytes = raw(8, at=24, doc="LABEL_TYPE")


class PvHeader(Structure, size=40, endian="<"):
    """Identity of a physical volume; lists of areas follow it."""

    uuid: bytes = raw(32, at=0, doc="as text without dashes")
    device_size: int = uint(8, at=32, doc="in bytes")


class Area(Structure, size=16, endian="<"):
    """A place, in bytes of the physical volume. Zeros end a list of them."""

    offset: int = uint(8, at=0, doc="0: there are no more")
    length: int = uint(8, at=8, doc="0: up to the end")


class AreaHeader(Structure, size=40, endian="<"):
    """The start of a metadata area; its first sector is its header, the rest a ring of texts."""

    crc: int = uint(4, at=0, doc="of the rest of the sector")
    mark: bytes = raw(16, at=4, doc="AREA_MARK")
    version: int = uint(4, at=20, doc="1")
    start: int = uint(8, at=24, doc="of this area, in bytes of the physical volume")
    length: int = uint(8, at=32, doc="of this area")


class Text(Structure, size=24, endian="<"):
    """Where the text of a metadata area is. The one that counts comes first."""

    offset: int = uint(8, at=0, doc="from the area's start; 0: there is none")
    length: int = uint(8, at=8, doc="in bytes; what does not fit goes on behind the header")
    crc: int = uint(4, at=16, doc="of the text")
    flags: int = uint(4, at=20, doc="1: ignored")


@dataclass(frozen=True)
class PhysicalVolume:
    """A physical volume as its own structures describe it.

    Attributes:
        uuid: 32 characters.
        size: of the member, in bytes.
        texts: of its metadata areas, those that are whole.
        kept: label and areas, in bytes of the member.
        problems: of metadata areas that could not be read.
    """

    uuid: str
    size: int
    texts: tuple[bytes, ...] = field(repr=False)
    kept: Runs = field(repr=False)
    problems: tuple[str, ...] = ()


class Budget:
    """What may still be read of texts: that of one member is bounded, that of all as well."""

    def __init__(self) -> None:
        self.left = LVM_METADATA_BYTES_MAX

    def take(self, length: int, *, name: str) -> None:
        """Count a text.

        Raises:
            CorruptImageError: if it is too much.
        """
        if not 0 < length <= self.left:
            raise CorruptImageError(
                f"LVM2 metadata: expected 1 to {self.left} bytes, found {length}", name=name
            )
        self.left -= length


def checksum(data: bytes | memoryview) -> int:
    """CRC-32 as LVM2 counts it: with its own start value, and not inverted."""
    return zlib.crc32(data, _CRC_SEED ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def read(member: Source, budget: Budget) -> PhysicalVolume:
    """Read the label and the metadata of a physical volume.

    Raises:
        CorruptImageError: if the label or the lists of areas make no sense.
        ReadError: if they cannot be read.
    """
    sector, data = _label(member)
    label = Label.unpack(data, where=member.name)
    header = PvHeader.unpack(data[label.header_at :], where=member.name)
    at = label.header_at + PvHeader.SIZE
    data_areas, at = _areas(data, at, member.name)
    metadata_areas, at = _areas(data, at, member.name)
    kept = [(0, (sector + 1) * SECTOR_BYTES)]
    if int.from_bytes(data[at : at + 4], "little") >= _IN_USE_VERSION:
        kept += _areas(data, at + 8, member.name)[0]
    texts, problems = [], []
    for offset, length in metadata_areas:
        kept.append((offset, length or member.size))
        try:
            text = _text(member, offset, length, budget)
        except CorruptImageError as error:
            problems.append(str(error.args[0]))
            continue
        if text is not None:
            texts.append(text)
    if data_areas:
        kept.append((0, data_areas[0][0]))
    return PhysicalVolume(
        header.uuid.decode("ascii", "replace"),
        member.size,
        tuple(texts),
        Runs.of((min(at, member.size), min(length, member.size)) for at, length in kept),
        tuple(problems),
    )


def _label(member: Source) -> tuple[int, bytes]:
    """The sector with the label, and its bytes."""
    length = min(LABEL_SECTORS * SECTOR_BYTES, member.size)
    head = read_bytes(member, 0, length)
    for sector in range(length // SECTOR_BYTES):
        data = head[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]
        label = Label.unpack(data, where=member.name)
        if (label.mark, label.type, label.sector) != (LABEL_MARK, LABEL_TYPE, sector):
            continue
        if checksum(data[_CRC_FROM:]) != label.crc:
            raise CorruptImageError("the label does not match its checksum", name=member.name)
        label.require(
            "header_at",
            Label.SIZE <= label.header_at <= SECTOR_BYTES - PvHeader.SIZE - 2 * Area.SIZE,
            "a header inside the sector",
            where=member.name,
            at=sector * SECTOR_BYTES,
        )
        return sector, data
    raise CorruptImageError("expected a label of LVM2, found none", name=member.name)


def _areas(data: bytes, at: int, name: str) -> tuple[list[tuple[int, int]], int]:
    """A list of areas, and where the next one begins."""
    areas: list[tuple[int, int]] = []
    while len(areas) <= AREAS_MAX:
        area = Area.unpack(data[at:], where=name)
        at += Area.SIZE
        if area.offset == 0:
            return areas, at
        areas.append((area.offset, area.length))
    raise CorruptImageError(f"LVM2: expected at most {AREAS_MAX} areas, found more", name=name)


def _text(member: Source, offset: int, length: int, budget: Budget) -> bytes | None:
    """What a metadata area says now; ``None`` if it says nothing."""
    data = read_bytes(member, offset, SECTOR_BYTES)
    header = AreaHeader.unpack(data)
    where = f"LVM2 metadata area at 0x{offset:x}"
    if checksum(data[4:]) != header.crc:
        raise CorruptImageError(f"{where}: does not match its checksum", name=member.name)
    is_own = (header.mark, header.version, header.start) == (AREA_MARK, 1, offset)
    inside = SECTOR_BYTES < header.length <= member.size - offset
    if not is_own or not inside or (length and header.length != length):
        raise CorruptImageError(
            f"{where}: expected its own header, found another", name=member.name
        )
    text = Text.unpack(data[AreaHeader.SIZE :])
    if text.offset == 0 or text.flags & _IGNORED:
        return None
    if not SECTOR_BYTES <= text.offset < header.length or text.length > header.length:
        raise CorruptImageError(f"{where}: expected a text inside of it", name=member.name)
    budget.take(text.length, name=member.name)
    first = min(text.length, header.length - text.offset)
    found = read_bytes(member, offset + text.offset, first)
    found += read_bytes(member, offset + SECTOR_BYTES, text.length - first)
    if checksum(found) != text.crc:
        raise CorruptImageError(f"{where}: its text does not match its checksum", name=member.name)
    return found
