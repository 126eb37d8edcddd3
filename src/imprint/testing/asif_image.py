"""ASIF images, made by their description so that tests can read and break them."""

from __future__ import annotations

import struct
import uuid
from typing import Final

SECTOR_BYTES: Final = 512
UUID: Final = uuid.UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
STABLE_UUID: Final = "00112233-4455-6677-8899-aabbccddeeff"

_LIST: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0">\n<dict>\n'
    "\t<key>internal metadata</key>\n\t<dict>\n\t\t<key>stable uuid</key>\n"
    "\t\t<string>{}</string>\n\t</dict>\n\t<key>user metadata</key>\n\t<dict/>\n</dict>\n</plist>\n"
)


def asif(disk: bytes, *, chunk_size: int = 32768, tables: int = 3, partly: bool = True) -> bytes:
    """Chunks without zero sectors are whole, others have a bitmap; every other hole is unmapped.

    Args:
        disk: whole sectors.
        chunk_size: in bytes, a power of two from 32 KiB on.
        tables: that the disk could have if it grew; the last has the metadata.
        partly: whether there are bitmaps; without, what holds any byte is stored whole.
    """
    group = 4 * SECTOR_BYTES
    groups = chunk_size // (8 * (group + 1))
    chunks: list[bytes] = [b""]  # number 0 is for header and directories
    entries: dict[int, dict[int, int]] = {}  # of each table
    bitmaps: dict[tuple[int, int], bytearray] = {}

    def put(chunk: int, data: bytes) -> None:
        table, inside = divmod(chunk, groups * group)
        group_number, index = divmod(inside, group)
        row = entries.setdefault(table, {})
        sectors = [data[at : at + SECTOR_BYTES] for at in range(0, chunk_size, SECTOR_BYTES)]
        state = 1
        if partly and not all(map(any, sectors)):
            state = 3
            bitmap = bitmaps.setdefault((table, group_number), bytearray(chunk_size))
            for sector, content in enumerate(sectors):
                number = index * len(sectors) + sector
                bitmap[number // 4] |= any(content) << (2 * (number % 4))
        row[group_number * (group + 1) + index] = state << 62 | len(chunks)
        chunks.append(data)

    for chunk in range(-(-len(disk) // chunk_size)):
        data = disk[chunk * chunk_size :][:chunk_size].ljust(chunk_size, b"\0")
        if any(data):
            put(chunk, data)
        elif chunk % 2:
            entries.setdefault(0, {})[chunk] = 2 << 62
    metadata = tables * groups * group - 1
    head = struct.pack(">4sIIIII", b"meta", 1, 512, 0, 512, 0).ljust(512, b"\0")
    put(metadata, (head + _LIST.format(STABLE_UUID).encode()).ljust(chunk_size, b"\0"))
    for (table, group_number), bitmap in bitmaps.items():
        entries[table][(group_number + 1) * (group + 1) - 1] = len(chunks)
        chunks.append(bytes(bitmap))
    directory = [0] * tables
    for table, row in entries.items():
        directory[table] = len(chunks)
        stored = bytearray(chunk_size)
        for at, entry in row.items():
            struct.pack_into(">Q", stored, 8 * at, entry)
        chunks.append(bytes(stored))
    header = struct.pack(
        ">4sIIIQQ16sQQIHHQ",
        *(b"shdw", 1, 512, 0, 512, 1024, UUID.bytes, len(disk) // SECTOR_BYTES),
        *((metadata + 1) * chunk_size // SECTOR_BYTES, chunk_size, SECTOR_BYTES, 0, metadata),
    )
    old = struct.pack(f">{tables + 1}Q", 6, *[9] * tables)  # of no use: its number is lower
    new = struct.pack(f">{tables + 1}Q", 7, *directory)
    chunks[0] = header.ljust(512, b"\0") + old.ljust(512, b"\0") + new
    return b"".join(chunk.ljust(chunk_size, b"\0") for chunk in chunks)
