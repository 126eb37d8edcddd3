"""Where the blocks of a partition are: directly, or by a table that says it.

Source: OSTA UDF 2.60, 2.2.8 to 2.2.14 (partition maps, virtual allocation table, sparing table,
metadata partition).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.errors import CorruptImageError, FormatError, ReadError, UnsupportedFeatureError
from imprint.filesystems.tree import Notes
from imprint.filesystems.udf.layout import id_of, problem_of

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Mapping, Sequence

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.contents import Run

_NOWHERE: Final = 0xFFFFFFFF
_VIRTUAL_BLOCKS_MAX: Final = 1 << 16
"""Of one extent: each is looked up by itself, and UDF wants extents of one."""


class Partition(Protocol):
    """What tells where blocks are.

    Attributes:
        copies: how many of each block there are.
    """

    copies: int

    def places(self, block: int, length: int, copy: int) -> Iterator[tuple[int, int]]:
        """Offset and length, in bytes of the volume, of what begins with a block.

        Raises:
            CorruptImageError: if it is not all in the partition.
        """


class Plain:
    """A partition of type 1: one behind the other."""

    copies = 1

    def __init__(self, start: int, block: int) -> None:
        """``start`` of it in the volume, and the size of a ``block``, in bytes."""
        self.start = start
        self.block = block

    def places(self, block: int, length: int, copy: int) -> Iterator[tuple[int, int]]:
        """See :class:`Partition`."""
        assert copy < self.copies
        yield self.start + block * self.block, length


class Sparable(Plain):
    """One in which others stand for packets that are defective."""

    def __init__(self, base: Plain, packet: int, spared: Mapping[int, int]) -> None:
        """``spared``: block of the volume by that of the partition; each of ``packet`` blocks."""
        super().__init__(base.start, base.block)
        self._packet = packet
        self._spared = spared
        self._firsts = sorted(spared)

    def places(self, block: int, length: int, copy: int) -> Iterator[tuple[int, int]]:
        """See :class:`Partition`."""
        position, end = block * self.block, block * self.block + length
        size = self._packet * self.block
        index = bisect_left(self._firsts, block - self._packet + 1)
        while index < len(self._firsts) and self._firsts[index] * self.block < end:
            first = self._firsts[index]
            start, stop = max(first * self.block, position), min(first * self.block + size, end)
            if start > position:
                yield self.start + position, start - position
            yield self._spared[first] * self.block + start - first * self.block, stop - start
            position = stop
            index += 1
        if position < end:
            yield self.start + position, end - position


class Virtual:
    """One whose blocks are where a table says, so that a disc can be written once."""

    copies = 1

    def __init__(self, base: Plain, table: array[int]) -> None:
        self._base = base
        self._table = table

    def places(self, block: int, length: int, copy: int) -> Iterator[tuple[int, int]]:
        """See :class:`Partition`."""
        size = self._base.block
        count = -(-length // size)
        if count > _VIRTUAL_BLOCKS_MAX or block + count > len(self._table):
            raise CorruptImageError(
                f"expected blocks of the {len(self._table)} of the virtual allocation table, "
                f"found {count} from {block}"
            )
        start, end = 0, 0
        for number in range(block, block + count):
            where = self._table[number]
            if where == _NOWHERE:
                raise CorruptImageError(f"virtual block {number}: expected a place, found none")
            place = self._base.start + where * size
            if place != end:
                if end:
                    yield start, end - start
                start = place
            end = place + size
        if count:
            yield start, end - start - (count * size - length)


class Metadata:
    """One whose blocks are those of a file, or of its mirror."""

    def __init__(self, files: Sequence[Sequence[Run]], block: int) -> None:
        """``files``: where the parts of the file are, in bytes; then of the mirror, if any."""
        self.copies = len(files)
        self._files = files
        self._positions = [[run.position for run in runs] for runs in files]
        self._block = block

    def places(self, block: int, length: int, copy: int) -> Iterator[tuple[int, int]]:
        """See :class:`Partition`."""
        position, end = block * self._block, block * self._block + length
        runs = self._files[copy]
        index = max(0, bisect_right(self._positions[copy], position) - 1)
        while position < end:
            run = runs[index] if index < len(runs) else None
            if run is None or not 0 <= position - run.position < run.length:
                raise CorruptImageError(
                    f"expected block {position // self._block} in the metadata partition"
                )
            skipped = position - run.position
            found = min(run.length - skipped, end - position)
            yield run.offset + skipped, found
            position += found
            index += 1


class Space:
    """The partitions of a logical volume, by the numbers that descriptors name them by.

    Attributes:
        reader: of the volume.
        block: size of one.
        partitions: by their number; an error stands for one that cannot be used.
        doubts: what was wrong with descriptors that were taken all the same, for whoever tells.
    """

    def __init__(self, reader: VolumeReader, block: int) -> None:
        """Without partitions: they are added as they are found."""
        self.reader = reader
        self.block = block
        self.partitions: list[Partition | FormatError | ReadError] = []
        self.doubts: list[str] = Notes()

    def partition(self, number: int) -> Partition:
        """One of them.

        Raises:
            CorruptImageError: if there is none of the number, or it is damaged.
            UnsupportedFeatureError: if it is of an unknown kind.
            ReadError: if what tells where its blocks are could not be read.
        """
        if number >= len(self.partitions):
            raise CorruptImageError(
                f"expected one of {len(self.partitions)} partitions, found {number}"
            )
        found = self.partitions[number]
        if isinstance(found, (FormatError, ReadError)):
            raise type(found)(str(found.args[0]))
        return found

    def read(self, partition: int, block: int, length: int, what: str, copy: int = 0) -> bytes:
        """Some bytes from the start of a block.

        Raises:
            CorruptImageError: if they are outside of the partition, or the volume.
            UnsupportedFeatureError: if the partition is of an unknown kind.
            ReadError: if they cannot be read.
        """
        found = b""
        for offset, part in self.partition(partition).places(block, length, copy):
            found += self.reader.read(offset, part, what)
        return found

    def descriptor(self, partition: int, block: int, what: str, kinds: Sequence[int]) -> bytes:
        """The block that a descriptor is in; of several copies, a sound one.

        Raises:
            CorruptImageError: if it is no descriptor of these kinds.
            UnsupportedFeatureError: if the partition is of an unknown kind.
            ReadError: if it cannot be read.
        """
        failure: FormatError | ReadError | None = None
        best: tuple[bytes, str] | None = None
        for copy in range(self.partition(partition).copies):
            try:
                data = self.read(partition, block, self.block, what, copy)
            except UnsupportedFeatureError:
                raise
            except (FormatError, ReadError) as error:
                failure = failure or error
                continue
            found = id_of(data)
            if found not in kinds:
                failure = failure or CorruptImageError(
                    f"{what} in block {block} of partition {partition}: expected its tag, "
                    f"found one of {found}"
                )
                continue
            problem = problem_of(data, block)
            if problem is None:
                if copy:
                    self.doubts.append(f"{what} in block {block}: it was read from its mirror")
                return data
            best = best or (data, problem)
        if best is None:
            assert failure is not None
            raise failure
        self.doubts.append(f"{what} in block {block}: {best[1]}")
        return best[0]
