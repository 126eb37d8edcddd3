"""Where logical addresses are in the volume. A chunk has one copy or more, all on this device."""

from __future__ import annotations

import struct
from bisect import bisect_right
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.layout import ChunkItem, Stripe, Superblock

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEY: Final = struct.Struct("<QBQ")


class Chunk(NamedTuple):
    """A run of logical addresses.

    Attributes:
        start: its first address.
        length: in bytes.
        kind: data, metadata, system, and the profile.
        places: where each copy begins in the volume.
    """

    start: int
    length: int
    kind: int
    places: tuple[int, ...]

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.length


def parse_chunk(data: memoryview, start: int, superblock: Superblock, name: str) -> Chunk:
    """A chunk whose item begins ``data``; ``start`` is from its key.

    Raises:
        CorruptImageError: if it is outside of the device, or no chunk.
        UnsupportedFeatureError: if it is not made of copies on this device.
    """
    item = ChunkItem.unpack(data, where=name)
    copies = layout.PROFILES.get(item.kind & ~layout.KINDS)
    if copies is None or not item.kind & layout.KINDS:
        raise UnsupportedFeatureError(
            f"chunk {start}: expected a profile of one device, found 0x{item.kind:x}", name=name
        )
    sector = superblock.sector_size
    if item.stripe_count != copies or item.length == 0 or (start | item.length) % sector:
        raise _error(start, f"expected {copies} stripes, of whole sectors", name)
    places = []
    for index in range(copies):
        stripe = Stripe.unpack(data[ChunkItem.SIZE + index * Stripe.SIZE :], where=name)
        if stripe.device != superblock.device:
            raise UnsupportedFeatureError(
                f"chunk {start}: expected stripes on this device, found {stripe.device}", name=name
            )
        is_inside = stripe.offset + item.length <= superblock.device_bytes
        if stripe.offset % sector or not is_inside:
            raise _error(start, "expected stripes inside of the device", name)
        places.append(stripe.offset)
    return Chunk(start, item.length, item.kind, tuple(places))


def parse_array(superblock: Superblock, name: str) -> list[Chunk]:
    """The chunks that stand in the superblock: those of the chunk tree.

    Raises:
        CorruptImageError: if they are not chunks.
        UnsupportedFeatureError: as :func:`parse_chunk`.
    """
    data = memoryview(superblock.chunk_array)[: superblock.chunk_array_bytes]
    found = []
    while data:
        if len(data) < _KEY.size:
            raise CorruptImageError("superblock: expected chunks, found a part of one", name=name)
        _, kind, start = _KEY.unpack_from(data)
        if kind != layout.CHUNK:
            raise CorruptImageError(f"superblock: expected chunks, found item {kind}", name=name)
        chunk = parse_chunk(data[_KEY.size :], start, superblock, name)
        found.append(chunk)
        data = data[_KEY.size + ChunkItem.SIZE + len(chunk.places) * Stripe.SIZE :]
    return found


class ChunkMap:
    """All chunks that are known, by their addresses."""

    def __init__(self, chunks: Iterable[Chunk], name: str) -> None:
        """Take chunks in any order; ``name`` is for errors.

        Raises:
            CorruptImageError: if they overlap, in addresses or in the volume.
        """
        self.chunks = sorted(chunks, key=attrgetter("start"))
        self._starts = [chunk.start for chunk in self.chunks]
        self._name = name
        self.logical = Runs.of((chunk.start, chunk.length) for chunk in self.chunks)
        places = [(place, chunk.length) for chunk in self.chunks for place in chunk.places]
        self.physical = Runs.of(places)
        for one, other in pairwise(self.chunks):
            if one.end > other.start:
                raise _error(other.start, "expected addresses that no other chunk has", name)
        if self.physical.total != sum(length for _, length in places):
            raise CorruptImageError("chunks: expected stripes that do not overlap", name=name)

    def places(self, address: int, length: int) -> list[int]:
        """Where each copy of a run of addresses is in the volume.

        Raises:
            CorruptImageError: if it is not inside one chunk.
        """
        index = bisect_right(self._starts, address) - 1
        chunk = self.chunks[index] if index >= 0 else None
        if chunk is None or address + length > chunk.end:
            raise CorruptImageError(
                f"address {address}: expected {length} bytes inside of a chunk", name=self._name
            )
        distance = address - chunk.start
        return [place + distance for place in chunk.places]

    def in_volume(self, addresses: Runs) -> Runs:
        """Every copy of a set of addresses, all of which are in chunks."""
        return Runs.union(
            part.shifted(place - chunk.start)
            for chunk in self.chunks
            if len(part := addresses.clip(chunk.start, chunk.end))
            for place in chunk.places
        )


def _error(start: int, problem: str, name: str) -> CorruptImageError:
    return CorruptImageError(f"chunk {start}: {problem}", name=name)
