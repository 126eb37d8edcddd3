"""Reading and checking the headers of extent files."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.limits import DISK_SIZE_MAX
from imprint.formats.vmdk import layout
from imprint.formats.vmdk.descriptor import TEXT_BYTES_MAX, Descriptor, parse
from imprint.formats.vmdk.layout import (
    SECTOR,
    CowdHeader,
    Marker,
    SeSparseHeader,
    SeSparseVolatile,
    SparseHeader,
)
from imprint.formats.vmdk.sparse import Geometry, GrainTables, placed_tables

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

_TABLE_ALLOCATED: Final = 0x10000000 << 32
_FOOTER_SEARCH_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class SparseFile:
    """A sparse extent file, its header checked.

    Attributes:
        kind: ``SPARSE``, ``VMFSSPARSE`` or ``SESPARSE``.
        geometry: what its tables describe.
        tables: where its grains are.
        header: of a hosted sparse extent; from the footer, if the tables are named there.
        descriptor: that is embedded in it.
    """

    kind: str
    geometry: Geometry
    tables: GrainTables
    header: SparseHeader | None = None
    descriptor: Descriptor | None = None


def magic_of(storage: Storage) -> str:
    """Which kind of file it is: ``SPARSE`` … as in :class:`SparseFile`, ``TEXT``, or nothing."""
    head = bytearray(min(32, storage.size))
    storage.readinto(memoryview(head), 0)
    if head[:4] == b"KDMV":
        return "SPARSE"
    if head[:4] == b"COWD":
        return "VMFSSPARSE"
    if int.from_bytes(head[:8], "little") == layout.SESPARSE_MAGIC:
        return "SESPARSE"
    if head.lower().startswith(layout.TEXT_MAGIC.lower()):
        return "TEXT"
    return ""


def read_text(storage: Storage) -> Descriptor:
    """A descriptor that is a file of its own.

    Raises:
        CorruptImageError: if it is too long, or no descriptor.
    """
    if storage.size > TEXT_BYTES_MAX:
        raise CorruptImageError(
            f"expected a descriptor of at most {TEXT_BYTES_MAX} bytes, found {storage.size}",
            name=storage.name,
        )
    text = bytearray(storage.size)
    storage.readinto(memoryview(text), 0)
    return parse(bytes(text), where=storage.name)


def read_sparse(storage: Storage) -> SparseFile:
    """A sparse extent of any kind.

    Raises:
        FormatError: if it is none, or its header makes no sense.
    """
    kind = magic_of(storage)
    if kind == "SPARSE":
        return read_hosted(storage)
    if kind == "VMFSSPARSE":
        return _read_cowd(storage)
    if kind == "SESPARSE":
        return _read_sesparse(storage)
    raise CorruptImageError("expected a sparse extent, found another file", name=storage.name)


def read_header(storage: Storage) -> SparseHeader:
    """The header at the start of a hosted sparse extent.

    Raises:
        FormatError: if its version or compression is not known, or it is damaged.
    """
    header = _checked_header(storage, 0)
    if header.flags & layout.FLAG_NEWLINES:
        header.require(
            "newlines",
            header.newlines == layout.NEWLINES,
            r"\n \r\n, which a transfer as text has changed",
            where=storage.name,
        )
    return header


def read_hosted(storage: Storage) -> SparseFile:
    """A hosted sparse extent, its descriptor included.

    Raises:
        FormatError: if its header, footer or descriptor makes no sense.
    """
    header = read_header(storage)
    descriptor = _embedded(storage, header)
    if header.directory_offset == layout.GD_AT_END:
        header = _footer(storage)
    if header.capacity == 0:  # it holds the descriptor of other files, and nothing else
        empty = GrainTables(storage, array("I"), layout.ENTRIES_PER_TABLE)
        geometry = Geometry(0, SECTOR, layout.ENTRIES_PER_TABLE)
        return SparseFile("SPARSE", geometry, empty, header, descriptor)
    where = storage.name
    grain = header.grain_size
    header.require(
        "grain_size",
        grain.bit_count() == 1 and grain <= layout.GRAIN_SECTORS_MAX,
        f"a power of two up to {layout.GRAIN_SECTORS_MAX}",
        where=where,
    )
    header.require(
        "entries_per_table", 1 <= header.entries_per_table <= 4096, "1 to 4096", where=where
    )
    header.require(
        "capacity",
        header.capacity <= DISK_SIZE_MAX // SECTOR,
        "at most 1 EiB in sectors",
        where=where,
    )
    geometry = Geometry(
        header.capacity * SECTOR,
        grain * SECTOR,
        header.entries_per_table,
        has_zeroed=bool(header.flags & layout.FLAG_ZEROED),
        is_compressed=header.is_compressed,
        has_markers=bool(header.flags & layout.FLAG_MARKERS),
    )
    directory = read_directory(storage, header.directory_offset, geometry.table_count)
    tables = placed_tables(storage, directory, geometry.entries_per_table)
    return SparseFile("SPARSE", geometry, tables, header, descriptor)


def read_directory(storage: Storage, sector: int, count: int, code: str = "I") -> array[int]:
    """``count`` entries of a grain directory.

    Raises:
        CorruptImageError: if there are too many.
        TruncatedImageError: if the file ends before they do.
    """
    if count > layout.DIRECTORY_ENTRIES_MAX:
        raise CorruptImageError(
            f"grain directory: expected at most {layout.DIRECTORY_ENTRIES_MAX} entries, "
            f"found {count}",
            name=storage.name,
        )
    directory = array(code)
    length = count * directory.itemsize
    if sector * SECTOR + length > storage.size:
        raise TruncatedImageError(
            f"grain directory: expected {length} bytes at 0x{sector * SECTOR:x}, "
            f"found a file of {storage.size}",
            name=storage.name,
            offset=sector * SECTOR,
        )
    directory.frombytes(bytes(length))
    storage.readinto(memoryview(directory).cast("B"), sector * SECTOR)
    if sys.byteorder == "big":
        directory.byteswap()
    return directory


def _checked_header(storage: Storage, offset: int) -> SparseHeader:
    header = SparseHeader.unpack(bytes_at(storage, offset, 512), where=storage.name)
    header.require(
        "magic", header.magic == layout.SPARSE_MAGIC, "KDMV", where=storage.name, at=offset
    )
    header.require(
        "version",
        1 <= header.version <= layout.VERSION_STREAM,
        "1 to 3",
        where=storage.name,
        at=offset,
        error=UnsupportedFeatureError,
    )
    header.require(
        "compression",
        header.compression <= layout.COMPRESSION_DEFLATE,
        "0 or 1 (deflate)",
        where=storage.name,
        at=offset,
        error=UnsupportedFeatureError,
    )
    return header


def _embedded(storage: Storage, header: SparseHeader) -> Descriptor | None:
    if not header.descriptor_offset or not header.descriptor_size:
        return None
    room = header.descriptor_size * SECTOR
    start = header.descriptor_offset * SECTOR
    header.require(
        "descriptor_size",
        room <= TEXT_BYTES_MAX and start + room <= storage.size,
        "a descriptor of at most 1 MiB inside the file",
        where=storage.name,
    )
    text = bytes_at(storage, start, room)
    if not text.strip(b"\0"):
        return None
    return parse(text, where=storage.name, offset=start, room=room)


def _footer(storage: Storage) -> SparseHeader:
    """The header's copy that knows where the directory is: behind the last footer marker."""
    end = storage.size - storage.size % SECTOR
    start = max(0, end - _FOOTER_SEARCH_BYTES)
    tail = bytes_at(storage, start, end - start)
    for at in range(len(tail) - 2 * SECTOR, -1, -SECTOR):
        marker = Marker.unpack(memoryview(tail)[at:])
        if (marker.kind, marker.length, marker.value) != (layout.MARKER_FOOTER, 0, 1):
            continue
        if tail.startswith(b"KDMV", at + SECTOR):
            header = _checked_header(storage, start + at + SECTOR)
            header.require(
                "directory_offset",
                header.directory_offset != layout.GD_AT_END,
                "the place of the grain directory",
                where=storage.name,
                at=start + at + SECTOR,
            )
            return header
    raise TruncatedImageError(
        "expected a footer at the end of the stream, found none",
        name=storage.name,
        advice="it was not written or transferred to its end",
    )


