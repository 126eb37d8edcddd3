"""The block table: at which sector of the file each block begins.

It is read once, whole; lookups touch no storage. Changes are written back by page.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final, Self

from imprint.formats.vhd.layout import BLOCK_ABSENT, SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Storage
    from imprint.formats.vhd.layout import Header

PAGE_ENTRIES: Final = 1024
"""What is written at a time: 4 KiB, a page of most file systems."""

WRITE_PAGES_MAX: Final = 256
"""Pages in one write: 1 MiB, which is copied for it."""

_ABSENT_PAGE: Final = b"\xff" * (4 * PAGE_ENTRIES)


class BlockTable:
    """One entry for each block: a sector number or ``BLOCK_ABSENT``.

    Attributes:
        sectors: the entries. To change one, use :meth:`set`.
    """

    def __init__(self, sectors: array[int]) -> None:
        self.sectors = sectors
        self._dirty: set[int] = set()

    @classmethod
    def load(cls, storage: Storage, header: Header) -> Self:
        """Read the table that a checked header describes."""
        sectors = array("I", [0]) * header.table_entries
        assert sectors.itemsize == 4
        storage.readinto(memoryview(sectors).cast("B"), header.table_offset)
        if sys.byteorder == "little":
            sectors.byteswap()
        return cls(sectors)

    @classmethod
    def absent(cls, count: int) -> Self:
        """The table of an empty disk."""
        return cls(array("I", [BLOCK_ABSENT]) * count)

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to write back."""
        return bool(self._dirty)

    def start(self, index: int) -> int | None:
        """Where a block begins in the file, in bytes; ``None`` if it is absent."""
        sector = self.sectors[index]
        return None if sector == BLOCK_ABSENT else sector * SECTOR_BYTES

    def set(self, index: int, start: int | None) -> None:
        """Change one entry; ``start`` is in bytes."""
        self.sectors[index] = BLOCK_ABSENT if start is None else start // SECTOR_BYTES
        self._dirty.add(index // PAGE_ENTRIES)

    def resize(self, count: int) -> None:
        """Give it ``count`` entries, new ones absent; all that is not in the file is dirty."""
        old = len(self.sectors)
        del self.sectors[count:]
        if count > old:
            self.sectors.extend(array("I", [BLOCK_ABSENT]) * (count - old))
            self._dirty.update(range(old // PAGE_ENTRIES, (count - 1) // PAGE_ENTRIES + 1))
        self._dirty = {page for page in self._dirty if page * PAGE_ENTRIES < count}

    def absent_run(self, index: int, limit: int) -> int:
        """How many entries from the absent ``index`` on, at most ``limit``, are absent too.

        By whole pages: an empty disk would take long entry by entry.
        """
        view = memoryview(self.sectors).cast("B")
        run = 1
        while run < limit:
            step = min(PAGE_ENTRIES, limit - run)
            start = 4 * (index + run)
            # ``startswith`` is memcmp; comparing views goes entry by entry.
            if not _ABSENT_PAGE.startswith(view[start : start + 4 * step]):
                break
            run += step
        while run < limit and self.sectors[index + run] == BLOCK_ABSENT:
            run += 1
        return run

    def used(self) -> Iterable[tuple[int, int]]:
        """Index and start in the file, in bytes, of all blocks that are present."""
        return (
            (index, sector * SECTOR_BYTES)
            for index, sector in enumerate(self.sectors)
            if sector != BLOCK_ABSENT
        )

    def write_back(self, storage: Storage, offset: int) -> None:
        """Write what has changed; not durable until the storage is flushed."""
        pages = sorted(self._dirty)
        while pages:
            first = pages[0]
            run = 1
            limit = min(len(pages), WRITE_PAGES_MAX)
            while run < limit and pages[run] == first + run:
                run += 1
            start = first * PAGE_ENTRIES
            piece = self.sectors[start : (first + run) * PAGE_ENTRIES]
            storage.write(_to_disk(piece), offset + 4 * start)
            self._dirty.difference_update(pages[:run])
            del pages[:run]

    def write_all(self, storage: Storage, offset: int) -> None:
        """Write all of it, by pieces, to another place."""
        step = PAGE_ENTRIES * WRITE_PAGES_MAX
        for start in range(0, len(self.sectors), step):
            storage.write(_to_disk(self.sectors[start : start + step]), offset + 4 * start)


def _to_disk(sectors: array[int]) -> memoryview:
    """A copy of entries, as they stand in the file."""
    if sys.byteorder == "little":
        sectors.byteswap()
    return memoryview(sectors).cast("B")
