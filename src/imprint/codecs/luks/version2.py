"""LUKS2 headers: reading and checking both copies. Unlocking is in ``version2_keys``.

Source: "LUKS2 On-Disk Format Specification", version 1.1.2, sections 2 (binary header) and 3
(JSON area).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.codecs.luks.layout import MAGIC, VERSION_2
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.json_object import JsonObject
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import KIB

if TYPE_CHECKING:
    from imprint.codecs.luks.header import ReadAt

SECOND_MAGIC: Final = b"SKUL\xba\xbe"
HEADER_SIZES: Final = tuple(KIB << power for power in range(4, 13))
"""Of the binary header and the JSON behind it: 16 KiB to 4 MiB."""

SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
KEY_BYTES_MAX: Final = 512
_IV_SECTOR: Final = 512  # what IVs count, whatever the size of the encrypted sectors


class BinaryHeader(Structure, size=4096, endian=">"):
    """What each of the two copies begins with; JSON follows. Text ends at a zero byte."""

    magic: bytes = raw(6, at=0, doc="MAGIC, of the second copy SECOND_MAGIC")
    version: int = uint(2, at=6, doc="VERSION_2")
    size: int = uint(8, at=8, doc="with the JSON, in bytes")
    sequence: int = uint(8, at=16, doc="counts changes: the copy with the higher one counts")
    checksum_name: bytes = raw(32, at=72, doc="'sha256'")
    uuid: bytes = raw(40, at=168, doc="of the volume, as text")
    offset: int = uint(8, at=256, doc="of this copy")
    checksum: bytes = raw(64, at=448, doc="of the copy with this field zero")


@dataclass(frozen=True)
class Luks2Header:
    """A header that makes sense, of a volume that could be read with its key.

    Attributes:
        name: of the image, for errors.
        uuid: of the volume.
        offset: where the disk begins, in bytes.
        size: of the disk, in bytes; ``None``: up to the end.
        cipher_name: ``aes``.
        cipher_mode: ``xts-plain64``.
        sector_size: what is encrypted under one IV, in bytes.
        first_sector: number of the disk's first sector, in units of ``sector_size``.
        segment: name of the part of the disk, which the digest refers to.
        json: all of it.
    """

    name: str
    uuid: str
    offset: int
    size: int | None
    cipher_name: str
    cipher_mode: str
    sector_size: int
    first_sector: int
    segment: str
    json: JsonObject = field(repr=False)

    @property
    def iv_step(self) -> int:
        """How much the IVs of neighbouring sectors differ."""
        return self.sector_size // _IV_SECTOR


def is_luks2(head: bytes) -> bool:
    """Whether a volume that begins with ``head`` is LUKS2."""
    return head[:8] == MAGIC + VERSION_2.to_bytes(2, "big")


def parse_header2(read: ReadAt, *, size: int, name: str) -> Luks2Header:
    """Read and check the header of a volume of ``size`` bytes, by the newer whole copy.

    Raises:
        CorruptImageError: if no copy is whole, or the JSON contradicts the specification.
        UnsupportedFeatureError: if the disk is of several parts, has integrity data, or is
            being encrypted anew.
    """
    copies = _copies(read, size, name)
    if not copies:
        raise CorruptImageError("LUKS2: expected a header, found no whole copy", name=name)
    _, header, text = max(copies, key=lambda item: item[0])
    area = JsonObject.parse(text, where=name)
    requirements = area.find("config", "requirements", "mandatory")
    if requirements:
        raise UnsupportedFeatureError(f"LUKS2: needs {requirements!r:.60}", name=name)
    segments = area.section("segments")
    if len(segments) != 1:
        raise UnsupportedFeatureError(
            f"LUKS2: expected a disk of one part, found {len(segments)}", name=name
        )
    key, segment = segments[0]
    for field_name in ("integrity", "flags"):
        if segment.find(field_name):
            raise UnsupportedFeatureError(f"LUKS2: has {field_name}, not supported", name=name)
    if segment.text("type") != "crypt":
        raise UnsupportedFeatureError(f"LUKS2: a {segment.text('type')!r:.40} part", name=name)
    sector_size = segment.number("sector_size", SECTOR_SIZES[0], SECTOR_SIZES[-1])
    if sector_size not in SECTOR_SIZES:
        raise CorruptImageError(f"LUKS2: sectors of {sector_size} bytes", name=name)
    tweak = segment.number("iv_tweak", 0, 1 << 62)
    if tweak * _IV_SECTOR % sector_size:
        raise UnsupportedFeatureError("LUKS2: expected an iv_tweak of whole sectors", name=name)
    offset = segment.number("offset", 2 * HEADER_SIZES[0], size)
    fixed = None
    if segment.text("size") != "dynamic":
        fixed = segment.number("size", 1, size - offset)
    algorithm, _, mode = segment.text("encryption").partition("-")
    return Luks2Header(
        name=name,
        uuid=header.uuid.partition(b"\0")[0].decode("ascii", "replace"),
        offset=offset,
        size=fixed,
        cipher_name=algorithm,
        cipher_mode=mode,
        sector_size=sector_size,
        first_sector=tweak * _IV_SECTOR // sector_size,
        segment=key,
        json=area,
    )


def _copies(read: ReadAt, size: int, name: str) -> list[tuple[int, BinaryHeader, bytes]]:
    """Sequence, header and JSON of those that are whole."""
    found = []
    first = _copy(read, 0, MAGIC, size, name)
    if first is not None:
        found.append(first)
    for offset in HEADER_SIZES:
        second = _copy(read, offset, SECOND_MAGIC, size, name)
        if second is not None:
            found.append(second)
            break
    return found


def _copy(
    read: ReadAt, offset: int, magic: bytes, size: int, name: str
) -> tuple[int, BinaryHeader, bytes] | None:
    if offset + BinaryHeader.SIZE > size or read(offset, len(magic)) != magic:
        return None
    header = BinaryHeader.unpack(read(offset, BinaryHeader.SIZE), where=name)
    is_own = (header.version, header.offset) == (VERSION_2, offset)
    if not is_own or header.size not in HEADER_SIZES or offset + header.size > size:
        return None
    if header.checksum_name.partition(b"\0")[0] != b"sha256":
        raise UnsupportedFeatureError("LUKS2: expected a checksum by sha256", name=name)
    data = read(offset, header.size)
    place = BinaryHeader.FIELDS["checksum"]
    state = hashlib.sha256(data[: place.at] + bytes(place.size))
    state.update(memoryview(data)[place.at + place.size :])
    if not hmac.compare_digest(state.digest(), header.checksum[: state.digest_size]):
        return None
    return header.sequence, header, data[BinaryHeader.SIZE :].partition(b"\0")[0]
