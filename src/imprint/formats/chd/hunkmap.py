"""The map of a CHD: how and where each hunk is stored.

The map of a compressed image is compressed itself: first the kind of every hunk by Huffman
codes, then, for each hunk, what its kind needs: a length, a checksum, another hunk's number.

Older maps are plain rows: 16 bytes a hunk in versions 3 and 4, 8 bytes in 1 and 2.

Source: MAME ``src/lib/util/chd.cpp`` (``chd_file::decompress_v5_map``, ``read_hunk``); for
versions 1 and 2 its release 0.145 (``map_extract_old``).
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
from imprint.core.tables import read_table, stored
from imprint.formats.chd.huffman import BitReader, read_tree_rle

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
"""The same as a place in the parent."""
# Not in the map of version 5, but in those of others:
HOLE: Final = 7
"""Never written, in an image without compression: as in the parent, or zeros."""
MINI: Final = 8
"""Eight bytes again and again: what would be the offset."""
UNKNOWN: Final = 9

UNCHECKED: Final = 1
"""In old versions, codec 0 is of hunks with a CRC-32, codec 1 of those without any."""

# What else stands for a kind in a compressed map.
_RUN_SHORT: Final = 7
_RUN_LONG: Final = 8
_SELF_SAME: Final = 9
_SELF_NEXT: Final = 10
_PARENT_HERE: Final = 11
_PARENT_SAME: Final = 12
_PARENT_NEXT: Final = 13

# How versions 3 and 4 call their kinds; bit 4 says that there is no checksum.
_V3_KINDS: Final = {1: 0, 2: PLAIN, 3: MINI, 4: SELF, 5: PARENT, 17: UNCHECKED}
_V3_KINDS.update({16 + kind: _V3_KINDS[kind] for kind in (2, 3, 4, 5)})
_KINDS_OF_V3: Final = bytes(_V3_KINDS.get(kind, UNKNOWN) for kind in range(256))
_V1_OFFSET_BITS: Final = 44

_KIND_CODES: Final = 16
_KIND_BITS_MAX: Final = 8
_CHUNK: Final = 1 << 16
_ALIKE: Final = re.compile(rb"(?s)(.)\1*")
_KINDS_STORED: Final = bytes(
    {_SELF_SAME: SELF, _SELF_NEXT: SELF}.get(
        kind, PARENT if _PARENT_HERE <= kind <= _PARENT_NEXT else kind
    )
    for kind in range(256)
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
        kinds: a codec's number, ``PLAIN``, ``SELF``, ``PARENT``, ``HOLE`` or ``MINI``.
        offsets: in the file; for ``SELF``, the other hunk's number; for ``PARENT``, the place
            in the parent, in its units.
        lengths: of what is stored, in bytes.
        crcs: of the hunk: CRC-16, in old versions CRC-32; empty where the image has none.
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
    if header.version < 3:
        return _map_v1(storage, header)
    if header.version < 5:
        return _map_v3(storage, header)
    if not header.codecs:
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
    for field in ("length_bits", "self_bits", "parent_bits"):
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


def _map_v3(storage: Storage, header: Header) -> HunkMap:
    """Rows of 16 bytes: offset, CRC-32, the length's lower 16 bits and its upper 8, kind."""
    found = _empty_map(header.hunk_count)
    for first in range(0, header.hunk_count, _CHUNK):
        stop = min(first + _CHUNK, header.hunk_count)
        count = stop - first
        rows = read_table(storage, header.map_offset + 16 * first, 2 * count, "Q", "big")
        found.offsets[first:stop] = rows[0::2]
        packed = stored(rows, "big").tobytes()
        found.kinds[first:stop] = packed[15::16].translate(_KINDS_OF_V3)
        crcs, lengths = bytearray(4 * count), bytearray(4 * count)
        for byte in range(4):
            crcs[byte::4] = packed[8 + byte :: 16]
        for byte, at in ((1, 14), (2, 12), (3, 13)):
            lengths[byte::4] = packed[at::16]
        found.crcs[first:stop] = _numbers(crcs)
        found.lengths[first:stop] = _numbers(lengths)
    return found


