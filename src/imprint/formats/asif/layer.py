"""Reading an ASIF: lookups in a directory, its tables, and bitmaps of sectors."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.tables import TableCache, run_length
from imprint.core.units import KIB, div_up
from imprint.formats.asif.layout import (
    NUMBER_MASK,
    RESERVED_MASK,
    STATE_ABSENT,
    STATE_FULL,
    STATE_PARTIAL,
    STATE_SHIFT,
    STATE_UNMAPPED,
    Header,
    MetadataHeader,
)

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

_METADATA_BYTES_MAX: Final = 16 * KIB
_KEY: Final = re.compile(rb"<key>([^<]{0,80})</key>")
_STABLE_UUID: Final = re.compile(rb"<key>stable uuid</key>\s*<string>([0-9A-Fa-f-]{36})</string>")
_KNOWN_KEYS: Final = {b"internal metadata", b"user metadata", b"stable uuid"}


class AsifLayer:
    """An ASIF opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, header: Header) -> None:
        """Choose between the directories of a checked header."""
        self._storage = storage
        self._header = header
        self._tables = TableCache(storage, "Q", "big")
        self.directory = self._newer(header.directory_0, header.directory_1)
        # The bitmap that was looked at last: a copy asks for one chunk many times.
        self._last: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """As the header says."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the chunk."""
        sector = self._header.sector_size
        return Traits(grain=self._header.chunk_size, logical_sector=sector, physical_sector=sector)

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many chunks of its group as lie alike.

        Raises:
            CorruptImageError: if an entry contradicts itself.
            TruncatedImageError: if a table or a chunk begins behind the file's end.
            UnsupportedFeatureError: for a state that nobody has described.
        """
        header = self._header
        size = header.chunk_size
        chunk, within = divmod(offset, size)
        wanted = div_up(within + length, size)
        number, in_table = divmod(chunk, header.table_chunks)
        directory, at = self._tables.find(self.directory + 8, header.table_count, number)
        if directory[at] == 0:
            run = run_length(directory, at, div_up(in_table + wanted, header.table_chunks))
            run_bytes = (run * header.table_chunks - in_table) * size - within
            return Extent(offset, min(length, run_bytes), Kind.HOLE)
        start = self._position(directory[at])
        table, at = self._tables.find(start, header.table_entries, header.entry_index(chunk))
        entry = table[at]
        # Groups end with an entry that is none of data, but lies among them.
        limit = min(wanted, header.group_chunks - in_table % header.group_chunks)
        state = checked_state(entry, chunk, self._storage.name)
        if state == STATE_PARTIAL:
            return self._partial(offset, min(length, size - within), start, entry)
        run = run_length(table, at, limit, step=1 if state == STATE_FULL else 0)
        length = min(length, run * size - within)
        if state == STATE_ABSENT:
            return Extent(offset, length, Kind.HOLE)
        if state == STATE_UNMAPPED:
            return Extent(offset, length, Kind.ZERO)
        return self._data(offset, length, entry)

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What header and metadata say."""
        header = self._header
        options = {"chunk_size": header.chunk_size, "sector_size": header.sector_size}
        notes: tuple[str, ...] = ()
        warnings: tuple[str, ...] = ()
        found = None
        try:
            stored = self._metadata()
        except FormatError as failure:
            notes += (f"The metadata cannot be read: {failure.args[0]}.",)
        else:
            found = _STABLE_UUID.search(stored)
            unknown = sorted(set(_KEY.findall(stored)) - _KNOWN_KEYS)
            if unknown:
                listed = b", ".join(unknown).decode("utf-8", "replace")
                warning = (
                    f"has {listed} in its metadata, which no description explains: "
                    "if it is a layer of a stack, what lies below it is missing"
                )
                warnings = (warning,)
        return ImageInfo(
            "asif",
            header.disk_size,
            options={**options, **({"stable_uuid": found[1].decode("ascii")} if found else {})},
            uuid=str(uuid.UUID(bytes=header.uuid)),
            notes=notes,
            warnings=warnings,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _newer(self, first: int, second: int) -> int:
        sequences = [self._tables.find(offset, 1, 0)[0][0] for offset in (first, second)]
        return second if sequences[1] > sequences[0] else first

    def _position(self, number: int) -> int:
        """Of a chunk in the file."""
        position = (number & NUMBER_MASK) * self._header.chunk_size
        if position >= self._storage.size:
            raise TruncatedImageError(
                f"chunk {number & NUMBER_MASK}: expected it at 0x{position:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )
        return position

    def _data(self, offset: int, length: int, entry: int) -> Extent:
        position = self._position(entry) + offset % self._header.chunk_size
        return Extent(offset, length, Kind.DATA, self._storage, position)

    def _partial(self, offset: int, length: int, table_start: int, entry: int) -> Extent:
        """A run of sectors alike, in a chunk of which not all were written."""
        header = self._header
        chunk, within = divmod(offset, header.chunk_size)
        sector, inner = divmod(within, header.sector_size)
        bits = self._bitmap(chunk, table_start) >> 2 * sector
        is_present = bool(bits & 1)
        # Two bits for each sector, of which only the lower one is ever set.
        ones = (1 << 2 * (header.chunk_size // header.sector_size - sector)) // 3
        other = bits ^ ones if is_present else bits
        run = ((other & -other).bit_length() - 1) // 2
        if other:
            length = min(length, run * header.sector_size - inner)
        if not is_present:
            return Extent(offset, length, Kind.HOLE)
        return self._data(offset, length, entry)

    def _bitmap(self, chunk: int, table_start: int) -> int:
        """The sectors of a chunk as one number, two bits for each, the first one lowest."""
        last, bits = self._last  # one tuple, so that threads need no lock
        if last == chunk + 1:
            return bits
        header, name = self._header, self._storage.name
        group, index = divmod(chunk % header.table_chunks, header.group_chunks)
        last_index = (group + 1) * (header.group_chunks + 1) - 1
        table, at = self._tables.find(table_start, header.table_entries, last_index)
        if table[at] & NUMBER_MASK == 0:
            raise CorruptImageError(
                f"chunk {chunk} of the disk: expected a bitmap of its group, found none", name=name
            )
        size = header.chunk_size // header.sector_size // 4
        start = self._position(table[at]) + index * size
        if start + size > self._storage.size:
            raise TruncatedImageError(
                f"bitmap at 0x{start:x}: expected {size} bytes, "
                f"found a file of {self._storage.size} bytes",
                name=name,
                offset=start,
            )
        stored = bytearray(size)
        self._storage.readinto(memoryview(stored), start)
        bits = int.from_bytes(stored, "little")
        if bits & (((1 << 8 * size) // 3) << 1):
            raise UnsupportedFeatureError(
                f"bitmap at 0x{start:x}: expected the states 0 and 1, found others", name=name
            )
        self._last = (chunk + 1, bits)
        return bits

    def _metadata(self) -> bytes:
        """The property list, which lies behind the disk's end; empty if there is none."""
        header = self._header
        start = header.metadata_chunk * header.chunk_size
        if not start or start + header.chunk_size > header.sector_count_max * header.sector_size:
            return b""
        length = min(_METADATA_BYTES_MAX, header.chunk_size)
        stored = bytearray(length)
        position = start
        while position < start + length:
            extent = self.map(position, start + length - position)
            at = position - start
            if extent.kind is Kind.DATA:
                view = memoryview(stored)[at : at + extent.length]
                self._storage.readinto(view, extent.storage_offset)
            position = extent.end
        head = MetadataHeader.unpack(stored)
        return bytes(stored[head.header_size :]) if head.magic == b"meta" else b""


def checked_state(entry: int, chunk: int, name: str) -> int:
    """The state in the entry of a data chunk.

    Raises:
        UnsupportedFeatureError: for a combination that nobody has described.
    """
    state = entry >> STATE_SHIFT
    has_place = bool(entry & NUMBER_MASK)
    if entry & RESERVED_MASK or has_place != (state in (STATE_FULL, STATE_PARTIAL)):
        raise UnsupportedFeatureError(
            f"chunk {chunk} of the disk: expected an entry of a known kind, found 0x{entry:x}",
            name=name,
        )
    return state
