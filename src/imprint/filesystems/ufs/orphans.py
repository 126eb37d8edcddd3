"""Inodes that were given up and have no name any more, not even a deleted one."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.units import MIB
from imprint.filesystems.ufs.inodes import inode_of
from imprint.filesystems.ufs.layout import INODE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.filesystems.ufs.inodes import Inode, Inodes
    from imprint.filesystems.ufs.layout import Superblock
    from imprint.filesystems.ufs.names import Name

_NAMED_MAX: Final = 1 << 19
"""Inodes with names, of those that are free: each takes some 100 bytes here."""

_LOOKED_AT_MAX: Final = 1 << 24
"""Names of all folders together, which may say to be in the same blocks."""

_TABLES_BYTES_MAX: Final = 1024 * MIB
"""Of inodes that are looked at: 8 million of UFS1, or 4 million that were ever used of UFS2."""

_FAILURES_MAX: Final = 64
"""Groups that cannot be looked at; those behind them are not tried."""


class Orphans:
    """Looks at all inodes, twice: which have a name, then which have none."""

    def __init__(
        self,
        block: Superblock,
        inodes: Inodes,
        names: Callable[[int, Inode], Iterator[Name | None]],
        volume_size: int,
    ) -> None:
        """``names`` gives all that is in a folder, by its inode."""
        self._block = block
        self._inodes = inodes
        self._names = names
        self._size = volume_size
        self._left = _LOOKED_AT_MAX

    def numbers(self, failed: Callable[[object], None]) -> Iterator[int]:
        """Of these inodes, ascending.

        Args:
            failed: is told why some of the inodes cannot be looked at.
        """
        named: set[int] = set()
        for number, inode, _ in self._all(failed):
            if stat.S_ISDIR(inode.mode):
                self._add_names(number, inode, named)
            if len(named) > _NAMED_MAX or self._left < 0:
                failed("expected fewer names")
                return
        for number, inode, is_used in self._all(lambda _: None):
            if not is_used and inode.times.changed and number not in named:
                yield number

    def _add_names(self, number: int, folder: Inode, named: set[int]) -> None:
        """Add the free inodes that a folder has names of, to no more than are of use."""
        try:
            for name in self._names(number, folder):
                self._left -= 1
                if self._left < 0:
                    return
                if name is None or name.name in (b".", b".."):
                    continue
                if not self._is_used(name.inode):
                    named.add(name.inode)
                    if len(named) > _NAMED_MAX:
                        return
        except (FormatError, ReadError):
            return  # whoever asks for the folder hears of it

    def _is_used(self, number: int) -> bool:
        return 0 < number < self._block.inode_count and self._inodes.is_used(number)

    def _all(self, failed: Callable[[object], None]) -> Iterator[tuple[int, Inode, bool]]:
        """Number and inode of all that have ever been in use, and whether they are."""
        block = self._block
        size = INODE_BYTES[block.version]
        left, failures = _TABLES_BYTES_MAX, 0
        for index in range(block.group_count):
            if block.group_start(index) * block.fragment >= self._size:
                return
            try:
                for first, data in self._tables(index):
                    left -= len(data)
                    if left < 0:
                        failed("there are too many inodes to look at all of them")
                        return
                    for at in range(0, len(data) if any(data) else 0, size):
                        raw = data[at : at + size]
                        if any(raw):
                            number = first + at // size
                            yield number, inode_of(block, raw), self._inodes.is_used(number)
            except (FormatError, ReadError) as failure:
                failed(failure.args[0])
                failures += 1
                if failures > _FAILURES_MAX:
                    return

    def _tables(self, index: int) -> Iterator[tuple[int, bytes]]:
        """Number of the first, and bytes of all inodes of a group, piece by piece."""
        block = self._block
        step = MIB // INODE_BYTES[block.version]
        count = block.group_inodes
        written = self._inodes.group(index).written_inodes
        if block.version > 1:
            count = min(count, written)
        for first in range(0, count, step):
            data = self._inodes.table(index, first, min(step, count - first))
            yield index * block.group_inodes + first, data