def _map_v1(storage: Storage, header: Header) -> HunkMap:
    """Rows of 8 bytes: the length in 20 bits, the offset in 44. Nothing has a checksum."""
    found = _empty_map(header.hunk_count)
    size, mask = header.hunk_size, (1 << _V1_OFFSET_BITS) - 1
    for first in range(0, header.hunk_count, _CHUNK):
        stop = min(first + _CHUNK, header.hunk_count)
        rows = read_table(storage, header.map_offset + 8 * first, stop - first, "Q", "big")
        lengths = array("I", [row >> _V1_OFFSET_BITS for row in rows])
        found.lengths[first:stop] = lengths
        found.kinds[first:stop] = bytes(
            [PLAIN if length == size else UNCHECKED for length in lengths]
        )
        found.offsets[first:stop] = array("Q", [row & mask for row in rows])
    return found


def _empty_map(count: int) -> HunkMap:
    numbers = array("I", [0]) * count
    return HunkMap(bytearray(count), array("Q", [0]) * count, numbers, numbers[:])


def _numbers(big: bytearray) -> array[int]:
    found = array("I", bytes(big))
    if sys.byteorder == "little":
        found.byteswap()
    return found


def _unpacked(packed: bytes, header: Header, map_header: MapHeader) -> HunkMap:
    """Spread out a compressed map."""
    bits = BitReader(packed)
    count = header.hunk_count
    kinds = _kinds(bits, count)
    found = HunkMap(
        kinds, array("Q", [0]) * count, array("I", [0]) * count, array("H", [0]) * count
    )
    length_bits = map_header.length_bits
    position = int.from_bytes(map_header.data_offset, "big")
    references = _References(bits, header, map_header)
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
        elif kind in (PARENT, _PARENT_HERE, _PARENT_SAME, _PARENT_NEXT):
            found.offsets[index:stop] = references.to_parent(kind, index, run)
        else:
            found.offsets[index:stop] = references.to_self(kind, run)
    found.kinds = kinds.translate(_KINDS_STORED)
    return found


class _References:
    """Places of hunks that are not stored; most are told by the one before."""

    def __init__(self, bits: BitReader, header: Header, map_header: MapHeader) -> None:
        self._bits = bits
        self._self_bits = map_header.self_bits
        self._parent_bits = map_header.parent_bits
        self._hunk, self._unit = header.hunk_size, header.parent_unit
        self._last_self = 0
        self._last_parent = 0

    def to_self(self, kind: int, run: int) -> array[int]:
        """Numbers of other hunks."""
        last = self._last_self
        if kind == SELF:
            places = self._read(run, self._self_bits)
        elif kind == _SELF_SAME:
            places = array("Q", [last]) * run
        elif kind == _SELF_NEXT:
            places = array("Q", range(last + 1, last + run + 1))
        else:
            raise CorruptImageError(f"expected a kind of hunk, found {kind}")
        self._last_self = places[-1]
        return places

    def to_parent(self, kind: int, index: int, run: int) -> array[int]:
        """Units of the parent, for hunks from ``index`` on."""
        last, step = self._last_parent, self._hunk // self._unit
        if kind == PARENT:
            places = self._read(run, self._parent_bits)
        elif kind == _PARENT_HERE:
            at = range(index, index + run)
            places = array("Q", (number * self._hunk // self._unit for number in at))
        elif kind == _PARENT_SAME:
            places = array("Q", [last]) * run
        else:
            places = array("Q", range(last + step, last + step * run + 1, step))
        self._last_parent = places[-1]
        return places

    def _read(self, run: int, width: int) -> array[int]:
        self._bits.need(run * width)
        return array("Q", (self._bits.read(width) for _ in range(run)))


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
    content, size = column.tobytes(), column.itemsize
    for byte in range(width):
        rows[at + byte :: 12] = content[size - width + byte :: size]
