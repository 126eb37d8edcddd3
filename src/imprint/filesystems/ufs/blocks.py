"""Where the contents of files lie: pointers of inodes, and blocks of pointers.

Source: FreeBSD ``sys/ufs/ufs/ufs_bmap.c``, ``sys/ufs/ffs/fs.h`` (``sblksize``, ``BLK_SNAP``).
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, ReadError
from imprint.filesystems.contents import Run
from imprint.filesystems.ufs.inodes import DIRECT, MARKS, SNAPSHOT
from imprint.filesystems.ufs.layout import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ufs.inodes import Inode
    from imprint.filesystems.ufs.layout import Superblock

LEVELS: Final = 3
"""Of blocks of pointers."""

_OWNERS_MAX: Final = 1 << 20
"""Blocks of pointers of which is remembered whose they are: those of 32 TiB."""

_FREE_BLOCKS_MAX: Final = 1 << 8
"""Blocks of pointers of an inode that is free: they may be others' by now."""


class Blocks:
    """Follows pointers. A block of pointers is one inode's only, so that there is an end.

    Attributes:
        again: blocks of pointers that were read although they had been read before, or although
            their inode is free.
    """

    def __init__(self, reader: VolumeReader, block: Superblock) -> None:
        """``block`` is the superblock."""
        self._reader = reader
        self._block = block
        self._code = "I" if block.version == 1 else "Q"
        self._count = block.block_bytes // array(self._code).itemsize
        self._is_swapped = (block.order == "<") != (sys.byteorder == "little")
        self._owners: dict[int, int] = {}
        self.again = 0
        blocks = DIRECT + sum(self._count**level for level in range(1, LEVELS + 1))
        self._size_max = blocks * block.block_bytes

    def runs(self, number: int, inode: Inode, *, is_used: bool, through: bool) -> Iterator[Run]:
        """Where an inode's content lies, as far as its size, ascending; not what is in it.

        Args:
            number: of the inode.
            inode: of a type that has a content.
            is_used: whether it is in use.
            through: tell of a snapshot also what is the file system's own.

        Raises:
            CorruptImageError: if the pointers cannot be followed.
            ReadError: if they cannot be read.
        """
        if inode.size > self._size_max:
            raise CorruptImageError(
                f"inode {number}: expected at most {self._size_max} bytes, found {inode.size}",
                name=self._reader.name,
            )
        is_snapshot = bool(inode.flags & SNAPSHOT) and self._block.dialect is Dialect.BSD
        way = _Way(self, number if is_used else None, through=through and is_snapshot)
        return _united(way.runs(inode))

    def attribute_runs(self, inode: Inode) -> Iterator[Run]:
        """Where the extended attributes of an inode lie."""
        return self.direct(inode.attributes, inode.attributes_size, through=False)

    def direct(self, pointers: Sequence[int], size: int, *, through: bool) -> Iterator[Run]:
        """What pointers lead to; the last block has only as many fragments as it needs."""
        length = self._block.block_bytes
        fragment = self._block.fragment
        for index, pointer in enumerate(pointers):
            start = index * length
            rest = -(-min(length, size - start) // fragment) * fragment
            if rest <= 0:
                return
            if pointer not in (0, *MARKS):
                yield Run(start, pointer * fragment, rest)
            elif pointer == 0 and through:
                yield Run(start, start, rest)

    def leaf(self, pointers: array[int], index: int, *, through: bool) -> Iterator[Run]:
        """What pointers lead to, whole blocks; ``index`` is that of the first in the file."""
        block = self._block
        length, step = block.block_bytes, block.block_fragments
        first, count = pointers[0], len(pointers)
        last = first + step * (count - 1)
        in_row = first > MARKS[-1] and pointers[-1] == last
        if in_row and pointers == array(self._code, range(first, last + 1, step)):
            yield Run(index * length, first * block.fragment, count * length)
            return
        for at, pointer in enumerate(pointers, index):
            if pointer > MARKS[-1]:
                yield Run(at * length, pointer * block.fragment, length)
            elif pointer == 0 and through:
                yield Run(at * length, at * length, length)

    def pointers(self, pointer: int, owner: int | None) -> array[int]:
        """What is in a block of pointers; ``owner`` is the inode, if that is in use."""
        place = pointer // self._block.block_fragments
        if owner is None or place in self._owners:
            self.again += 1
        if owner is not None:
            known = self._owners.get(place, owner)
            if known != owner:
                raise CorruptImageError(
                    f"inode {owner}: expected blocks of its own, found one of inode {known}",
                    name=self._reader.name,
                )
            if len(self._owners) < _OWNERS_MAX:
                self._owners[place] = owner
        length = self._block.block_bytes
        found = array(self._code)
        offset = pointer * self._block.fragment
        found.frombytes(self._reader.read(offset, length, "block of pointers"))
        if self._is_swapped:
            found.byteswap()
        return found

    @property
    def span(self) -> int:
        """Pointers in a block."""
        return self._count

    @property
    def block_bytes(self) -> int:
        """Of a whole block."""
        return self._block.block_bytes


class _Way:
    """Through the pointers of one inode."""

    def __init__(self, blocks: Blocks, owner: int | None, *, through: bool) -> None:
        self._blocks = blocks
        self._owner = owner
        self._through = through
        self._seen: set[int] = set()

    def runs(self, inode: Inode) -> Iterator[Run]:
        """Of its blocks, one by one, or some of them at once."""
        blocks = self._blocks
        end = -(-inode.size // blocks.block_bytes)
        yield from blocks.direct(inode.pointers[:DIRECT], inode.size, through=self._through)
        index = DIRECT
        for level, pointer in enumerate(inode.pointers[DIRECT:]):
            if index >= end:
                return
            span = blocks.span ** (level + 1)
            yield from self._below(pointer, level, index, min(end, index + span))
            index += span

    def _below(self, pointer: int, level: int, index: int, end: int) -> Iterator[Run]:
        """What is below a block of pointers, for the file's blocks from ``index`` to ``end``."""
        blocks = self._blocks
        if pointer in (0, *MARKS):
            if pointer == 0 and self._through:
                start = index * blocks.block_bytes
                yield Run(start, start, (end - index) * blocks.block_bytes)
            return
        limit = _FREE_BLOCKS_MAX if self._owner is None else sys.maxsize
        if pointer in self._seen or len(self._seen) >= limit:
            raise CorruptImageError("expected blocks of pointers that end")
        self._seen.add(pointer)
        span = blocks.span**level
        found = blocks.pointers(pointer, self._owner)[: -(-(end - index) // span)]
        if level == 0:
            yield from blocks.leaf(found, index, through=self._through)
            return
        for at, inner in enumerate(found):
            if inner or self._through:
                start = index + at * span
                yield from self._below(inner, level - 1, start, min(end, start + span))


def _united(runs: Iterator[Run]) -> Iterator[Run]:
    """Those that go on where the one before ended, in the file and on the volume, as one.

    What was found before an error is told first.
    """
    whole: Run | None = None
    try:
        for run in runs:
            if whole is not None and (run.position, run.offset) == (
                whole.position + whole.length,
                whole.offset + whole.length,
            ):
                whole = Run(whole.position, whole.offset, whole.length + run.length)
                continue
            if whole is not None:
                yield whole
            whole = run
    except (CorruptImageError, ReadError):
        if whole is not None:
            yield whole
        raise
    if whole is not None:
        yield whole
