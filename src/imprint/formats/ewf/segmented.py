"""Writing a set of segments: what both versions of the format have in common.

Chunks go front to back in groups, each with its table; a segment that is full is followed by
the next one. Nothing shows before all of it is whole, and the first segment, which is what
people open, shows last. It cannot be resumed: hashes of what was written are not kept.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from imprint.core.ascending import AscendingUnits
from imprint.core.buffers import is_zero
from imprint.core.contracts import Order, Traits
from imprint.core.filesets import FileSet
from imprint.core.runs import Runs
from imprint.formats.ewf import codec
from imprint.formats.ewf.naming import Names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imprint.core.contracts import Opener, Storage
    from imprint.core.extent import Extent
    from imprint.formats.ewf.headers import Marks
    from imprint.formats.ewf.options import Plan

TAIL_BYTES: Final = 4096
"""Room that is kept for what ends a segment, but for its tables and long lists."""

_ZEROS_AT_ONCE: Final = 4096


class SegmentedTarget(AscendingUnits):
    """A new image; see :class:`~imprint.core.contracts.Encoding` and ``Documenting``."""

    wanted_hashes = ("md5", "sha1")

    def __init__(self, storage: Storage, made: Plan, marks: Marks, opener: Opener) -> None:
        """Writes what is in front of the chunks.

        Raises:
            RefusedError: if a second segment is there of an image that may not be replaced.
        """
        super().__init__(made.chunk_size)
        self._made = made
        self._marks = marks
        self._names = Names(storage.name)
        count_max = self._names.count_max if self._names.is_first else 1
        self._set = FileSet(storage, opener, self._names.name, count_max=count_max)
        self._files = self._set.files
        self._start = 0  # of the group at hand
        self._position = 0
        self._hashes: Mapping[str, str] = {}
        self._bad: list[tuple[int, int]] = []
        self._begin_segment(1)
        self._begin_group()

    @property
    def name(self) -> str:
        """Path or address of the first segment."""
        return self._files[0].name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._made.size

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out is zeros."""
        return Traits(
            grain=self._grain,
            logical_sector=self._made.sector_size,
            order=Order.ASCENDING,
            reads_zero=True,
        )

    def document(self, hashes: Mapping[str, str], bad: Iterable[Extent]) -> None:
        """Keep hashes and bad areas of the disk, to be written in the end.

        Raises:
            TargetError: if an area lies where the format cannot name it.
        """
        self._hashes = hashes
        self._bad = self._sectors(Runs.of((extent.offset, extent.length) for extent in bad))

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Pack chunks; an empty one stands for zeros."""
        assert offset % self._grain == 0
        units = []
        for start in range(0, len(data), self._grain):
            chunk = data[start : start + self._grain]
            units.append(b"" if is_zero(chunk) else self._packed(chunk))
        return units

    def commit(self) -> None:
        """Write what ends the set, and let all segments take their names, the first one last."""
        self._finish_partial()
        self._append_units([], self._made.chunks)
        self._finish_group()
        self._finish_set()
        self._set.commit()

    def abort(self) -> None:
        """Remove all segments."""
        self._set.abort()

    def _packed(self, chunk: memoryview) -> bytes:
        """The stored form of a chunk that is not all zeros."""
        level = self._made.level
        return codec.store(chunk) if level is None else codec.pack(chunk, level)

    def _append_units(self, units: list[bytes], index: int) -> None:
        """Append chunks from number ``index`` on, and zeros up to there."""
        while self._next_unit < index:
            count = min(_ZEROS_AT_ONCE, index - self._next_unit)
            self._add([b""] * count)
        self._add(units)

    def _add(self, units: list[bytes]) -> None:
        """Append chunks, in as few writes as groups and segments permit."""
        units = [
            unit or self._zeros(self._length(number))
            for number, unit in enumerate(units, self._next_unit)
        ]
        sizes = self._sizes(units)
        done = 0
        while done < len(units):
            ends = list(accumulate(sizes[done:], initial=self._position))
            count = self._fitting(ends)
            if not count:
                self._finish_group()
                if self._is_full(sizes[done]):
                    self._next_segment()
                self._begin_group()
                continue
            self._put(units[done : done + count], ends)
            self._next_unit += count
            done += count

    def _length(self, chunk: int) -> int:
        return min(self._grain, self.size - chunk * self._grain)

    def _is_stored(self, unit: bytes, chunk: int) -> bool:
        """Whether a chunk is as it is, with its checksum."""
        return len(unit) > self._length(chunk)

    def _next_segment(self) -> None:
        self._end_segment(is_last=False)
        self._set.add()
        self._position = 0
        self._begin_segment(len(self._files))

    def _append(self, data: bytes) -> None:
        if data:
            self._files[-1].write(memoryview(data), self._position)
            self._position += len(data)

    @abstractmethod
    def _sectors(self, bad: Runs) -> list[tuple[int, int]]:
        """Areas of the disk as sectors and their number."""

    @abstractmethod
    def _zeros(self, length: int) -> bytes:
        """A chunk of zeros as it is stored."""

    @abstractmethod
    def _sizes(self, units: list[bytes]) -> list[int]:
        """Bytes that chunks take up."""

    @abstractmethod
    def _fitting(self, ends: list[int]) -> int:
        """How many chunks have room in group and segment; ``ends`` begins with the position."""

    @abstractmethod
    def _is_full(self, length: int) -> bool:
        """Whether not even one chunk more fits into the segment."""

    @abstractmethod
    def _put(self, units: list[bytes], ends: list[int]) -> None:
        """Append chunks that fit, and note where they are."""

    @abstractmethod
    def _begin_segment(self, number: int) -> None:
        """Write what is in front of the first group of a segment."""

    @abstractmethod
    def _begin_group(self) -> None:
        """Begin a table."""

    @abstractmethod
    def _finish_group(self) -> None:
        """Write the table, if there is anything in it."""

    @abstractmethod
    def _finish_set(self) -> None:
        """Write what only the last segment has, and its end."""

    @abstractmethod
    def _end_segment(self, *, is_last: bool) -> None:
        """Write the mark behind the last section."""


def fitting(
    ends: list[int], *, room: int, reach: int, table_bytes: int, entry_bytes: int, limit: int
) -> int:
    """How many chunks fit.

    Args:
        ends: where each of them would end; the first number is where they begin.
        room: entries that the table can still take.
        reach: the farthest place that an entry can name.
        table_bytes: size of the table without these entries.
        entry_bytes: what each of them adds.
        limit: bytes that the segment may have.
    """
    count = min(len(ends) - 1, room)
    while count:
        end = ends[count]
        if end <= reach and end + table_bytes + entry_bytes * count + TAIL_BYTES <= limit:
            return count
        count -= 1
    return 0
