"""Reading the structure of version 2, whose sections are linked from the end to the start."""

from __future__ import annotations

import bz2
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.tables import read_table
from imprint.formats.ewf import casedata
from imprint.formats.ewf import layout2 as layout
from imprint.formats.ewf.chunks import ENTRIES_MAX, Place
from imprint.formats.ewf.evidence import ERRORS_MAX, Evidence, Geometry, geometry_of, guid
from imprint.formats.ewf.layout import CHECKSUM_BYTES, SESSION_IS_AUDIO, adler32, is_sound
from imprint.formats.ewf.layout2 import (
    Descriptor2,
    ErrorEntry2,
    FileHeader2,
    ListHeader2,
    SessionEntry2,
    TableHeader2,
)
from imprint.formats.ewf.reading import TRACKS_MAX
from imprint.formats.ewf.sections import SECTIONS_MAX, Section, Segment, read_bytes

if TYPE_CHECKING:
    from array import array

    from imprint.core.contracts import Storage
    from imprint.formats.ewf.chunks import EntryCache

_Entry = TypeVar("_Entry", ErrorEntry2, SessionEntry2)

HASHED_BYTES_MAX: Final = 1 << 20
"""Sections up to this size have their MD5 compared when the image is opened."""

_BZIP2_MARK: Final = b"BZh"

_DEVICE_TAGS: Final = {
    "sn": "serial_number",
    "md": "model",
    "lb": "device_label",
    "ts": "sectors",
    "hs": "hpa_sectors",
    "dc": "dco_sectors",
    "dt": "media_type",
    "pid": "process_id",
    "bp": "sector_size",
    "ph": "is_physical",
}
_CASE_TAGS: Final = {
    "nm": "description",
    "cn": "case_number",
    "en": "evidence_number",
    "ex": "examiner",
    "nt": "notes",
    "av": "software_version",
    "os": "operating_system",
    "tt": "acquisition_date",
    "at": "system_date",
    "tb": "chunks",
    "sb": "sectors_per_chunk",
    "gr": "granularity",
    "wb": "write_blocker",
}
_DRIVES: Final = {"f": "fixed", "r": "removable", "c": "optical", "m": "memory", "l": "logical"}
_BLOCKERS: Final = {"1": "FastBloc", "2": "Tableau"}
_SIZES: Final = ("sectors", "sector_size", "chunks", "sectors_per_chunk", "granularity")
_INTERNAL: Final = (*_SIZES, "media_type", "is_physical", "write_blocker")


@dataclass
class TableGroup2:
    """Chunks by a table of version 2: 16 bytes each, with the place and its size."""

    storage: Storage
    first: int
    count: int
    start: int
    name: str

    def place(self, index: int, cache: EntryCache) -> Place:
        """See :class:`~imprint.formats.ewf.chunks.Group`."""
        entries = self.entries(cache)
        offset, described = entries[2 * index], entries[2 * index + 1]
        length, flags = described & 0xFFFF_FFFF, described >> 32
        is_compressed = bool(flags & layout.CHUNK_COMPRESSED)
        if is_compressed and flags & layout.CHUNK_PATTERN:
            return Place(0, 0, is_compressed=True, pattern=offset.to_bytes(8, "little"))
        return Place(offset, length, is_compressed)

    def entries(self, cache: EntryCache) -> array[int]:
        """Two numbers for each chunk.

        Raises:
            CorruptImageError: if their checksum is wrong.
        """
        key = (id(self.storage), self.start)
        found = cache.get(key)
        if found is None:
            found = self.read()
            cache.put(key, found)
        return found

    def read(self) -> array[int]:
        """The same from the file.

        Raises:
            CorruptImageError: if their checksum is wrong.
        """
        length = self.count * layout.ENTRY_BYTES
        raw = read_bytes(self.storage, self.start, length + CHECKSUM_BYTES)
        if not is_sound(raw) or len(raw) < length + CHECKSUM_BYTES:
            raise CorruptImageError(
                f"table at 0x{self.start:x}: its checksum is wrong", name=self.name
            )
        return read_table(self.storage, self.start, 2 * self.count, "Q", "little")


