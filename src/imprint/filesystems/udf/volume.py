"""What a volume says of itself: where its descriptors are, and which of them are valid.

A disc that was written in sessions has a set of them in each, and may have an old one at its end
from before it was formatted anew. The one that was recorded last is taken.

Source: ECMA-167, 3/8.4.2 (sequences), 3/10; OSTA UDF 2.60, 2.2.3 (anchors).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems.tree import note_of
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.layout import (
    Anchor,
    LogicalVolume,
    PartitionDescriptor,
    Pointer,
    Primary,
    problem_of,
)
from imprint.filesystems.udf.text import time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

BLOCKS: Final = (2048, 512, 4096, 1024, 8192, 16384, 32768)
"""Sizes that sectors have, or that somebody made file systems with."""

_FROM_START: Final = (256, 512)
_FROM_END: Final = (1, 257)
_DESCRIPTORS_MAX: Final = 256
"""Of a sequence: 16 is the least that UDF allows."""

_POINTERS_MAX: Final = 16
_ANCHORS_MAX: Final = 64
"""Of a volume that are looked at: each session has one to three."""

_SCANNED_BYTES_MAX: Final = 1 << 30
_SCANNED_PIECE: Final = 1 << 20
_ANCHOR_MARK: Final = layout.ANCHOR.to_bytes(2, "little")


class VolumeSet(NamedTuple):
    """The valid descriptors of a volume.

    Attributes:
        block: size of one, in bytes.
        logical: the file system.
        maps: of its partitions, as they stand.
        partitions: by their numbers.
        recorded: when, in ns since 1970; 0 if it is not known.
        problems: what was wrong with them.
    """

    block: int
    logical: LogicalVolume
    maps: bytes
    partitions: dict[int, PartitionDescriptor]
    recorded: int
    problems: list[str]


def read_volume(reader: VolumeReader, *, block: int | None = None) -> VolumeSet:
    """The valid descriptors.

    Args:
        reader: of the volume.
        block: size of one: look for anchors everywhere, since those of the last session of a disc
            that is still open are where only the disc knows.

    Raises:
        CorruptImageError: if no anchor is found, or none that leads to a file system.
        ReadError: if what would tell it cannot be read.
    """
    found: VolumeSet | None = None
    failure: FormatError | ReadError | None = None
    seen = set()
    anchors = _anchors(reader) if block is None else _all_anchors(reader, block)
    for size, anchor in islice(anchors, _ANCHORS_MAX):
        if (size, anchor) in seen:
            continue
        seen.add((size, anchor))
        try:
            candidate = _Sequence(reader, size).read(anchor)
        except (FormatError, ReadError) as error:
            failure = failure or error
            continue
        if found is None or candidate.recorded > found.recorded:
            found = candidate
    if found is None:
        raise failure or CorruptImageError(
            "its files cannot be listed: expected an anchor of UDF", name=reader.name
        )
    return found


def _anchors(reader: VolumeReader) -> Iterator[tuple[int, Anchor]]:
    """All sound anchors, and the size of a block that they are found by."""
    failure: ReadError | None = None
    is_any = False
    for block in BLOCKS:
        count = reader.size // block
        for place in (*_FROM_START, *(count - back for back in _FROM_END)):
            if not 0 < place < count:
                continue
            try:
                data = bytes(reader.read(place * block, 512, "anchor"))
            except ReadError as error:
                failure = error
                continue
            if layout.id_of(data) == layout.ANCHOR and problem_of(data, place) is None:
                is_any = True
                yield block, Anchor.unpack(data)
    if not is_any and failure is not None:
        raise failure


def _all_anchors(reader: VolumeReader, block: int) -> Iterator[tuple[int, Anchor]]:
    """All sound anchors of a volume, or of the end of a very large one; those at its end first."""
    end = reader.size // block * block
    for stop in range(end, max(0, end - _SCANNED_BYTES_MAX), -_SCANNED_PIECE):
        start = max(0, stop - _SCANNED_PIECE)
        try:
            data = bytes(reader.read(start, stop - start, "anchor"))
        except ReadError:
            continue
        for at in range(len(data) - block, -1, -block):
            if data[at : at + 2] == _ANCHOR_MARK:
                part = data[at : at + block]
                if problem_of(part, (start + at) // block) is None:
                    yield block, Anchor.unpack(part)


class _Sequence:
    """Reads a volume descriptor sequence: of descriptors of a kind, the highest is valid."""

    def __init__(self, reader: VolumeReader, block: int) -> None:
        self._reader = reader
        self._block = block
        self._found: dict[tuple[int, int], tuple[bool, int, bytes]] = {}
        self._problems: list[str] = []

    def read(self, anchor: Anchor) -> VolumeSet:
        """All that is said, and where that is not sound, what the reserve says of it."""
        self._extent(anchor.length, anchor.location)
        if self._problems or not self._has_all():
            self._extent(anchor.reserve_length, anchor.reserve_location)
        name = self._reader.name
        if (layout.LOGICAL_VOLUME, 0) not in self._found:
            raise CorruptImageError("expected a logical volume descriptor", name=name)
        data = self._found[layout.LOGICAL_VOLUME, 0][2]
        logical = LogicalVolume.unpack(data)
        if not logical.domain.startswith(layout.DOMAIN):
            raise CorruptImageError("expected a logical volume of UDF", name=name)
        logical.require(
            "block_size", logical.block_size == self._block, f"{self._block} bytes", where=name
        )
        partitions = {}
        recorded = 0
        for (kind, number), (_, _, content) in self._found.items():
            if kind == layout.PARTITION:
                partitions[number] = PartitionDescriptor.unpack(content)
            elif kind == layout.PRIMARY:
                recorded = time_of(Primary.unpack(content).recorded) or 0
        maps = data[LogicalVolume.SIZE :][: logical.maps_length]
        return VolumeSet(self._block, logical, maps, partitions, recorded, self._problems)

    def _has_all(self) -> bool:
        kinds = {kind for kind, _ in self._found}
        return kinds >= {layout.PRIMARY, layout.PARTITION, layout.LOGICAL_VOLUME}

    def _extent(self, length: int, location: int) -> None:
        try:
            for _ in range(_POINTERS_MAX):
                following = self._descriptors(length, location)
                if following is None:
                    return
                length, location = following.length, following.location
        except (FormatError, ReadError) as failure:
            self._problems.append(note_of("/", failure.args[0]))

    def _descriptors(self, length: int, location: int) -> Pointer | None:
        """Those of an extent; where they go on, if they do."""
        following: Pointer | None = None
        for number in range(min(length // self._block, _DESCRIPTORS_MAX)):
            place = location + number
            data = bytes(self._reader.read(place * self._block, self._block, "volume descriptor"))
            kind = layout.id_of(data)
            if kind in (0, layout.TERMINATING):
                break
            problem = problem_of(data, place)
            if problem is not None:
                self._problems.append(
                    note_of("/", f"volume descriptor in block {place}: {problem}")
                )
            if kind == layout.POINTER and problem is None:
                following = Pointer.unpack(data)
            elif kind in (layout.PRIMARY, layout.LOGICAL_VOLUME):
                self._take((kind, 0), data, is_sound=problem is None)
            elif kind == layout.PARTITION:
                number_of = PartitionDescriptor.unpack(data).number
                self._take((kind, number_of), data, is_sound=problem is None)
        return following

    def _take(self, key: tuple[int, int], data: bytes, *, is_sound: bool) -> None:
        sequence = Primary.unpack(data).sequence
        known = self._found.get(key)
        if known is None or (is_sound, sequence) > known[:2]:
            self._found[key] = (is_sound, sequence, data)
