"""ImageStreams: chunks, packed into bevies, with an index and hashes for each bevy.

::

    STREAM/00000000                   chunks one after the other
    STREAM/00000000.index             of each: u64 offset in the bevy, u32 length
    STREAM/00000000.blockHash.sha1    of each: its digest
    STREAM/00000000/index             before the standard: u32 of where each chunk ends

Source: *AFF4 Standard* 1.0, sections 3 (Image Stream) and 6.2 (Image Stream Block Hashes).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.recent import Recent
from imprint.core.units import KIB, MIB, div_up
from imprint.formats.aff4 import codec
from imprint.formats.aff4.archive import STORED, read_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.formats.aff4.archive import Archive

CHUNK_BYTES_MAX: Final = 16 * MIB
"""Images have chunks of 32 KiB to 1 MiB. A chunk is decoded in memory, twice."""

CHUNKS_PER_BEVY_MAX: Final = 1 << 16
STREAM_BYTES_MAX: Final = 1 << 56
SEGMENT_BYTES_MAX: Final = 4 * MIB
"""Index or hashes of a bevy: what the largest bevy needs at the longest digest."""

_ENTRY: Final = struct.Struct("<QI")
_OLD_ENTRY: Final = struct.Struct("<I")
_SEGMENT_CACHE_BYTES: Final = 8 * MIB
_CHUNK_CACHE_BYTES: Final = 8 * MIB


@dataclass(frozen=True)
class StreamShape:
    """What the description says of a stream.

    Attributes:
        urn: its name.
        prefix: of its members in the archive.
        size: in bytes.
        chunk_size: in bytes.
        chunks_per_bevy: of all bevies but the last.
        method: of compression.
    """

    urn: str
    prefix: str
    size: int
    chunk_size: int
    chunks_per_bevy: int
    method: str

    def check(self, where: str) -> None:
        """Refuse sizes that nobody uses.

        Raises:
            CorruptImageError: if they make no sense.
            UnsupportedFeatureError: if they are too large.
        """
        if self.size < 0 or self.chunk_size < 1 or self.chunks_per_bevy < 1:
            raise CorruptImageError(f"stream {self.urn}: expected positive sizes", name=where)
        for value, limit, what in (
            (self.size, STREAM_BYTES_MAX, "bytes"),
            (self.chunk_size, CHUNK_BYTES_MAX, "bytes in a chunk"),
            (self.chunks_per_bevy, CHUNKS_PER_BEVY_MAX, "chunks in a bevy"),
        ):
            if value > limit:
                raise UnsupportedFeatureError(
                    f"stream {self.urn}: expected at most {limit} {what}, found {value}",
                    name=where,
                )


class ImageStream:
    """Chunks by their number. Thread-safe."""

    def __init__(self, archive: Archive, shape: StreamShape) -> None:
        """Find out how its members are called.

        Raises:
            CorruptImageError: if its sizes make no sense.
        """
        shape.check(archive.storage.name)
        self.shape = shape
        self.archive = archive
        self.chunks = div_up(shape.size, shape.chunk_size)
        self.bevies = div_up(self.chunks, shape.chunks_per_bevy)
        self.is_old = f"{shape.prefix}/00000000/index" in archive
        separator = "/" if self.is_old else "."
        self._index = f"{separator}index"
        self._hash = f"{separator}blockHash."
        self.hashes = tuple(name for name in codec.HASHES if self.hash_member(0, name) in archive)
        self._verified = codec.fastest(set(self.hashes))
        self._segments: Recent[str] = Recent(_SEGMENT_CACHE_BYTES)
        self._chunks: Recent[str] = Recent(_CHUNK_CACHE_BYTES)

    def member(self, bevy: int) -> str:
        """The name of the member with the chunks of a bevy."""
        return f"{self.shape.prefix}/{bevy:08d}"

    def index_member(self, bevy: int) -> str:
        """The name of the member that says where the chunks of a bevy are."""
        return self.member(bevy) + self._index

    def hash_member(self, bevy: int, name: str) -> str:
        """The name of the member with the digests of a bevy's chunks."""
        return self.member(bevy) + self._hash + name

    def place(self, number: int) -> tuple[int, int]:
        """Where a chunk is stored in the file, and how many bytes that are.

        Raises:
            CorruptImageError: if its index makes no sense.
        """
        bevy, within = divmod(number, self.shape.chunks_per_bevy)
        member = self.archive.member(self.member(bevy))
        if member.method != STORED:
            raise UnsupportedFeatureError(
                f"member {member.name!r}: expected chunks that the archive does not compress again",
                name=self.archive.storage.name,
            )
        offset, length = self._entry(bevy, within)
        if offset + length > member.size:
            raise self._error(
                number, f"expected {length} bytes at 0x{offset:x} inside {member.size}"
            )
        start = self._segment(f"{member.name} place", lambda: self._packed_place(member.name))
        return int.from_bytes(start, "little") + offset, length

    def chunk_length(self, number: int) -> int:
        """Bytes of the stream that a chunk stands for: the last one may be shorter."""
        return min(self.shape.chunk_size, self.shape.size - number * self.shape.chunk_size)

    def read_chunk(self, number: int, buffer: memoryview) -> None:
        """Fill ``buffer``, which has the length of the chunk; its digest is compared.

        Raises:
            CorruptImageError: if it is damaged.
        """
        if len(buffer) == self.shape.chunk_size:
            self._decode(number, buffer)
        else:
            buffer[:] = self.chunk(number)[: len(buffer)]

    def chunk(self, number: int) -> bytes:
        """A chunk, kept for those who want another part of it."""
        found = self._chunks.get(str(number))
        if found is None:
            whole = bytearray(self.shape.chunk_size)
            self._decode(number, memoryview(whole))
            found = bytes(whole)
            self._chunks.put(str(number), found)
        return found

    def digest(self, number: int, name: str) -> bytes:
        """The stored digest of a chunk.

        Raises:
            CorruptImageError: if there is none.
        """
        bevy, within = divmod(number, self.shape.chunks_per_bevy)
        member = self.hash_member(bevy, name)
        digests = self._segment(member, lambda: self.archive.read(member, SEGMENT_BYTES_MAX))
        size = codec.DIGEST_BYTES[name]
        digest = digests[within * size : (within + 1) * size]
        if len(digest) != size:
            raise self._error(number, f"expected a digest in {member!r}, found none")
        return digest

    def _decode(self, number: int, buffer: memoryview) -> None:
        """Fill a buffer of the size of a whole chunk."""
        place, length = self.place(number)
        if length > self.shape.chunk_size + self.shape.chunk_size // 4 + 1 * KIB:
            raise self._error(number, f"expected a packed chunk, found {length} bytes")
        stored = read_range(self.archive.storage, place, length, f"chunk {number}")
        try:
            found = codec.unpack(self.shape.method, stored, buffer)
        except CorruptImageError as failure:
            raise self._error(number, str(failure)) from failure
        wanted = self.chunk_length(number)
        if found < wanted:
            raise self._error(number, f"expected {wanted} bytes, found {found}")
        if self._verified is None:
            return
        expected = self.digest(number, self._verified)
        # Of a last chunk that is not full, writers hash what is stored, or what counts.
        for part in {found, wanted}:
            if hashlib.new(self._verified, buffer[:part]).digest() == expected:
                return
        raise self._error(number, f"its {self._verified} is not the one that is stored")

    def _entry(self, bevy: int, within: int) -> tuple[int, int]:
        """Offset and length of a chunk in its bevy."""
        name = self.index_member(bevy)
        index = self._segment(name, lambda: self.archive.read(name, SEGMENT_BYTES_MAX))
        entry = _OLD_ENTRY if self.is_old else _ENTRY
        if (within + 1) * entry.size > len(index):
            number = bevy * self.shape.chunks_per_bevy + within
            raise self._error(number, f"expected an entry in {name!r}, found none")
        if not self.is_old:
            offset, length = _ENTRY.unpack_from(index, within * entry.size)
            return offset, length
        (end,) = _OLD_ENTRY.unpack_from(index, within * entry.size)
        start = _OLD_ENTRY.unpack_from(index, (within - 1) * entry.size)[0] if within else 0
        return start, max(0, end - start)

    def _packed_place(self, name: str) -> bytes:
        return self.archive.place(self.archive.member(name)).to_bytes(8, "little")

    def _segment(self, name: str, load: Callable[[], bytes]) -> bytes:
        found = self._segments.get(name)
        if found is None:
            found = load()
            self._segments.put(name, found)
        return found

    def _error(self, number: int, message: str) -> CorruptImageError:
        return CorruptImageError(f"chunk {number}: {message}", name=self.archive.storage.name)