def walk(segment: Segment) -> None:
    """Follow the chain of sections from the end of a segment to its start.

    Raises:
        CorruptImageError: if there are more sections than any image has.
        UnsupportedFeatureError: if one is encrypted.
    """
    storage, size = segment.storage, Descriptor2.SIZE
    position = storage.size - size
    found: list[Section] = []
    while position >= FileHeader2.SIZE:
        if len(found) == SECTIONS_MAX:
            raise CorruptImageError(f"expected at most {SECTIONS_MAX} sections", name=storage.name)
        data = read_bytes(storage, position, size)
        if not is_sound(data):
            segment.faults.append(f"section descriptor at 0x{position:x}: its checksum is wrong")
            break
        descriptor = Descriptor2.unpack(data)
        if descriptor.flags & layout.IS_ENCRYPTED:
            raise UnsupportedFeatureError("is encrypted", name=storage.name)
        start = position - descriptor.size
        before = descriptor.previous + size if descriptor.previous else FileHeader2.SIZE
        if start < before:
            segment.faults.append(f"section descriptor at 0x{position:x}: leads out of the file")
            break
        found.append(Section(str(descriptor.type), position, start, position))
        if descriptor.flags & layout.IS_HASHED and descriptor.size <= HASHED_BYTES_MAX:
            content = read_bytes(storage, start, descriptor.size)
            if hashlib.md5(content, usedforsecurity=False).digest() != descriptor.md5:
                segment.faults.append(f"section at 0x{start:x}: its MD5 is wrong")
        position = descriptor.previous
        if not position:
            break
    segment.sections = found[::-1]
    last = found[0].kind if found else ""
    segment.is_whole = last in (str(layout.NEXT), str(layout.DONE)) and position <= 0
    segment.is_last = last == str(layout.DONE)


