"""Reading EWF: chunks by their tables."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NoReturn

from imprint.core.buffers import is_zero
from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, ImagingError, ReadError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.runs import Runs
from imprint.formats.ewf import codec
from imprint.formats.ewf.chunks import ChunkIndex
from imprint.formats.ewf.sections import read_bytes

if TYPE_CHECKING:
    from imprint.core.info import Value
    from imprint.formats.ewf.chunks import Group, Place
    from imprint.formats.ewf.evidence import Evidence

FAULTS_SHOWN: Final = 5

_ZEROS_RATIO: Final = 64
"""Zeros are packed to much less than this part of them: 32 KiB to 50 bytes."""


class EwfLayer:
    """An image opened for reading; see :class:`~imprint.core.contracts.Layer`.

    What cannot be had (a damaged chunk, a missing segment) fails when it is read, with its
    place on the disk: never zeros in silence. Who has asked to read around what is missing gets
    it as ``BAD``.
    """

    def __init__(self, evidence: Evidence, format_name: str, *, is_bzip2: bool = False) -> None:
        """Takes over all segments.

        Args:
            evidence: what they hold.
            format_name: as in the table of formats.
            is_bzip2: chunks are packed by bzip2.
        """
        self._evidence = evidence
        self._format_name = format_name
        self._is_bzip2 = is_bzip2
        self._shows_missing = evidence.shows_missing
        self._geometry = evidence.geometry
        self._index = ChunkIndex(evidence.groups)
        self._bad = bad_runs(evidence)
        # Chunks of zeros are all packed alike: to compare is 20 times as fast as to unpack.
        self._zeros: tuple[bytes, int, bytes] = (b"", 0, b"")
        self._blank: dict[int, bytes] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """As the volume section says."""
        return self._geometry.size

    @property
    def traits(self) -> Traits:
        """The grain is the chunk."""
        sector = self._geometry.sector_size
        return Traits(grain=self._geometry.chunk_size, logical_sector=sector)

    def map(self, offset: int, length: int) -> Extent:
        """Chunks up to the end of their table; sectors that could not be read are ``BAD``.

        Some imagers keep what they got of a bad area: only zeros are called ``BAD``, so that
        the disk is what its hash was taken of.
        """
        end = min(offset + length, self.size)
        is_bad, border = self._bad_at(offset, end)
        if is_bad:
            border = min(border, self.unit(offset).end)
            if self._is_blank(offset, border):
                return Extent(offset, border - offset, Kind.BAD)
        size = self._geometry.chunk_size
        chunk = offset // size
        group, after = self._index.find(chunk)
        border = min(border, after * size)
        if group is None and self._shows_missing:
            return Extent(offset, border - offset, Kind.BAD)
        storage = self._evidence.storages[0] if group is None else group.storage
        return Extent(offset, border - offset, Kind.ENCODED, storage, self._stored_at(chunk, group))

    def unit(self, offset: int) -> Extent:
        """The chunk around ``offset``."""
        size = self._geometry.chunk_size
        chunk = offset // size
        start = chunk * size
        group, _ = self._index.find(chunk)
        storage = self._evidence.storages[0] if group is None else group.storage
        length = min(size, self.size - start)
        return Extent(start, length, Kind.ENCODED, storage, self._stored_at(chunk, group))

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Unpack a chunk and compare its checksum.

        Raises:
            ReadError: if it is damaged or missing, with its place on the disk.
        """
        chunk = unit.offset // self._geometry.chunk_size
        group, _ = self._index.find(chunk)
        if group is None:
            self._fail(unit, self._why_missing())
        try:
            place = self._index.place(group, chunk)
            if place.pattern:
                buffer[:] = (place.pattern * (len(buffer) // 8 + 1))[: len(buffer)]
                return
            buffer[:] = self._unpacked(group, place, len(buffer))
        except ImagingError as error:
            self._fail(unit, str(error.args[0]), error)

    def info(self) -> ImageInfo:
        """What the sections say."""
        evidence, geometry = self._evidence, self._geometry
        options: dict[str, Value] = {
            "segments": len(evidence.storages),
            "chunk_size": geometry.chunk_size,
            "sector_size": geometry.sector_size,
        }
        if geometry.media_type:
            options["media_type"] = geometry.media_type
            options["is_physical"] = geometry.is_physical
        for name in ("write_blocker", "compression", "granularity"):
            value: Value = getattr(geometry, name)
            if value:
                options[name] = value
        if evidence.errors:
            options["bad_sectors"] = self._bad.total // geometry.sector_size
        if evidence.tracks:
            options["tracks"] = ", ".join(
                f"{start} {'audio' if is_audio else 'data'}" for start, is_audio in evidence.tracks
            )
        return ImageInfo(
            self._format_name,
            geometry.size,
            options=options,
            hashes=dict(evidence.hashes),
            case=dict(evidence.case),
            uuid=geometry.set_id or None,
            files=tuple(storage.name for storage in evidence.storages[1:]),
            missing=self._missing(),
            warnings=self._warnings(),
        )

    def close(self) -> None:
        """Close all segments."""
        self._evidence.close()

    def _unpacked(self, group: Group, place: Place, length: int) -> bytes | memoryview:
        size_max = codec.packed_bytes_max(self._geometry.chunk_size)
        stored = read_bytes(group.storage, place.offset, min(place.length, size_max))
        if not place.is_compressed:
            return codec.check_stored(stored, length)
        if self._is_bzip2:
            return codec.unpack_bzip2(stored, length)
        is_short = len(stored) * _ZEROS_RATIO <= length
        if is_short and (stored, length) == self._zeros[:2]:
            return self._zeros[2]
        data = codec.unpack(stored, length)
        if is_short and is_zero(memoryview(data)):
            self._zeros = (stored, length, data)
        return data

    def _stored_at(self, chunk: int, group: Group | None) -> int:
        """Where a chunk is stored; its number will do where that is not known."""
        if group is not None:
            try:
                return self._index.place(group, chunk).offset
            except CorruptImageError:
                pass  # told when it is read
        return chunk

    def _bad_at(self, offset: int, end: int) -> tuple[bool, int]:
        """Whether ``offset`` is in a bad area, and up to where that holds."""
        starts, ends = self._bad.starts, self._bad.ends
        at = bisect_right(ends, offset)
        if at == len(starts) or starts[at] >= end:
            return False, end
        return (True, min(ends[at], end)) if starts[at] <= offset else (False, starts[at])

    def _is_blank(self, start: int, end: int) -> bool:
        """Whether a part of a chunk holds zeros."""
        unit = self.unit(start)
        with self._lock:
            data = self._blank.get(unit.offset)
        if data is None:
            buffer = bytearray(unit.length)
            try:
                self.decode(unit, memoryview(buffer))
            except ReadError:
                return False
            data = bytes(buffer)
            with self._lock:
                self._blank = {unit.offset: data}
        return is_zero(memoryview(data)[start - unit.offset : end - unit.offset])

    def _missing(self) -> tuple[tuple[int, int], ...]:
        """What no table places, in bytes of the disk."""
        size = self._geometry.chunk_size
        found = (
            (group.first * size, group.count * size)
            for group in self._index.groups
            if group.first * size < self.size
        )
        return tuple(Runs.of(found).complement(self.size))

    def _why_missing(self) -> str:
        missing = self._evidence.missing
        if missing:
            return f"is in a segment that is missing: {', '.join(map(str, missing))}"
        return "no table places this chunk"

    def _fail(self, unit: Extent, why: str, cause: Exception | None = None) -> NoReturn:
        chunk = unit.offset // self._geometry.chunk_size
        raise ReadError(
            f"chunk {chunk} at 0x{unit.offset:x}: {why}",
            name=self._evidence.name,
            offset=unit.offset,
            length=unit.length,
        ) from cause

    def _warnings(self) -> tuple[str, ...]:
        evidence = self._evidence
        warnings = list(evidence.faults[:FAULTS_SHOWN])
        if len(evidence.faults) > FAULTS_SHOWN:
            warnings.append(f"{len(evidence.faults) - FAULTS_SHOWN} faults more: imprint check")
        if evidence.missing:
            warnings.append(f"segments are missing: {', '.join(map(str, evidence.missing))}")
        return tuple(warnings)


def bad_runs(evidence: Evidence) -> Runs:
    """The areas that the imager could not read, in bytes of the disk."""
    sector, size = evidence.geometry.sector_size, evidence.geometry.size
    return Runs.of(
        (start * sector, min(count * sector, size - start * sector))
        for start, count in evidence.errors
    )
