"""Writing a volume: chunks that hold something are packed, the map says where they belong."""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from imprint.core.ascending import AscendingUnits
from imprint.core.buffers import is_zero
from imprint.core.contracts import Order, Traits
from imprint.core.errors import TargetError
from imprint.core.runs import Runs
from imprint.formats.aff4 import codec, describing
from imprint.formats.aff4.archive_writer import ArchiveWriter
from imprint.formats.aff4.maps import ENTRIES_MAX, ENTRY
from imprint.formats.aff4.plan import CHUNKS_PER_BEVY, LINEAR_HASHES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from imprint.core.contracts import Storage
    from imprint.core.extent import Extent
    from imprint.formats.aff4.plan import Plan

_SCHEMA: Final = "http://aff4.org/Schema#"
_ZERO_NUMBER: Final = 1
_BAD_NUMBER: Final = 2
_TOOL: Final = "major=1\nminor=0\ntool=imprint\n"
_LENGTHS: Final = struct.Struct("<I")
_INDEX: Final = struct.Struct("<QI")


class Aff4Target(AscendingUnits):
    """A new volume; also ``Encoding`` and ``Documenting`` of :mod:`imprint.core.contracts`."""

    def __init__(self, storage: Storage, made: Plan) -> None:
        """Writes what stands before the chunks."""
        super().__init__(made.chunk_size)
        self._storage = storage
        self._made = made
        self._pack = codec.compressor(made.method, made.level)
        self._linear: dict[str, str] = {}
        self._tree = {name: hashlib.new(describing.TREE_HASH) for name in made.block}
        self._bevy = _Bevy(made.block)
        self._chunks = 0
        self._bad: list[tuple[int, int]] = []
        # Runs of chunks: where on the disk, and where in the stream.
        self._starts, self._ends, self._offsets = array("Q"), array("Q"), array("Q")
        self._stream = made.urn("stream").replace("aff4://", "aff4%3A%2F%2F")
        self._archive = ArchiveWriter(storage, made.time_s)
        self._archive.add("container.description", made.urn("volume").encode())
        self._archive.add("version.txt", _TOOL.encode())

    @property
    def name(self) -> str:
        """Path or address of the image."""
        return self._storage.name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._made.size

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out is zeros."""
        return Traits(grain=self._grain, order=Order.ASCENDING, reads_zero=True)

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Pack chunks and hash them.

        A unit is: u32 length of the packed chunk, packed chunk, digests.
        """
        assert offset % self._grain == 0
        return [
            self._encode(data[start : start + self._grain])
            for start in range(0, len(data), self._grain)
        ]

    @property
    def wanted_hashes(self) -> tuple[str, ...]:
        """Of the whole disk; see :class:`~imprint.core.contracts.Documenting`."""
        return self._made.linear

    def document(self, hashes: Mapping[str, str], bad: Iterable[Extent]) -> None:
        """Keep digests of the disk, and what of it could not be read.

        The image has no hash of the whole disk if there is any of that: the standard counts
        a text in these places, and the digests zeros.
        """
        self._linear = {name: hashes[name] for name in LINEAR_HASHES if name in hashes}
        self._bad += [(extent.offset, extent.length) for extent in bad]

    def commit(self) -> None:
        """Write the map, the description and the directory, and let the file take its name."""
        self._finish_partial()
        self._finish_bevy()
        points = self._points()
        idx = "".join(
            f"{name}\n"
            for name in (self._made.urn("stream"), f"{_SCHEMA}Zero", f"{_SCHEMA}UnreadableData")
        ).encode()
        written = describing.Written(
            self._chunks * self._grain,
            points,
            idx,
            linear={} if self._bad else self._linear,
            block={name: tree.digest() for name, tree in self._tree.items()},
        )
        prefix = self._made.urn("map").replace("aff4://", "aff4%3A%2F%2F")
        self._archive.add(f"{prefix}/map", points)
        self._archive.add(f"{prefix}/idx", idx)
        self._archive.add("information.turtle", describing.describe(self._made, written))
        self._archive.finish(self._made.urn("volume").encode())
        self._storage.commit()

    def abort(self) -> None:
        """Forget it all."""
        self._storage.abort()

    def _encode(self, data: memoryview) -> bytes:
        if is_zero(data):
            return b""
        # The stream is made of whole chunks; the map leaves out what the disk does not have.
        whole = data if len(data) == self._grain else bytes(data).ljust(self._grain, b"\0")
        packed = bytes(whole) if self._made.method == codec.NONE else self._pack(memoryview(whole))
        if len(packed) >= self._grain:
            packed = bytes(whole)
        digests = [hashlib.new(name, whole).digest() for name in self._made.block]
        return b"".join((_LENGTHS.pack(len(packed)), packed, *digests))

    def _append_units(self, units: list[bytes], index: int) -> None:
        """Append chunks to the bevy; chunks of zeros are left out."""
        pieces: list[memoryview] = []
        for number, unit in enumerate(units, index):
            if not unit:
                continue
            start = number * self._grain
            view = memoryview(unit)
            packed_end = _LENGTHS.size + _LENGTHS.unpack_from(unit)[0]
            if self._bevy.count == CHUNKS_PER_BEVY:
                self._archive.append(pieces)
                pieces = []
                self._finish_bevy()
            if not self._bevy.count:
                self._archive.begin(f"{self._stream}/{self._bevy.number:08d}")
            pieces.append(view[_LENGTHS.size : packed_end])
            self._bevy.add(packed_end - _LENGTHS.size, view[packed_end:])
            self._link(start, min(start + self._grain, self.size))
        if pieces:
            self._archive.append(pieces)
        self._next_unit = index + len(units)

    def _link(self, start: int, end: int) -> None:
        """The next chunk of the stream is this part of the disk."""
        if self._ends and self._ends[-1] == start:
            self._ends[-1] = end
        else:
            if len(self._starts) >= ENTRIES_MAX // 2:
                raise TargetError(
                    f"expected at most {ENTRIES_MAX // 2} runs of data, found more", name=self.name
                )
            self._starts.append(start)
            self._ends.append(end)
            self._offsets.append(self._chunks * self._grain)
        self._chunks += 1

    def _finish_bevy(self) -> None:
        """Write the index and the digests of the chunks at hand."""
        bevy = self._bevy
        if not bevy.count:
            return
        self._archive.end()
        name = f"{self._stream}/{bevy.number:08d}"
        self._archive.add(f"{name}.index", bytes(bevy.index))
        start = 0
        for hash_name in self._made.block:
            size = codec.DIGEST_BYTES[hash_name]
            digests = b"".join(item[start : start + size] for item in bevy.digests)
            self._tree[hash_name].update(digests)
            self._archive.add(f"{name}.blockHash.{hash_name}", digests)
            start += size
        self._bevy = _Bevy(self._made.block, bevy.number + 1)

    def _points(self) -> bytes:
        """The map: chunks, zeros between them, and over both what could not be read."""
        bad = Runs.of(self._bad)
        points: list[bytes] = []
        behind = 0
        for start, end, offset in zip(self._starts, self._ends, self._offsets, strict=True):
            points += _entries((behind, start), behind, _ZERO_NUMBER, bad)
            points += _entries((start, end), offset, 0, bad)
            behind = end
        points += _entries((behind, self.size), behind, _ZERO_NUMBER, bad)
        return b"".join(points)


class _Bevy:
    """Chunks that are packed into one member."""

    def __init__(self, hashes: tuple[str, ...], number: int = 0) -> None:
        self.number = number
        self.count = 0
        self.index = bytearray()
        self.digests: list[bytes] = []
        self._has_digests = bool(hashes)
        self._size = 0

    def add(self, length: int, digests: memoryview) -> None:
        """One more chunk."""
        self.index += _INDEX.pack(self._size, length)
        if self._has_digests:
            self.digests.append(bytes(digests))
        self._size += length
        self.count += 1


def _entries(run: tuple[int, int], at: int, number: int, bad: Runs) -> Iterator[bytes]:
    """Of the map: a run without what is bad in it, which begins at ``at``; and that."""
    start, end = run
    while start < end:
        index = bisect_right(bad.ends, start)
        first = end if index == len(bad) else min(max(bad.starts[index], start), end)
        if first > start:
            yield ENTRY.pack(start, first - start, at, number)
        last = first if first == end else min(bad.ends[index], end)
        if last > first:
            yield ENTRY.pack(first, last - first, first, _BAD_NUMBER)
        at += last - start
        start = last
