"""From the sections of a set's segments to what they mean."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.formats.ewf import casedata
from imprint.formats.ewf.chunks import ENTRIES_MAX, TableCopy, TableGroup
from imprint.formats.ewf.evidence import ERRORS_MAX, Evidence, Geometry, geometry_of, guid
from imprint.formats.ewf.layout import (
    CHECKSUM_BYTES,
    COMPRESSION_LEVELS,
    MEDIA_FASTBLOC,
    MEDIA_IS_PHYSICAL,
    MEDIA_TABLEAU,
    MEDIA_TYPES,
    SESSION_IS_AUDIO,
    Digest,
    ErrorHeader,
    Hash,
    SessionEntry,
    SessionHeader,
    SmartVolume,
    TableHeader,
    Volume,
    is_sound,
)
from imprint.formats.ewf.sections import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.formats.ewf.chunks import Group
    from imprint.formats.ewf.sections import Section, Segment

TRACKS_MAX: Final = 1 << 12
"""A CD has 99."""

_ERROR: Final = struct.Struct("<II")


class SetReader:
    """Takes in segments in order, and makes an :class:`Evidence` of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._geometry: Geometry | None = None
        self._case: dict[str, dict[str, str]] = {}
        self._evidence = Evidence(name, [], Geometry(0, 0, 1, 1))
        self._runs: list[list[TableGroup]] = [[]]  # cut where chunks of unknown number are missing
        self._has_end = False
        self._readers: dict[str, Callable[[Segment, Section], None]] = {
            "header": self._read_header,
            "header2": self._read_header,
            "xheader": self._read_header,
            "volume": self._read_volume,
            "disk": self._read_volume,
            "data": self._read_volume,
            "error2": self._read_errors,
            "session": self._read_session,
            "digest": self._read_digest,
            "hash": self._read_hash,
            "xhash": self._read_xhash,
            "ltree": self._read_tree,
        }

    def add(self, segment: Segment) -> None:
        """Take in a segment.

        Raises:
            CorruptImageError: if it has no sound volume, and none came before.
        """
        evidence = self._evidence
        evidence.storages.append(segment.storage)
        evidence.faults += [f"segment {segment.number}: {fault}" for fault in segment.faults]
        sectors: Section | None = None
        table: TableGroup | None = None
        for section in segment.sections:
            if section.kind == "sectors":
                if sectors is not None and table is None:
                    self.add_gap()
                sectors, table = section, None
            elif section.kind == "table":
                table = self._read_table(segment, section, sectors, None)
                if table is not None:
                    self._runs[-1].append(table)
            elif section.kind == "table2":
                table = self._read_second(segment, section, sectors, table)
            elif section.kind in self._readers:
                self._readers[section.kind](segment, section)
        if (sectors is not None and table is None) or not segment.is_whole:
            self.add_gap()
        self._has_end = segment.is_last

    def add_missing(self, number: int) -> None:
        """A segment is not there."""
        self._evidence.missing.append(number)
        self.add_gap()

    def add_gap(self) -> None:
        """From here on, the numbers of chunks are not known by counting."""
        if self._runs[-1] or len(self._runs) == 1:
            self._runs.append([])

    def finish(self) -> Evidence:
        """All that was found.

        Raises:
            CorruptImageError: if there was no volume section.
        """
        evidence = self._evidence
        if self._geometry is None:
            raise CorruptImageError("expected a volume section, found none", name=self.name)
        if self._geometry.media_type == "logical":
            # The volume does not count: the tables and the tree do.
            chunks = sum(group.count for run in self._runs for group in run)
            size = chunks * self._geometry.chunk_size
            self._geometry = replace(self._geometry, chunks=chunks, size=size)
        evidence.geometry = self._geometry
        for kind in ("header", "xheader", "header2"):  # the later ones know more
            evidence.case.update(self._case.get(kind, {}))
        evidence.groups = self._placed(self._geometry.chunks)
        found = sum(group.count for group in evidence.groups)
        if found < self._geometry.chunks:
            evidence.faults.append(
                f"expected {self._geometry.chunks} chunks, found tables for {found}"
            )
        return evidence

    def _placed(self, chunks: int) -> list[Group]:
        """Groups with their numbers: from the start up to a gap, and from the end back to one."""
        head = self._runs[0]
        tail = self._runs[-1] if len(self._runs) > 1 and self._has_end else []
        first, placed = 0, []
        for group in head:
            group.first = first
            first += group.count
            placed.append(group)
        last = chunks
        for group in reversed(tail):
            last -= group.count
            group.first = last
        if tail and last >= first:
            placed += tail
        elif tail:
            self._evidence.faults.append("tables for more chunks than the disk has")
        return list(placed)

    def _read_header(self, segment: Segment, section: Section) -> None:
        if section.kind in self._case:
            return
        stored = read_bytes(segment.storage, section.start, self._length(section))
        try:
            text = casedata.inflated(stored, section.kind)
        except CorruptImageError as error:
            self._fault(segment, str(error.args[0]))
            return
        parse = casedata.parse_xheader if section.kind == "xheader" else casedata.parse_header
        self._case[section.kind] = parse(text)

    def _read_volume(self, segment: Segment, section: Section) -> None:
        data = read_bytes(segment.storage, section.start, Volume.SIZE)
        length = section.end - section.start
        if length == SmartVolume.SIZE:
            data = data[:length]
            smart = SmartVolume.unpack(data, where=self.name)
            found = geometry_of(
                self.name,
                sectors=smart.sectors,
                sector_size=smart.sector_size,
                sectors_per_chunk=smart.sectors_per_chunk,
                chunks=smart.chunks,
            )
            found = replace(found, media_type="smart")
        elif len(data) == Volume.SIZE and length >= Volume.SIZE:
            found = _geometry(Volume.unpack(data, where=self.name), self.name)
        else:
            self._fault(segment, f"{section.kind}: expected {Volume.SIZE} bytes, found {length}")
            return
        # Some imagers of Logicube leave the checksum of "data" at 0.
        if not is_sound(data) and any(data[-CHECKSUM_BYTES:]):
            self._fault(segment, f"{section.kind}: its checksum is wrong")
            if section.kind == "data" or self._geometry is not None:
                return
        if self._geometry is None:
            self._geometry = found
        elif found != self._geometry:
            self._fault(segment, f"{section.kind}: says something else than the first segment")

    def _read_table(
        self,
        segment: Segment,
        section: Section,
        sectors: Section | None,
        mirrored: TableGroup | None,
    ) -> TableGroup | None:
        data = read_bytes(segment.storage, section.start, TableHeader.SIZE)
        if len(data) < TableHeader.SIZE or not is_sound(data):
            self._fault(segment, f"{section.kind} at 0x{section.start:x}: wrong header")
            return None
        header = TableHeader.unpack(data)
        start = section.start + TableHeader.SIZE
        room = section.end - start
        if header.entries > min(ENTRIES_MAX, room // 4) or header.base > segment.storage.size:
            self._fault(segment, f"{section.kind} at 0x{section.start:x}: wrong header")
            return None
        # Where chunks are in the table itself, SMART has no checksum behind the entries.
        has_checksum = sectors is not None or not self._is_smart()
        copy = TableCopy(start, has_checksum)
        if mirrored is not None:
            if (header.entries, header.base) == (mirrored.count, mirrored.base):
                mirrored.copies.append(copy)
            else:
                self._fault(segment, f"table2 at 0x{section.start:x}: differs from the table")
            return mirrored
        if not header.entries:
            return None
        end = section.end if sectors is None else sectors.end
        return TableGroup(segment.storage, header.entries, header.base, end, [copy])

    def _read_second(
        self,
        segment: Segment,
        section: Section,
        sectors: Section | None,
        table: TableGroup | None,
    ) -> TableGroup | None:
        found = self._read_table(segment, section, sectors, table)
        if table is None and found is not None:
            self._runs[-1].append(found)
        return found

    def _read_errors(self, segment: Segment, section: Section) -> None:
        entries = self._entries(segment, section, ErrorHeader, _ERROR.size, ERRORS_MAX)
        for start, count in _ERROR.iter_unpack(entries):
            if count:
                self._evidence.errors.append((start, count))

    def _read_session(self, segment: Segment, section: Section) -> None:
        entries = self._entries(segment, section, SessionHeader, SessionEntry.SIZE, TRACKS_MAX)
        for at in range(0, len(entries), SessionEntry.SIZE):
            entry = SessionEntry.unpack(entries[at:])
            start = entry.start if self._evidence.tracks else 0
            self._evidence.tracks.append((start, bool(entry.flags & SESSION_IS_AUDIO)))

    def _entries(
        self,
        segment: Segment,
        section: Section,
        header: type[ErrorHeader | SessionHeader],
        size: int,
        count_max: int,
    ) -> bytes:
        """The entries of a small table, none if its checksums are wrong."""
        data = read_bytes(segment.storage, section.start, header.SIZE)
        count = header.unpack(data).entries if len(data) == header.SIZE else 0
        length = size * count
        end = section.start + header.SIZE + length + CHECKSUM_BYTES
        if not is_sound(data) or count > count_max or end > section.end:
            self._fault(segment, f"{section.kind}: wrong header")
            return b""
        entries = read_bytes(segment.storage, section.start + header.SIZE, length + CHECKSUM_BYTES)
        if count and not is_sound(entries):
            self._fault(segment, f"{section.kind}: its checksum is wrong")
        return entries[:length]

    def _read_digest(self, segment: Segment, section: Section) -> None:
        data = read_bytes(segment.storage, section.start, Digest.SIZE)
        if self._is_sound(segment, section, data, Digest.SIZE):
            digest = Digest.unpack(data)
            self._keep_hash(segment, "md5", digest.md5.hex())
            self._keep_hash(segment, "sha1", digest.sha1.hex())

    def _read_hash(self, segment: Segment, section: Section) -> None:
        data = read_bytes(segment.storage, section.start, Hash.SIZE)
        if self._is_sound(segment, section, data, Hash.SIZE):
            self._keep_hash(segment, "md5", Hash.unpack(data).md5.hex())

    def _read_xhash(self, segment: Segment, section: Section) -> None:
        stored = read_bytes(segment.storage, section.start, self._length(section))
        try:
            found = casedata.parse_xml(casedata.inflated(stored, "xhash"))
        except CorruptImageError as error:
            self._fault(segment, str(error.args[0]))
            return
        for name in ("md5", "sha1", "sha256"):
            if name in found:
                self._keep_hash(segment, name, found[name].lower())

    def _read_tree(self, segment: Segment, section: Section) -> None:
        self._evidence.tree = (segment.storage, section.start, section.end)

    def _is_sound(self, segment: Segment, section: Section, data: bytes, size: int) -> bool:
        if len(data) == size and is_sound(data):
            return True
        self._fault(segment, f"{section.kind}: its checksum is wrong")
        return False

    def _keep_hash(self, segment: Segment, name: str, digest: str) -> None:
        if not digest.strip("0"):
            return  # zeros stand for: not taken
        old = self._evidence.hashes.setdefault(name, digest)
        if old != digest:
            self._fault(segment, f"two different {name} hashes: {old} and {digest}")

    def _is_smart(self) -> bool:
        return self._geometry is not None and self._geometry.media_type == "smart"

    def _fault(self, segment: Segment, what: str) -> None:
        self._evidence.faults.append(f"segment {segment.number}: {what}")

    @staticmethod
    def _length(section: Section) -> int:
        return min(section.end - section.start, casedata.TEXT_BYTES_MAX)


def _geometry(volume: Volume, name: str) -> Geometry:
    geometry = geometry_of(
        name,
        sectors=volume.sectors,
        sector_size=volume.sector_size,
        sectors_per_chunk=volume.sectors_per_chunk,
        chunks=volume.chunks,
    )
    blockers = {MEDIA_FASTBLOC: "FastBloc", MEDIA_TABLEAU: "Tableau"}
    return replace(
        geometry,
        media_type=MEDIA_TYPES.get(volume.media_type, str(volume.media_type)),
        is_physical=bool(volume.media_flags & MEDIA_IS_PHYSICAL),
        write_blocker=" ".join(
            title for bit, title in blockers.items() if volume.media_flags & bit
        ),
        compression=COMPRESSION_LEVELS.get(volume.compression, str(volume.compression)),
        granularity=volume.granularity,
        set_id=guid(volume.set_id),
    )
