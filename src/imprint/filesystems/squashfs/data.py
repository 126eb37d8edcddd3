"""Contents of files in SquashFS: blocks that are stored, compressed, or nothing but zeros."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.buffers import fill_zero
from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError
from imprint.core.extent import Extent, Kind, check_range
from imprint.core.limits import DECODE_CACHE_BYTES
from imprint.core.recent import Recent
from imprint.filesystems.squashfs.layout import DATA_LENGTH, DATA_STORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.squashfs.compressors import Unpack

_STEP: Final = 256
"""Blocks of a file, of the first of which the place is kept."""


class Blocks:
    """Unpacked data and fragment blocks by where they lie. Thread-safe."""

    def __init__(self, volume: Source, unpack: Unpack, block_size: int) -> None:
        """``block_size`` bounds what a block may be unpacked to."""
        self.volume = volume
        self.block_size = block_size
        self._unpack = unpack
        self._kept: Recent[tuple[int, int]] = Recent(DECODE_CACHE_BYTES)

    def check(self, place: int, length: int, name: str) -> None:
        """Refuse what is not wholly inside the volume, or longer than a block.

        Raises:
            CorruptImageError: if it is.
        """
        if length > self.block_size or place + length > self.volume.size:
            raise CorruptImageError(
                f"expected a block of at most {self.block_size} bytes inside the volume's "
                f"{self.volume.size}, found 0x{place:x} + 0x{length:x}",
                name=name,
            )

    def unpacked(self, place: int, stored: int, name: str) -> bytes:
        """What the compressed block at a place, which has ``stored`` bytes there, holds.

        Raises:
            CorruptImageError: if it is damaged.
            UnsupportedFeatureError: if a library is missing.
            ReadError: if it cannot be read.
        """
        found = self._kept.get((place, stored))
        if found is not None:
            return found
        self.check(place, stored, name)
        buffer = bytearray(stored)
        self.volume.readinto(memoryview(buffer), place)
        try:
            found = self._unpack(bytes(buffer), self.block_size)
        except CorruptImageError as failure:
            raise CorruptImageError(
                f"block at 0x{place:x}: {failure.args[0]}", name=name
            ) from failure
        self._kept.put((place, stored), found)
        return found


class Tail(NamedTuple):
    """The end of a file, which lies in a block with ends of others.

    Attributes:
        place: of the block.
        word: what the fragment table says of it.
        offset: in what it holds.
    """

    place: int
    word: int
    offset: int

    @property
    def is_stored(self) -> bool:
        """Whether the block is as it is, not compressed."""
        return bool(self.word & DATA_STORED)


@dataclass(frozen=True)
class Layout:
    """Where a file lies.

    Attributes:
        size: of it, in bytes.
        start: of its first block, in bytes of the volume.
        words: what is said of each of its blocks: their length there, and whether it is stored
            as it is.
        tail: of its end, if that is in no block of its own.
    """

    size: int
    start: int
    words: array[int]
    tail: Tail | None

    def lengths(self) -> array[int]:
        """Of the blocks in the volume."""
        found = array("I", self.words)
        view = memoryview(found).cast("B")
        flags = 3 if sys.byteorder == "little" else 0
        view[flags::4] = bytes(len(found))
        return found

    @property
    def is_stored(self) -> bool:
        """Whether no block is compressed, or nothing."""
        flags = bytes(memoryview(self.words).cast("B"))[3 if sys.byteorder == "little" else 0 :: 4]
        has_all = flags.count(DATA_STORED >> 24) == len(self.words) and 0 not in self.lengths()
        return has_all and (self.tail is None or self.tail.is_stored)


class _Part(NamedTuple):
    """A part of a file, within one block.

    Attributes:
        position: in the file.
        length: of the part.
        kind: ``DATA``, ``ENCODED`` or ``HOLE``.
        place: ``DATA``: of the part in the volume; ``ENCODED``: of the block.
        stored: ``ENCODED``: how long that is.
        within: ``ENCODED``: where the part begins in what it holds.
        whole: ``ENCODED``: how long that has to be at least.
    """

    position: int
    length: int
    kind: Kind
    place: int = 0
    stored: int = 0
    within: int = 0
    whole: int = 0


class Content:
    """A file of a SquashFS, as a source. Thread-safe, as its volume, which has to outlive it."""

    def __init__(self, name: str, blocks: Blocks, layout: Layout) -> None:
        """Nothing is read before it is wanted."""
        self._name = name
        self._blocks = blocks
        self._layout = layout
        self._steps = array("Q")
        place = layout.start
        lengths = layout.lengths()
        for index in range(0, len(lengths), _STEP):
            self._steps.append(place)
            place += sum(lengths[index : index + _STEP])

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._layout.size

    @property
    def traits(self) -> Traits:
        """Blocks may be at any byte."""
        return Traits(grain=1)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._check(offset, len(buffer))
        for part in self._joined(offset, len(buffer)):
            target = buffer[part.position - offset : part.position - offset + part.length]
            if part.kind is Kind.HOLE:
                fill_zero(target)
            elif part.kind is Kind.DATA:
                self._blocks.volume.readinto(target, part.place)
            else:
                found = self._blocks.unpacked(part.place, part.stored, self._name)
                if len(found) < part.whole:
                    raise CorruptImageError(
                        f"block at 0x{part.place:x}: expected {part.whole} bytes, "
                        f"found {len(found)}",
                        name=self._name,
                    )
                target[:] = memoryview(found)[part.within : part.within + part.length]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the volume says of stored blocks; compressed ones are encoded, others holes."""
        self._check(offset, length)
        volume = self._blocks.volume
        before: Extent | None = None
        for part in self._joined(offset, length):
            if part.kind is Kind.DATA:
                if before is not None:
                    yield before
                    before = None
                end = part.place + part.length
                for extent in volume.extents(part.place, part.length):
                    inside = extent.clip(part.place, end)
                    yield inside._replace(offset=inside.offset - part.place + part.position)
                continue
            extent = Extent(part.position, part.length, part.kind)
            if before is not None and extent.follows(before):
                before = before._replace(length=before.length + extent.length)
                continue
            if before is not None:
                yield before
            before = extent
        if before is not None:
            yield before

    def close(self) -> None:
        """Nothing is its own."""

    def _joined(self, offset: int, length: int) -> Iterator[_Part]:
        """The parts of a range; stored blocks that lie one behind the other are one."""
        before: _Part | None = None
        for part in self._parts(offset, length):
            if (
                before is not None
                and before.kind is Kind.DATA is part.kind
                and before.place + before.length == part.place
            ):
                before = before._replace(length=before.length + part.length)
                continue
            if before is not None:
                yield before
            before = part
        if before is not None:
            yield before

    def _parts(self, offset: int, length: int) -> Iterator[_Part]:
        layout, block_size = self._layout, self._blocks.block_size
        words, end = layout.words, offset + length
        index = offset // block_size
        place = self._place(index)
        while offset < end:
            first = index * block_size
            within = offset - first
            whole = min(block_size, layout.size - first)
            count = min(whole - within, end - offset)
            if index >= len(words):
                yield self._tail_part(offset, count, within, whole)
            else:
                stored = words[index] & DATA_LENGTH
                if not stored:
                    yield _Part(offset, count, Kind.HOLE)
                elif words[index] & DATA_STORED:
                    if stored != whole:
                        raise CorruptImageError(
                            f"block {index}: expected {whole} bytes, found {stored}",
                            name=self._name,
                        )
                    self._blocks.check(place, stored, self._name)
                    yield _Part(offset, count, Kind.DATA, place + within)
                else:
                    yield _Part(offset, count, Kind.ENCODED, place, stored, within, whole)
                place += stored
            offset += count
            index += 1

    def _tail_part(self, offset: int, count: int, within: int, whole: int) -> _Part:
        tail = self._layout.tail
        if tail is None:
            raise CorruptImageError("expected blocks for all of it", name=self._name)
        stored = tail.word & DATA_LENGTH
        self._blocks.check(tail.place, stored, self._name)
        if not tail.is_stored:
            start = tail.offset + within
            needed = tail.offset + whole
            return _Part(offset, count, Kind.ENCODED, tail.place, stored, start, needed)
        if tail.offset + whole > stored:
            raise CorruptImageError(
                f"expected its end in a block of {stored} bytes, "
                f"found 0x{tail.offset:x} + 0x{whole:x}",
                name=self._name,
            )
        return _Part(offset, count, Kind.DATA, tail.place + tail.offset + within)

    def _place(self, index: int) -> int:
        """Of a block in the volume."""
        step = min(index // _STEP, len(self._steps) - 1)
        if step < 0 or index >= len(self._layout.words):
            return 0
        before = self._layout.words[step * _STEP : index]
        return self._steps[step] + sum(word & DATA_LENGTH for word in before)

    def _check(self, offset: int, length: int) -> None:
        check_range(offset, length, size=self.size, name=self._name)
