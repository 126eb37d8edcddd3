"""The partitions of a logical volume, from their maps and the tables that these lead to.

Source: ECMA-167, 3/10.7; OSTA UDF 2.60, 2.2.8 to 2.2.14; UDF 1.50, 2.2.10.
"""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec

from imprint.core.errors import CorruptImageError, FormatError, ReadError, UnsupportedFeatureError
from imprint.filesystems.contents import PIECES_MAX
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.layout import (
    Entry,
    MetadataMap,
    PartitionMap,
    SparingTable,
    Tag,
    VatHead,
    problem_of,
)
from imprint.filesystems.udf.partitions import Metadata, Plain, Sparable, Virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.contents import Run
    from imprint.filesystems.udf.icbs import Icbs
    from imprint.filesystems.udf.layout import PartitionDescriptor
    from imprint.filesystems.udf.partitions import Partition, Space
    from imprint.filesystems.udf.volume import VolumeSet

_P = ParamSpec("_P")

MAPS_MAX: Final = 64
"""UDF has at most three."""

VAT_ENTRIES_MAX: Final = 1 << 23
"""Only what tells of files is in them, of which a disc of 4.7 GB has some 100,000 blocks."""

NO_BITMAP: Final = 0xFFFFFFFF

_VAT_LOOKED_FOR: Final = 512
"""Blocks from the end of the volume: drives write some behind the last one."""

_VAT: Final = 248
_VAT_OF_150: Final = 0
_METADATA_FILES: Final = (250, 251)
_PACKET_BLOCKS_MAX: Final = 1 << 12
_SPARED: Final = struct.Struct("<II")
_UNUSED: Final = 0xFFFFFFF0
_SPARING_NAME: Final = b"*UDF Sparing Table"
_VIRTUAL: Final = b"*UDF Virtual Partition"
_SPARABLE: Final = b"*UDF Sparable Partition"
_METADATA: Final = b"*UDF Metadata Partition"


class Mapped(NamedTuple):
    """What is known of a partition beside where its blocks are.

    Attributes:
        descriptor: of the part of the volume that holds it.
        holder: number of the partition that is all of that; its own one, if it is.
        bitmap: of a metadata partition, the block in its holder that leads to its bitmap.
    """

    descriptor: PartitionDescriptor
    holder: int
    bitmap: int = NO_BITMAP


