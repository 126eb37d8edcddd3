"""Shadow copies: what they need of clusters that are free now.

When a shadow copy is made, nothing is copied. Blocks are, later, before they are changed: what was
deleted since and is still in its place belongs to the shadow copy, and the bitmap of the volume
calls it free. Each shadow copy has a bitmap of its own, of what was free when it was made.

Source: libyal "Volume Shadow Snapshot (VSS)".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.bitmap import complement
from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import div_up
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.layout import ShadowBlock, ShadowEntry, ShadowHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

_UNIT: Final = layout.SHADOW_BLOCK_BYTES


class Shadows(NamedTuple):
    """The shadow copies of a volume.

    Attributes:
        number: how many there are.
        used: what they may read of the volume, in bytes.
    """

    number: int
    used: Runs


def read_shadows(reader: VolumeReader) -> Shadows:
    """Read their catalog, and the bitmap of each.

    Raises:
        CorruptImageError: if one of them cannot be told.
    """
    head = ShadowHeader.unpack(
        reader.read(layout.SHADOW_HEADER_AT, ShadowHeader.SIZE, "header of shadow copies")
    )
    if head.mark != layout.SHADOW_MARK or head.kind != layout.SHADOW_HEADER or head.catalog == 0:
        return Shadows(0, Runs.of([]))
    if head.volume != head.storage:
        raise CorruptImageError(
            "header of shadow copies: expected them on this volume, found them on another",
            name=reader.name,
        )
    chain = _Chain(reader)
    copies: set[bytes] = set()
    places: dict[bytes, ShadowEntry] = {}
    for block in chain.follow(head.catalog, layout.SHADOW_CATALOG, "catalog of shadow copies"):
        for at in range(0, len(block), ShadowEntry.SIZE):
            entry = ShadowEntry.unpack(block[at:])
            if entry.kind == layout.SHADOW_COPY:
                copies.add(entry.store)
            elif entry.kind == layout.SHADOW_PLACE:
                places[entry.store] = entry
    if copies != places.keys():
        raise CorruptImageError(
            "catalog of shadow copies: expected a place for each, found "
            f"{len(copies)} shadow copies and {len(places)} places",
            name=reader.name,
        )
    needed = CollectedRuns()
    for entry in places.values():
        chain.add_needed(entry.bitmap, needed)
        if entry.older_bitmap:
            chain.add_needed(entry.older_bitmap, needed)
    return Shadows(len(copies), needed.runs().scaled(_UNIT).clip(0, reader.size))


class _Chain:
    """Follows blocks that name the next one; each block may be met once."""

    def __init__(self, reader: VolumeReader) -> None:
        self._reader = reader
        self._seen: set[int] = set()

    def follow(self, place: int, kind: int, what: str) -> Iterator[memoryview]:
        """What is in each block behind its head."""
        while place:
            if place in self._seen:
                raise self._corrupt(f"{what}: expected an end, found 0x{place:x} again")
            self._seen.add(place)
            data = memoryview(self._reader.read(place, _UNIT, what))
            head = ShadowBlock.unpack(data)
            if head.mark != layout.SHADOW_MARK or head.kind != kind or head.place != place:
                raise self._corrupt(f"{what}: expected a block of it at 0x{place:x}, found none")
            yield data[ShadowBlock.SIZE :]
            place = head.next

    def add_needed(self, place: int, needed: CollectedRuns) -> None:
        """What a bitmap does not call free, in blocks; and what it says nothing of."""
        count, position = div_up(self._reader.size, _UNIT), 0
        for bits in self.follow(place, layout.SHADOW_BITMAP, "bitmap of a shadow copy"):
            length = min(8 * len(bits), count - position)
            if length > 0:
                needed.add_bits(complement(bits), position, length)
                position += length
        needed.add(Runs.of([(position, count - position)]))

    def _corrupt(self, message: str) -> CorruptImageError:
        return CorruptImageError(message, name=self._reader.name)
