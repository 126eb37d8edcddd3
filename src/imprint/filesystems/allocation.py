"""What a file system uses of its volume: the contract of all that can tell it.

A map is needed only to leave something out, so every doubt counts against leaving it out. There
are three answers. A map without doubts is the whole truth. A map with doubts is what the
structures say, and reasons why they may be behind the times: a log that was not replayed, a
count that does not fit. Where there is no telling at all (a feature that is not known, a checksum
that does not match, a pointer to outside of the volume) an error is raised. In the second
case the caller copies the volume as a whole unless its user insists, in the third always.

The map is *generous*: it has everything that may be read or that may be needed to repair the
volume: boot code, reserved sectors, every copy of every superblock, bad-block lists, and the
part of the volume behind the end of the file system. It covers what is used on the disk
as it is, and what is used once the journal is replayed: whoever restores the volume may
do either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from imprint.core.errors import CorruptImageError
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs

READ_BYTES_MAX: Final = 1024 * MIB
"""What reading one map may read: the metadata of a file system of tens of terabytes."""

UNBOUNDED: Final = 1 << 62
"""For whoever reads only what is asked for: names and contents, as long as somebody wants more."""


@dataclass(frozen=True)
class Allocation:
    """What a file system uses of its volume.

    Attributes:
        unit: of allocation, in bytes: a block or cluster.
        used: what has to be kept, in bytes of the volume; all of it is inside the volume.
        doubts: why this should not be relied upon, one sentence each, without a full stop.
        notes: what else is worth telling, in the same form.
    """

    unit: int
    used: Runs
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Allocating(Protocol):
    """A kind of file system that can tell what it uses. Stateless; nothing is written."""

    def allocation(self, volume: Source) -> Allocation:
        """What the file system at the start of ``volume`` uses of it.

        Reads metadata only, each piece of it about once; keeps what is proportional to the
        number of runs, plus a bitmap.

        Raises:
            CorruptImageError: if its structures contradict themselves.
            UnsupportedFeatureError: if it has a feature that may change their meaning.
            ReadError: if some of them cannot be read.
        """


@runtime_checkable
class Walking(Allocating, Protocol):
    """A kind of file system whose trees can be walked, to prove that a map has all of them."""

    def reached(self, volume: Source) -> Iterator[tuple[int, int]]:
        """``(offset, length)`` of all that can be reached from the superblock, in any order.

        Inodes, directories, extent blocks, B-tree nodes, and the extents of every file, found by
        other means than :meth:`Allocating.allocation` uses: not from the bitmaps. In bytes of
        the volume. Bounded in time and memory by the volume's size, whatever the trees say.

        Raises:
            CorruptImageError: if a tree cannot be followed.
            ReadError: if a part of it cannot be read.
        """


class VolumeReader:
    """Reads structures of a volume, and refuses what lies outside of it. For one thread."""

    def __init__(self, volume: Source, *, budget: int = READ_BYTES_MAX) -> None:
        """``budget`` bounds the bytes of all reads together."""
        self._volume = volume
        self._left = budget

    @property
    def name(self) -> str:
        """Of the volume, for errors."""
        return self._volume.name

    @property
    def size(self) -> int:
        """Of the volume, in bytes."""
        return self._volume.size

    def read(self, offset: int, length: int, what: str) -> bytearray:
        """Exactly ``length`` bytes; ``what`` says in errors which structure they are.

        Raises:
            CorruptImageError: if they are not all inside the volume, or if the structures
                have asked for more than a sound file system would.
            ReadError: if they cannot be read.
        """
        self.check(offset, length, what)
        if length > self._left:
            raise CorruptImageError(
                f"{what} at 0x{offset:x}: expected fewer structures, found no end of them",
                name=self.name,
                offset=offset,
            )
        self._left -= length
        buffer = bytearray(length)
        if length:
            self._volume.readinto(memoryview(buffer), offset)
        return buffer

    def expect(self, length: int, what: str) -> None:
        """Refuse a structure that will be read in pieces, if it is larger than what may be read.

        Raises:
            CorruptImageError: if it is.
        """
        if length > self._left:
            raise CorruptImageError(
                f"{what}: expected at most {self._left} bytes, found {length}", name=self.name
            )

    def check(self, offset: int, length: int, what: str) -> None:
        """Refuse a range that is not wholly inside the volume.

        Raises:
            CorruptImageError: if it is not.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptImageError(
                f"{what}: expected a place inside the volume's {self.size} bytes, "
                f"found 0x{offset:x} + 0x{length:x}",
                name=self.name,
                offset=offset,
                length=length,
            )