class Mapper:
    """Makes the partitions of a logical volume, and adds them to a space without any.

    Attributes:
        mapped: what is known of them, by their number.
        lacks_table: whether no virtual allocation table was found.
    """

    def __init__(self, volume: Source, space: Space, icbs: Icbs, found: VolumeSet) -> None:
        """A partition that cannot be used is an error in the space: it may not be needed.

        Args:
            volume: all of it.
            space: without partitions.
            icbs: that reads in it.
            found: what the volume says of itself.
        """
        self.mapped: dict[int, Mapped] = {}
        self.lacks_table = False
        self._volume = volume
        self._space = space
        self._icbs = icbs
        self._found = found
        self._rows = list(_rows(found.maps, min(found.logical.map_count, MAPS_MAX)))
        for index, row in enumerate(self._rows):
            space.partitions.append(_tried(self._direct, row))
            descriptor = found.partitions.get(_number(row))
            if descriptor is not None:
                self.mapped[index] = Mapped(descriptor, index)
        for index, row in enumerate(self._rows):
            if _kind(row) in (_VIRTUAL, _METADATA) and index in self.mapped:
                space.partitions[index] = _tried(self._indirect, row, index)

    def _direct(self, row: bytes) -> Partition:
        """One that needs no file to tell where its blocks are."""
        kind, number = _kind(row), _number(row)
        descriptor = self._found.partitions.get(number)
        if descriptor is None:
            raise CorruptImageError(f"expected a descriptor of partition {number}")
        plain = Plain(descriptor.start * self._found.block, self._found.block)
        if kind == _SPARABLE:
            return self._sparable(plain, PartitionMap.unpack(row))
        if kind and kind not in (_VIRTUAL, _METADATA):
            raise UnsupportedFeatureError(
                f"a partition of an unknown kind: {kind.decode('ascii', 'replace')}"
            )
        return plain

    def _indirect(self, row: bytes, index: int) -> Partition:
        """One whose blocks a file in another one tells of."""
        descriptor = self.mapped[index].descriptor
        holder = self._holder(index)
        if _kind(row) == _VIRTUAL:
            self.mapped[index] = Mapped(descriptor, holder)
            return self._virtual(holder)
        there = MetadataMap.unpack(row)
        self.mapped[index] = Mapped(descriptor, holder, there.bitmap)
        return self._metadata(holder, there)

    def _holder(self, index: int) -> int:
        """The number of the partition that is all of what holds this one."""
        number = _number(self._rows[index])
        for other, row in enumerate(self._rows):
            if _number(row) == number and _kind(row) not in (_VIRTUAL, _METADATA):
                return other
        start = self.mapped[index].descriptor.start
        self._space.partitions.append(Plain(start * self._found.block, self._found.block))
        return len(self._space.partitions) - 1

    def _sparable(self, plain: Plain, row: PartitionMap) -> Partition:
        """With the newest of the tables that are sound."""
        packet = row.packet_blocks
        if not 0 < packet <= _PACKET_BLOCKS_MAX:
            raise CorruptImageError(
                f"expected packets of 1 to {_PACKET_BLOCKS_MAX} blocks, found {packet}"
            )
        best: tuple[int, dict[int, int]] | None = None
        for place in struct.unpack("<4I", row.tables)[: row.table_count]:
            try:
                sequence, pairs = self._sparing_table(place)
            except (FormatError, ReadError) as failure:
                self._space.doubts.append(f"sparing table in block {place}: {failure.args[0]}")
                continue
            if best is None or sequence > best[0]:
                spared = {one: other for one, other in pairs if one % packet == 0}
                best = sequence, spared
        return Sparable(plain, packet, best[1] if best else {})

    def _sparing_table(self, place: int) -> tuple[int, list[tuple[int, int]]]:
        """Its number, and pairs of blocks: of the partition, and of the volume."""
        offset = place * self._found.block
        head = SparingTable.unpack(
            self._space.reader.read(offset, SparingTable.SIZE, "sparing table")
        )
        if not head.id.startswith(_SPARING_NAME):
            raise CorruptImageError("expected a sparing table")
        length = SparingTable.SIZE + head.count * _SPARED.size
        data = bytes(self._space.reader.read(offset, length, "sparing table"))
        if (problem := problem_of(data, place)) is not None:
            raise CorruptImageError(problem)
        pairs = _SPARED.iter_unpack(data[SparingTable.SIZE :])
        return head.sequence, [pair for pair in pairs if pair[0] < _UNUSED]

    def _metadata(self, holder: int, row: MetadataMap) -> Partition:
        """By its file and the mirror of that, as far as these can be read."""
        files: list[list[Run]] = []
        failure: FormatError | ReadError | None = None
        for place in (row.file, row.mirror):
            try:
                facts = self._icbs.facts(holder, place)
                if facts.entry.type not in _METADATA_FILES:
                    raise CorruptImageError(
                        f"expected a metadata file, found one of type {facts.entry.type}"
                    )
                runs = list(islice(self._icbs.runs(facts), PIECES_MAX))
            except (FormatError, ReadError) as error:
                self._space.doubts.append(f"metadata file in block {place}: {error.args[0]}")
                failure = failure or error
                continue
            if runs not in files:
                files.append(runs)
        if not files:
            assert failure is not None
            raise failure
        return Metadata(files, self._found.block)

    def _virtual(self, holder: int) -> Partition:
        """By the newest table: the last thing that was written."""
        base = self._space.partitions[holder]
        if not isinstance(base, Plain):
            raise CorruptImageError("expected a virtual partition in one that is plain")
        block = self._found.block
        first = base.start // block
        last = self._volume.size // block
        for sector in range(last - 1, max(last - _VAT_LOOKED_FOR, first) - 1, -1):
            try:
                head = bytes(self._space.reader.read(sector * block, Entry.SIZE, "file entry"))
                if _is_vat(head, sector - first):
                    return Virtual(base, self._table(holder, sector - first))
            except (FormatError, ReadError):
                continue  # an older one may be read
        self.lacks_table = True
        raise CorruptImageError("expected a virtual allocation table at the end, found none")

    def _table(self, holder: int, place: int) -> array[int]:
        """The virtual allocation table whose entry is there."""
        facts = self._icbs.facts(holder, place)
        content = self._icbs.content(facts, "virtual allocation table")
        if content.size > VAT_ENTRIES_MAX * 4:
            raise UnsupportedFeatureError(
                f"expected at most {VAT_ENTRIES_MAX} virtual blocks, found {content.size // 4}"
            )
        data = bytearray(content.size)
        content.readinto(memoryview(data), 0)
        if facts.entry.type == _VAT:
            start, end = VatHead.unpack(data).length, len(data)
        else:
            start, end = 0, len(data) - layout.VAT_END
            if end < 0 or data[end + 1 :][: len(layout.VAT_NAME)] != layout.VAT_NAME:
                raise CorruptImageError("expected a virtual allocation table")
        table = array("I")
        table.frombytes(memoryview(data)[start : end - (end - start) % 4])
        if sys.byteorder == "big":
            table.byteswap()
        return table


def _is_vat(head: bytes, block: int) -> bool:
    """Whether an entry may be one of a virtual allocation table."""
    tag = Tag.unpack(head)
    if tag.id not in (layout.FILE, layout.EXTENDED_FILE) or tag.location != block:
        return False
    return Entry.unpack(head).type in (_VAT, _VAT_OF_150)


def _tried(
    make: Callable[_P, Partition], *args: _P.args, **named: _P.kwargs
) -> Partition | FormatError | ReadError:
    try:
        return make(*args, **named)
    except (FormatError, ReadError) as failure:
        return failure


def _rows(maps: bytes, count: int) -> Iterator[bytes]:
    """Each map; those of type 2 as long as they ought to be."""
    at = 0
    while count and at + 6 <= len(maps) and maps[at + 1] >= 6:
        length = maps[at + 1]
        yield maps[at : at + length].ljust(PartitionMap.SIZE, b"\0")
        at += length
        count -= 1


def _kind(row: bytes) -> bytes:
    """Of a map: empty for type 1."""
    return b"" if row[0] == 1 else PartitionMap.unpack(row).id.rstrip(b"\0")


def _number(row: bytes) -> int:
    """Of the partition that a map is of."""
    return int.from_bytes(row[4:6], "little") if row[0] == 1 else PartitionMap.unpack(row).number
