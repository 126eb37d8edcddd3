"""The map of a CHD: how and where each hunk is stored.

The map of a compressed image is compressed itself: first the kind of every hunk by Huffman
codes, then, for each hunk, what its kind needs: a length, a checksum, another hunk's number.

Source: MAME ``src/lib/util/chd.cpp`` (``chd_file::decompress_v5_map``).
"""

from __future__ import annotations

import binascii
import re
import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, uint
from imprint.core.tables import read_table
from imprint.formats.chd.huffman import BitReader, read_tree_rle
from imprint.formats.chd.layout import NO_CODEC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.chd.layout import Header

CODEC_COUNT: Final = 4
"""Kinds below this are compressed with the header's codec of that number."""
PLAIN: Final = 4
SELF: Final = 5
"""The same as another hunk of the image."""
PARENT: Final = 6
HOLE: Final = 7
"""Only in the map of an image without compression: never written. (Here, not in a file.)"""

# What else stands for a kind in a compressed map.
_RUN_SHORT: Final = 7
_RUN_LONG: Final = 8
_SELF_SAME: Final = 9
_SELF_NEXT: Final = 10

_KIND_CODES: Final = 16
_KIND_BITS_MAX: Final = 8
_CHUNK: Final = 1 << 16
_ALIKE: Final = re.compile(rb"(?s)(.)\1*")
_KINDS_STORED: Final = bytes(
    SELF if kind in (_SELF_SAME, _SELF_NEXT) else kind for kind in range(256)
)
_BITS_MAX: Final = 40


class MapHeader(Structure, size=16, endian=">"):
    """In front of a compressed map."""

    length: int = uint(4, at=0, doc="of what follows, in bytes")
    data_offset: bytes = raw(6, at=4, doc="of the first hunk that is stored")
    crc: int = uint(2, at=10, doc="CRC-16 of the map when it is spread out")
    length_bits: int = uint(1, at=12, doc="of a stored hunk's length")
    self_bits: int = uint(1, at=13, doc="of another hunk's number")
    parent_bits: int = uint(1, at=14, doc="of a unit's number in the parent")


@dataclass
class HunkMap:
    """Columns, a row for each hunk.

    Attributes:
        kinds: a codec's number, ``PLAIN``, ``SELF`` or ``HOLE``.
        offsets: in the file; for ``SELF``, the other hunk's number.
        lengths: of what is stored, in bytes.
        crcs: CRC-16 of the hunk; empty where the image has none.
    """

    kinds: bytearray
    offsets: array[int]
    lengths: array[int]
    crcs: array[int]


def read_map(storage: Storage, header: Header) -> HunkMap:
    """Read and check the map that a checked header describes.

    Raises:
        CorruptImageError: if it makes no sense, or its checksum differs.
    """
    if header.codec_0 == NO_CODEC:
        return _plain_map(storage, header)
    head = bytearray(max(0, min(MapHeader.SIZE, storage.size - header.map_offset)))
    storage.readinto(memoryview(head), min(header.map_offset, storage.size))
    map_header = MapHeader.unpack(head, where=storage.name)
    start = header.map_offset + MapHeader.SIZE
    map_header.require(
        "length",
        start + map_header.length <= storage.size,
        f"a map inside the file's {storage.size} bytes",
        where=storage.name,
        at=header.map_offset,
    )
    for field in ("length_bits", "self_bits"):
        value = getattr(map_header, field)
        within = value <= _BITS_MAX
        map_header.require(
            field, within, f"at most {_BITS_MAX}", where=storage.name, at=header.map_offset
        )
    packed = bytearray(map_header.length)
    storage.readinto(memoryview(packed), start)
    try:
        found = _unpacked(bytes(packed), header, map_header)
        crc = _checksum(found)
        if crc != map_header.crc:
            raise CorruptImageError(f"expected the CRC-16 0x{map_header.crc:x}, found 0x{crc:x}")
    except CorruptImageError as failure:
        raise CorruptImageError(
            f"map: {failure}", name=storage.name, offset=header.map_offset
        ) from failure
    return found