def _read_cowd(storage: Storage) -> SparseFile:
    header = CowdHeader.unpack(bytes_at(storage, 0, CowdHeader.SIZE), where=storage.name)
    where = storage.name
    header.require("version", header.version == 1, "1", where=where, error=UnsupportedFeatureError)
    grain = header.grain_size
    header.require(
        "grain_size",
        grain.bit_count() == 1 and grain <= layout.GRAIN_SECTORS_MAX,
        f"a power of two up to {layout.GRAIN_SECTORS_MAX}",
        where=where,
    )
    geometry = Geometry(header.capacity * SECTOR, grain * SECTOR, layout.COWD_ENTRIES_PER_TABLE)
    header.require(
        "directory_entries",
        header.directory_entries >= geometry.table_count,
        f"at least {geometry.table_count}",
        where=where,
    )
    directory = read_directory(storage, header.directory_offset, geometry.table_count)
    tables = placed_tables(storage, directory, geometry.entries_per_table)
    return SparseFile("VMFSSPARSE", geometry, tables)


def _read_sesparse(storage: Storage) -> SparseFile:
    header = SeSparseHeader.unpack(bytes_at(storage, 0, 512), where=storage.name)
    where = storage.name
    for field, expected in (
        ("version", layout.SESPARSE_VERSION),
        ("grain_size", layout.SESPARSE_GRAIN_SECTORS),
        ("table_size", layout.SESPARSE_TABLE_SECTORS),
        ("flags", 0),
    ):
        header.require(
            field,
            getattr(header, field) == expected,
            f"0x{expected:x}",
            where=where,
            error=UnsupportedFeatureError,
        )
    for field in ("capacity", "tables_offset", "grains_offset", "volatile_offset"):
        limit = DISK_SIZE_MAX // SECTOR
        header.require(field, getattr(header, field) <= limit, "below 1 EiB", where=where)
    place = header.volatile_offset * SECTOR
    volatile = SeSparseVolatile.unpack(bytes_at(storage, place, 512), where=where)
    volatile.require(
        "magic",
        volatile.magic == layout.SESPARSE_VOLATILE_MAGIC,
        f"0x{layout.SESPARSE_VOLATILE_MAGIC:x}",
        where=where,
        at=place,
    )
    if volatile.replay_journal:
        # Nobody has published what the journal's records are: reading past it would be a guess.
        raise UnsupportedFeatureError(
            "has a journal to replay (replay_journal is set), whose format is not public: its "
            "tables may be out of date",
            name=where,
            offset=place,
            advice="vmkfstools -i on an ESXi host replays it, and makes a copy without one",
        )
    per_table = layout.SESPARSE_TABLE_SECTORS * SECTOR // 8
    geometry = Geometry(
        header.capacity * SECTOR, header.grain_size * SECTOR, per_table, has_zeroed=True
    )
    count = geometry.table_count
    header.require(
        "directory_size",
        header.directory_size * SECTOR // 8 >= count,
        f"room for {count} entries",
        where=where,
    )
    directory = read_directory(storage, header.directory_offset, count, "Q")
    for number, entry in enumerate(directory):
        if entry:
            directory[number] = _table_sector(entry, header.tables_offset, number, where)

    def translate(entries: array[int]) -> array[int]:
        return array("Q", (_grain_sector(entry, header.grains_offset, where) for entry in entries))

    tables = placed_tables(storage, directory, per_table, entry_bytes=8, translate=translate)
    return SparseFile("SESPARSE", geometry, tables)


