"""Images of formats that are only read, made by their descriptions so that tests can break them.

Each function takes a whole disk and gives a whole file. Units of zeros are left out where the
format can.
"""

from __future__ import annotations

import binascii
import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR_BYTES: Final = 512


def qcow(
    disk: bytes, *, cluster_bits: int = 9, l2_bits: int = 6, compress: bool = False, name: str = ""
) -> bytes:
    """QCOW version 1; ``name`` is that of a backing file."""
    size, l2_count = 1 << cluster_bits, 1 << l2_bits
    l1_at = 48 + (len(name.encode()) + 7) // 8 * 8
    l1 = [0] * -(-len(disk) // (size * l2_count))
    tables: dict[int, list[int]] = {}
    body = bytearray(-(l1_at + 8 * len(l1)) % size)
    start = l1_at + 8 * len(l1)
    for index, unit in _units(disk, size):
        if not any(unit):
            continue
        number, at = divmod(index, l2_count)
        if number not in tables:
            body += bytes(-(start + len(body)) % size)
            l1[number] = start + len(body)
            tables[number] = [0] * l2_count
            body += bytes(8 * l2_count)
        small = _deflated(unit)
        if compress and len(small) < size:
            position = start + len(body)
            tables[number][at] = 1 << 63 | len(small) << (63 - cluster_bits) | position
            body += small
        else:
            body += bytes(-(start + len(body)) % size)
            tables[number][at] = start + len(body)
            body += unit
    for number, table in tables.items():
        struct.pack_into(f">{l2_count}Q", body, l1[number] - start, *table)
    backing = (48, len(name.encode())) if name else (0, 0)
    head = struct.pack(
        ">4sIQIIQBBHIQ",
        *(b"QFI\xfb", 1, *backing, 0, len(disk), cluster_bits, l2_bits, 0, 0, l1_at),
    )
    return head + name.encode().ljust(l1_at - 48, b"\0") + struct.pack(f">{len(l1)}Q", *l1) + body


def qed(disk: bytes, *, table_size: int = 1, zeros: bool = False, name: str = "") -> bytes:
    """QED with the smallest clusters, 4 KiB; ``zeros``: clusters of zeros are said to be that."""
    size = 4096
    count = size * table_size // 8
    clusters = [bytearray(size)]
    l1 = [0] * count
    tables: dict[int, list[int]] = {}
    clusters += [bytearray(size)] * table_size
    for index, unit in _units(disk, size):
        if not any(unit) and not zeros:
            continue
        number, at = divmod(index, count)
        if number not in tables:
            l1[number] = len(clusters) * size
            tables[number] = [0] * count
            clusters += [bytearray(size)] * table_size
        if any(unit):
            tables[number][at] = len(clusters) * size
            clusters.append(bytearray(unit))
        else:
            tables[number][at] = 1
    content = bytearray(b"".join(clusters))
    struct.pack_into(f"<{count}Q", content, size, *l1)
    for number, table in tables.items():
        struct.pack_into(f"<{count}Q", content, l1[number], *table)
    features, backing = (1, (64, len(name.encode()))) if name else (0, (0, 0))
    struct.pack_into(
        "<4sIIIQQQQQII",
        content,
        0,
        *(b"QED\0", size, table_size, 1, features, 0, 0, size, len(disk), *backing),
    )
    content[64 : 64 + len(name.encode())] = name.encode()
    return bytes(content)


def bochs(
    disk: bytes,
    *,
    extent_size: int = 4096,
    version: int = 0x20000,
    subtype: bytes = b"Growing",
) -> bytes:
    """An image whose extents are stored last first; sectors of zeros are left out."""
    sectors = extent_size // SECTOR_BYTES
    bitmap_size = -(-sectors // 8)
    used = [(index, unit) for index, unit in _units(disk, extent_size) if any(unit)]
    catalog = [0xFFFFFFFF] * -(-len(disk) // extent_size)
    body = bytearray()
    for number, (index, unit) in enumerate(reversed(used)):
        catalog[index] = number
        bits = 0
        for sector, data in _units(unit, SECTOR_BYTES):
            bits |= any(data) << sector
        bitmap = bits.to_bytes(bitmap_size, "little")
        body += bitmap.ljust(-(-bitmap_size // SECTOR_BYTES) * SECTOR_BYTES, b"\0") + unit
    head = struct.pack(
        "<32s16s16sIIIII",
        *(b"Bochs Virtual HD Image", b"Redolog", subtype, version),
        *(SECTOR_BYTES, len(catalog), bitmap_size, extent_size),
    )
    head += struct.pack("<Q" if version == 0x10000 else "<4xQ", len(disk))
    return head.ljust(SECTOR_BYTES, b"\0") + struct.pack(f"<{len(catalog)}I", *catalog) + body


def cloop(disk: bytes, *, block_size: int = SECTOR_BYTES) -> bytes:
    """Version 2; the disk has to be whole blocks."""
    blocks = [zlib.compress(unit) for _, unit in _units(disk, block_size)]
    start = 136 + 8 * (len(blocks) + 1)
    offsets = [start]
    for block in blocks:
        offsets.append(offsets[-1] + len(block))
    preamble = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0\n".ljust(128, b"\0")
    head = struct.pack(f">II{len(offsets)}Q", block_size, len(blocks), *offsets)
    return preamble + head + b"".join(blocks)


def cloop4(disk: bytes, *, block_size: int = SECTOR_BYTES, header_last: bool = False) -> bytes:
    """Version 4: blocks are in turn deflated, as they are, and in xz."""
    encode = (zlib.compress, bytes, lzma.compress)
    blocks = [encode[number % 3](unit) for number, unit in _units(disk, block_size)]
    position = 0 if header_last else 136 + 8 * (len(blocks) + 1)
    offsets = []
    for number, block in enumerate(blocks):
        offsets.append(number % 3 << 60 | position)
        position += len(block)
    table = struct.pack(f">{len(blocks) + 1}Q", *offsets, position)
    head = b"#!/bin/sh\n#V4.0 Format\nmodprobe cloop file=$0\n".ljust(128, b"\0")
    head += struct.pack(">II", block_size, len(blocks))
    return b"".join((*blocks, table, head) if header_last else (head, table, *blocks))


def chd(disk: bytes, *, hunk_size: int = 4096, compress: bool = False) -> bytes:
    """Version 5 without metadata; ``compress``: by zlib, repeated hunks stored once."""
    hunks = [unit for _, unit in _units(disk, hunk_size)]
    body = bytearray()
    start = 124
    if compress:
        table, body = _chd_map(hunks, start)
    else:
        start = -(-(124 + 4 * len(hunks)) // hunk_size) * hunk_size
        numbers = [0] * len(hunks)
        for index, hunk in enumerate(hunks):
            if any(hunk):
                numbers[index] = (start + len(body)) // hunk_size
                body += hunk
        table = struct.pack(f">{len(hunks)}I", *numbers)
    head = struct.pack(
        ">8sII4s12sQQQII60x",
        *(b"MComprHD", 124, 5, b"zlib" if compress else b"", b"", len(disk)),
        *(start + len(body) if compress else 124, 0, hunk_size, 512),
    )
    if compress:
        return head + body + table
    return (head + table).ljust(start, b"\0") + body


def _chd_map(hunks: list[bytes], start: int) -> tuple[bytes, bytearray]:
    """A compressed map and what it refers to; every code of a kind has four bits."""
    body, rows = bytearray(), bytearray()
    seen: dict[bytes, int] = {}
    kinds: list[int] = []
    fields: list[tuple[int, int]] = []  # value and width in bits
    for index, hunk in enumerate(hunks):
        encoder = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = encoder.compress(hunk) + encoder.flush()
        offset, crc = start + len(body), binascii.crc_hqx(hunk, 0xFFFF)
        kind, length = (0, len(packed)) if len(packed) < len(hunk) else (4, len(hunk))
        if hunk in seen:
            kind, length, offset, crc = 5, 0, seen[hunk], 0
            fields.append((offset, 16))
        elif kind == 0:
            body += packed
            fields += [(length, 24), (crc, 16)]
        else:
            body += hunk
            fields.append((crc, 16))
        seen.setdefault(hunk, index)
        kinds.append(kind)
        rows += struct.pack(">B3s6sH", kind, _big(length, 3), _big(offset, 6), crc)
    fields = [(4, 4)] * 16 + [(kind, 4) for kind in kinds] + fields
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    text = text.ljust(-(-len(text) // 8) * 8, "0")
    bits = int(text, 2).to_bytes(len(text) // 8, "big")
    crc = binascii.crc_hqx(rows, 0xFFFF)
    return struct.pack(">I6sHBBBx", len(bits), _big(start, 6), crc, 24, 16, 0) + bits, body


def _big(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def _units(disk: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each unit, the last one filled up with zeros."""
    for start in range(0, len(disk), size):
        yield start // size, disk[start : start + size].ljust(size, b"\0")


def _deflated(data: bytes) -> bytes:
    encoder = zlib.compressobj(6, zlib.DEFLATED, -12)
    return encoder.compress(data) + encoder.flush()
