"""What a file is and where it lies: its entry, which is in an information control block.

Source: ECMA-167, 4/14.6 to 4/14.14; OSTA UDF 2.60, 2.3.5 to 2.3.12 and 3.3.4.3 (file times).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError, UnsupportedFeatureError
from imprint.filesystems.contents import Run, held, mapped
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.layout import (
    EMBEDDED,
    Descriptors,
    ExtendedFileEntry,
    FileEntry,
    Indirect,
)
from imprint.filesystems.udf.text import time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.udf.partitions import Space

_CHAIN_MAX: Final = 1 << 10
"""Of entries one behind the other that say how a file was changed."""

_CONTINUATIONS_MAX: Final = 1 << 16
"""Extents of descriptors of one file."""

_KNOWN_MAX: Final = 1 << 18
"""Such extents that are remembered."""

_ATTRIBUTES_HEAD: Final = 24
_ATTRIBUTE: Final = struct.Struct("<IB3xI")
_FILE_TIMES: Final = 5
_FILE_TIMES_HEAD: Final = 20
_CREATION: Final = 1 << 0


class Address(NamedTuple):
    """Where an entry is.

    Attributes:
        length: in bytes; 0: nowhere.
        block: of the partition.
        partition: by its number.
    """

    length: int
    block: int
    partition: int


def address_of(descriptor: bytes) -> Address:
    """Of a long allocation descriptor."""
    length, block, partition = layout.LONG_AD.unpack(descriptor)
    return Address(length & layout.LENGTH_MASK, block, partition)


class Facts(NamedTuple):
    """What a file's entry says.

    Attributes:
        entry: the fixed part.
        partition: that it is in, and its short descriptors count in.
        attributes: behind that.
        descriptors: of where it lies; or its content.
    """

    entry: FileEntry | ExtendedFileEntry
    partition: int
    attributes: bytes
    descriptors: bytes

    @property
    def form(self) -> int:
        """Of the descriptors."""
        return self.entry.flags & 7

    @property
    def is_continued(self) -> bool:
        """Whether there are more descriptors elsewhere."""
        if self.form == EMBEDDED:
            return False
        return any(kind == layout.CONTINUED for kind, *_ in _unpacked(self.descriptors, self))

    @property
    def streams(self) -> Address | None:
        """Where the folder of its streams is."""
        if isinstance(self.entry, ExtendedFileEntry):
            found = address_of(self.entry.streams)
            return found if found.length else None
        return None

    @property
    def created(self) -> int | None:
        """When it was, in ns since 1970; in the older form it may be among the attributes."""
        if isinstance(self.entry, ExtendedFileEntry):
            return time_of(self.entry.created)
        at = _ATTRIBUTES_HEAD
        while at + _FILE_TIMES_HEAD + 12 <= len(self.attributes):
            kind, _, length = _ATTRIBUTE.unpack_from(self.attributes, at)
            times = self.attributes[at + _FILE_TIMES_HEAD : at + _FILE_TIMES_HEAD + 12]
            if kind == _FILE_TIMES and self.attributes[at + 16] & _CREATION:
                return time_of(times)
            if length < _ATTRIBUTE.size:
                return None
            at += length
        return None


class Allocated(NamedTuple):
    """A part of a file, as an allocation descriptor has it.

    Attributes:
        kind: ``RECORDED``, or a hole.
        position: in the file, in bytes.
        length: in bytes.
        partition: by its number.
        block: of that, where it begins.
    """

    kind: int
    position: int
    length: int
    partition: int
    block: int


class Icbs:
    """Reads entries, and what they lead to.

    Attributes:
        again_bytes: of extents of descriptors that were read although they had been read before.
    """

    def __init__(self, volume: Source, space: Space) -> None:
        """``space`` has the partitions, of which more may be added later."""
        self._volume = volume
        self._space = space
        self._known: set[tuple[int, int]] = set()
        self.again_bytes = 0

    def facts(self, partition: int, block: int) -> Facts:
        """Of the file whose entry is there, or where that leads.

        Raises:
            CorruptImageError: if it is none, or contradicts itself.
            UnsupportedFeatureError: if it is of an unknown strategy, or in an unknown partition.
            ReadError: if it cannot be read.
        """
        kinds = (layout.FILE, layout.EXTENDED_FILE)
        for _ in range(_CHAIN_MAX):
            data = self._space.descriptor(partition, block, "file entry", kinds)
            facts = _facts(data, partition)
            if facts.entry.strategy != layout.STRATEGY_CHAINED:
                if facts.entry.strategy not in (0, 4):
                    raise UnsupportedFeatureError(
                        f"expected strategy 4 or 4096, found {facts.entry.strategy}"
                    )
                return facts
            following = self._following(partition, block + 1)
            if following is None:
                return facts
            partition, block = following.partition, following.block
        raise CorruptImageError("expected the last entry of a file, found no end of them")

    def _following(self, partition: int, block: int) -> Address | None:
        """Where an indirect entry leads; ``None`` if there is none, as behind the last one."""
        what = "indirect entry"
        for copy in range(self._space.partition(partition).copies):
            try:
                data = self._space.read(partition, block, self._space.block, what, copy)
            except (FormatError, ReadError) as failure:
                why = str(failure.args[0])
                continue
            break
        else:  # of a disc that is written once: maybe not written yet
            self._space.doubts.append(f"{what} in block {block}, where a change may be: {why}")
            return None
        if layout.id_of(data) != layout.INDIRECT:
            return None
        if (problem := layout.problem_of(data, block)) is not None:
            raise CorruptImageError(f"indirect entry in block {block}: {problem}")
        found = address_of(Indirect.unpack(data).next)
        return found if found.length else None

    def allocated(self, facts: Facts) -> Iterator[Allocated]:
        """Where a file lies, in its order, also behind its end; nothing of one in its entry.

        Raises:
            CorruptImageError: if a descriptor leads nowhere, there is no end of them, or they speak
                of more bytes than the volume has.
            UnsupportedFeatureError: if they are of an unknown form, or the file is compressed.
            ReadError: if they cannot be read.
        """
        if facts.form == EMBEDDED:
            return
        position = 0
        left = self._volume.size
        data = facts.descriptors
        seen: set[tuple[int, int]] = set()
        while True:
            for kind, length, partition, block in _unpacked(data, facts):
                if length == 0:
                    return
                if kind == layout.CONTINUED:
                    break
                left -= length if kind == layout.RECORDED else 0
                if left < 0:
                    raise CorruptImageError("expected blocks of its own, found more than there are")
                yield Allocated(kind, position, length, partition, block)
                position += length
            else:
                return
            if (partition, block) in seen or len(seen) >= _CONTINUATIONS_MAX:
                raise CorruptImageError("expected an end of its allocation descriptors")
            seen.add((partition, block))
            data = self._continued(partition, block)
            if (partition, block) in self._known or len(self._known) >= _KNOWN_MAX:
                self.again_bytes += len(data)
            else:
                self._known.add((partition, block))

    def _continued(self, partition: int, block: int) -> bytes:
        kinds = (layout.EXTENT_OF_DESCRIPTORS,)
        what = "extent of allocation descriptors"
        data = self._space.descriptor(partition, block, what, kinds)
        length = Descriptors.unpack(data).length
        if length > len(data) - Descriptors.SIZE:
            raise CorruptImageError(
                f"{what} in block {block}: expected at most {len(data) - Descriptors.SIZE} bytes, "
                f"found {length}"
            )
        return data[Descriptors.SIZE : Descriptors.SIZE + length]

    def runs(self, facts: Facts, copy: int = 0) -> Iterator[Run]:
        """Where a file lies in the volume, in its order; holes are left out.

        Args:
            facts: of the file.
            copy: of partitions that have several of each block, which one.

        Raises:
            CorruptImageError: as :meth:`allocated`, or if it lies outside of its partition.
            UnsupportedFeatureError: as :meth:`allocated`.
            ReadError: the same.
        """
        for part in self.allocated(facts):
            if part.kind != layout.RECORDED:
                continue
            partition = self._space.partition(part.partition)
            position = part.position
            places = partition.places(part.block, part.length, min(copy, partition.copies - 1))
            for offset, length in places:
                yield Run(position, offset, length)
                position += length

    def content(self, facts: Facts, name: str, copy: int = 0) -> Source:
        """The bytes of a file.

        Raises:
            CorruptImageError: as :meth:`runs`, or if they are not all in the volume.
            UnsupportedFeatureError: as :meth:`runs`.
            ReadError: the same.
        """
        size = facts.entry.size
        if facts.form == EMBEDDED:
            described = len(facts.descriptors)
        else:
            described = sum(part.length for part in self.allocated(facts))
        if described < size:
            raise CorruptImageError(
                f"expected {size} bytes, found allocation descriptors of {described}", name=name
            )
        if facts.form == EMBEDDED:
            return held(name, facts.descriptors[:size])
        return mapped(self._volume, self.runs(facts, copy), size, name=name)


def _facts(data: bytes, partition: int) -> Facts:
    is_extended = layout.id_of(data) == layout.EXTENDED_FILE
    kind: type[FileEntry | ExtendedFileEntry] = ExtendedFileEntry if is_extended else FileEntry
    entry = kind.unpack(data)
    start = kind.SIZE + entry.attributes_length
    end = start + entry.descriptors_length
    if end > len(data):
        raise CorruptImageError(
            f"file entry: expected at most {len(data) - kind.SIZE} bytes of attributes and "
            f"descriptors, found {entry.attributes_length} and {entry.descriptors_length}"
        )
    return Facts(entry, partition, data[kind.SIZE : start], data[start:end])


def _unpacked(data: bytes, facts: Facts) -> Iterator[tuple[int, int, int, int]]:
    """Kind, length, partition and block of each allocation descriptor."""
    if facts.form == 0:
        for word, block in layout.SHORT_AD.iter_unpack(_whole(data, layout.SHORT_AD.size)):
            yield word >> 30, word & layout.LENGTH_MASK, facts.partition, block
    elif facts.form == 1:
        for word, block, partition in layout.LONG_AD.iter_unpack(_whole(data, layout.LONG_AD.size)):
            yield word >> 30, word & layout.LENGTH_MASK, partition, block
    elif facts.form == 2:
        for row in layout.EXTENDED_AD.iter_unpack(_whole(data, layout.EXTENDED_AD.size)):
            word, recorded, length, block, partition = row
            kind = word >> 30
            if kind == layout.RECORDED and recorded != length:
                raise UnsupportedFeatureError("it is compressed, or transformed")
            known = word if kind == layout.CONTINUED else length
            yield kind, known & layout.LENGTH_MASK, partition, block
    else:
        raise UnsupportedFeatureError(f"expected descriptors of form 0 to 3, found {facts.form}")


def _whole(data: bytes, size: int) -> bytes:
    return data[: len(data) - len(data) % size]