def _table_sector(entry: int, first: int, number: int, where: str) -> int:
    if entry >> 32 << 32 != _TABLE_ALLOCATED:
        raise CorruptImageError(
            f"grain directory entry {number}: expected 0x10000000 in its upper half, "
            f"found 0x{entry:x}",
            name=where,
        )
    return first + (entry & 0xFFFFFFFF) * layout.SESPARSE_TABLE_SECTORS


def _grain_sector(entry: int, first: int, where: str) -> int:
    """What a grain table's entry means: its type is in the top four bits."""
    if entry == 0:
        return layout.GTE_ABSENT
    kind = entry >> 60
    if kind in (1, 2):  # unmapped by the guest, or zero
        return layout.GTE_ZERO
    if kind != 3:
        raise CorruptImageError(
            f"grain table: expected an entry of type 0 to 3, found 0x{entry:x}", name=where
        )
    # The number's low 12 bits stand above its upper 48 bits.
    number = entry >> 48 & 0xFFF | (entry & 0xFFFFFFFFFFFF) << 12
    sector = first + number * layout.SESPARSE_GRAIN_SECTORS
    if not layout.GTE_DATA <= sector <= DISK_SIZE_MAX // SECTOR:
        raise CorruptImageError(f"grain table: expected a grain in the file, found 0x{entry:x}")
    return sector


def bytes_at(storage: Storage, offset: int, length: int) -> bytes:
    """A few bytes of a file.

    Raises:
        TruncatedImageError: if it ends before they do.
    """
    if offset + length > storage.size:
        raise TruncatedImageError(
            f"expected {length} bytes at 0x{offset:x}, found a file of {storage.size}",
            name=storage.name,
            offset=offset,
        )
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)