def _plain_map(storage: Storage, header: Header) -> HunkMap:
    count = header.hunk_count
    numbers = read_table(storage, header.map_offset, count, "I", "big")
    kinds = bytearray(PLAIN if number else HOLE for number in numbers)
    offsets = array("Q", (number * header.hunk_size for number in numbers))
    return HunkMap(kinds, offsets, array("I"), array("H"))


def _unpacked(packed: bytes, header: Header, map_header: MapHeader) -> HunkMap:
    """Spread out a compressed map."""
    bits = BitReader(packed)
    count = header.hunk_count
    kinds = _kinds(bits, count)
    found = HunkMap(
        kinds, array("Q", [0]) * count, array("I", [0]) * count, array("H", [0]) * count
    )
    length_bits, self_bits = map_header.length_bits, map_header.self_bits
    position = int.from_bytes(map_header.data_offset, "big")
    last_self = 0
    for kind, index, stop in _runs(kinds):
        run = stop - index
        if kind < CODEC_COUNT:
            bits.need(run * (length_bits + 16))
            for at in range(index, stop):
                length, crc = divmod(bits.read(length_bits + 16), 1 << 16)
                found.offsets[at] = position
                found.lengths[at] = min(length, 0xFFFFFF)
                found.crcs[at] = crc
                position += length
        elif kind == PLAIN:
            bits.need(run * 16)
            for at in range(index, stop):
                found.offsets[at] = position
                found.lengths[at] = header.hunk_size
                found.crcs[at] = bits.read(16)
                position += header.hunk_size
        elif kind == SELF:
            bits.need(run * self_bits)
            for at in range(index, stop):
                found.offsets[at] = last_self = bits.read(self_bits)
        elif kind == _SELF_SAME:
            found.offsets[index:stop] = array("Q", [last_self]) * run
        elif kind == _SELF_NEXT:
            found.offsets[index:stop] = array("Q", range(last_self + 1, last_self + run + 1))
            last_self += run
        else:
            raise CorruptImageError(f"expected a kind of hunk without a parent, found {kind}")
    found.kinds = kinds.translate(_KINDS_STORED)
    return found


def _runs(kinds: bytearray) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each run of hunks of one kind, long ones in pieces."""
    for start in range(0, len(kinds), _CHUNK):
        for match in _ALIKE.finditer(kinds[start : start + _CHUNK]):
            yield match[0][0], start + match.start(), start + match.end()


def _kinds(bits: BitReader, count: int) -> bytearray:
    """The kind of each hunk as the codes have it."""
    tree = read_tree_rle(bits, _KIND_CODES, _KIND_BITS_MAX)
    kinds = bytearray()
    last = 0
    while len(kinds) < count:
        value = tree.decode(bits)
        run = 1
        if value == _RUN_SHORT:
            run = 3 + tree.decode(bits)
        elif value == _RUN_LONG:
            run = 19 + (tree.decode(bits) << 4)
            run += tree.decode(bits)
        else:
            last = value
        bits.check()
        kinds += bytes([last]) * run
    del kinds[count:]
    return kinds


def _checksum(found: HunkMap) -> int:
    """CRC-16 of the map as MAME keeps it in memory: 12 bytes for each hunk."""
    crc = 0xFFFF
    for start in range(0, len(found.kinds), _CHUNK):
        kinds = found.kinds[start : start + _CHUNK]
        rows = bytearray(12 * len(kinds))
        rows[0::12] = kinds
        _fill(rows, found.lengths[start : start + _CHUNK], at=1, width=3)
        _fill(rows, found.offsets[start : start + _CHUNK], at=4, width=6)
        _fill(rows, found.crcs[start : start + _CHUNK], at=10, width=2)
        crc = binascii.crc_hqx(rows, crc)
    return crc


def _fill(rows: bytearray, column: array[int], *, at: int, width: int) -> None:
    """Put a column into rows, its low ``width`` bytes, the highest first."""
    if sys.byteorder == "little":
        column.byteswap()
    stored, size = column.tobytes(), column.itemsize
    for byte in range(width):
        rows[at + byte :: 12] = stored[size - width + byte :: size]