class SetReader2:
    """Takes in segments in order, and makes an :class:`Evidence` of them."""

    def __init__(self, name: str, header: FileHeader2) -> None:
        self._evidence = Evidence(name, [], Geometry(0, 0, 1, 1))
        self._header = header
        self._texts: dict[str, str] = {}
        self._name = name

    def add(self, segment: Segment) -> None:
        """Take in a segment."""
        evidence = self._evidence
        evidence.storages.append(segment.storage)
        evidence.faults += [f"segment {segment.number}: {fault}" for fault in segment.faults]
        for section in segment.sections:
            kind = int(section.kind)
            if kind in (layout.DEVICE, layout.CASE):
                self._read_text(segment, section, kind)
            elif kind == layout.SECTOR_TABLE:
                self._read_table(segment, section)
            elif kind == layout.ERRORS:
                for entry in self._entries(segment, section, ErrorEntry2, ERRORS_MAX):
                    evidence.errors.append((entry.start, entry.count))
            elif kind == layout.SESSIONS:
                for track in self._entries(segment, section, SessionEntry2, TRACKS_MAX):
                    start = track.start if evidence.tracks else 0
                    evidence.tracks.append((start, bool(track.flags & SESSION_IS_AUDIO)))
            elif kind in (layout.MD5, layout.SHA1):
                self._read_hash(segment, section, kind)
            elif kind == layout.KEYS:
                raise UnsupportedFeatureError("is encrypted", name=self._name)

    def add_missing(self, number: int) -> None:
        """A segment is not there; tables of the others say themselves which chunks they have."""
        self._evidence.missing.append(number)

    def finish(self) -> Evidence:
        """All that was found.

        Raises:
            CorruptImageError: if the sizes of the disk are missing.
        """
        evidence, texts = self._evidence, self._texts
        sizes = {name: _number(texts.get(name, "")) for name in _SIZES}
        chunks = sizes["chunks"]
        geometry = geometry_of(
            self._name,
            sectors=sizes["sectors"],
            sector_size=sizes["sector_size"],
            sectors_per_chunk=sizes["sectors_per_chunk"],
            chunks=chunks,
        )
        evidence.geometry = replace(
            geometry,
            media_type=_DRIVES.get(texts.get("media_type", ""), texts.get("media_type", "")),
            is_physical=texts.get("is_physical") == "1",
            write_blocker=_BLOCKERS.get(texts.get("write_blocker", ""), ""),
            compression={layout.COMPRESSION_ZLIB: "zlib", layout.COMPRESSION_BZIP2: "bzip2"}.get(
                self._header.compression, "none"
            ),
            granularity=sizes["granularity"],
            set_id=guid(self._header.set_id),
        )
        evidence.case = {name: text for name, text in texts.items() if name not in _INTERNAL}
        evidence.groups.sort(key=lambda group: group.first)
        found = sum(group.count for group in evidence.groups)
        if found < -(-geometry.size // geometry.chunk_size):
            evidence.faults.append(f"expected {chunks} chunks, found tables for {found}")
        return evidence

    def _read_text(self, segment: Segment, section: Section, kind: int) -> None:
        length = min(section.end - section.start, casedata.TEXT_BYTES_MAX)
        stored = read_bytes(segment.storage, section.start, length)
        try:
            text = self._expanded(stored)
        except CorruptImageError as error:
            self._fault(segment, str(error.args[0]))
            return
        tags = _DEVICE_TAGS if kind == layout.DEVICE else _CASE_TAGS
        for name, value in casedata.parse_object(text.decode("utf-16", "replace"), tags).items():
            self._texts.setdefault(name, casedata.unescape(value))

    def _expanded(self, stored: bytes) -> bytes:
        if not stored.startswith(_BZIP2_MARK):
            return casedata.inflated(stored, "case data")
        try:
            return bz2.BZ2Decompressor().decompress(stored, casedata.TEXT_BYTES_MAX)
        except (OSError, ValueError) as failure:
            raise CorruptImageError(f"case data: expected a bzip2 stream: {failure}") from failure

    def _read_table(self, segment: Segment, section: Section) -> None:
        data = read_bytes(segment.storage, section.start, TableHeader2.SIZE)
        start = section.start + layout.TABLE_HEADER_BYTES
        room = section.end - start
        if len(data) == TableHeader2.SIZE and is_sound(data):
            header = TableHeader2.unpack(data)
            count = header.entries
            if 0 < count <= min(ENTRIES_MAX // 4, room // layout.ENTRY_BYTES):
                self._evidence.groups.append(
                    TableGroup2(segment.storage, header.first_chunk, count, start, self._name)
                )
                return
        self._fault(segment, f"table at 0x{section.start:x}: wrong header")

    def _entries(
        self,
        segment: Segment,
        section: Section,
        entry: type[_Entry],
        count_max: int,
    ) -> list[_Entry]:
        data = read_bytes(segment.storage, section.start, ListHeader2.SIZE)
        count = ListHeader2.unpack(data).entries if len(data) == ListHeader2.SIZE else 0
        start = section.start + layout.TABLE_HEADER_BYTES
        length = entry.SIZE * count
        if not is_sound(data) or count > count_max or start + length > section.end:
            self._fault(segment, f"list at 0x{section.start:x}: wrong header")
            return []
        content = memoryview(read_bytes(segment.storage, start, length))
        return [entry.unpack(content[at:]) for at in range(0, length, entry.SIZE)]

    def _read_hash(self, segment: Segment, section: Section, kind: int) -> None:
        name, length = ("md5", 16) if kind == layout.MD5 else ("sha1", 20)
        data = read_bytes(segment.storage, section.start, length + CHECKSUM_BYTES)
        digest, checksum = data[:length], data[length:]
        if checksum != adler32(digest).to_bytes(CHECKSUM_BYTES, "little"):
            self._fault(segment, f"{name}: its checksum is wrong")
        elif any(digest):
            self._evidence.hashes[name] = digest.hex()

    def _fault(self, segment: Segment, what: str) -> None:
        self._evidence.faults.append(f"segment {segment.number}: {what}")


def _number(text: str) -> int:
    """A decimal number that fits into 64 bits; 0 if it is none."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(1 << 60))
    return int(text) if is_number else 0
