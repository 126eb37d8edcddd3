"""A source that goes on past what cannot be read: zeros there, and a record of where."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from imprint.core.buffers import fill_zero
from imprint.core.errors import ReadError
from imprint.core.extent import Extent, Kind, coalesce
from imprint.filters.over import OverSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Salvaging(OverSource):
    """Reads ``source`` to the sector: a range that fails is halved until single sectors do.

    A failing read is tried once at each size, so a sector that can be read at all is read.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._bad: set[tuple[int, int]] = set()
        self._lock = threading.Lock()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``, with zeros where the source cannot be read."""
        try:
            self._source.readinto(buffer, offset)
        except ReadError:
            sector = self.traits.logical_sector
            if len(buffer) <= sector:
                fill_zero(buffer)
                with self._lock:
                    self._bad.add((offset, len(buffer)))
                return
            half = max(sector, len(buffer) // 2 // sector * sector)
            self.readinto(buffer[:half], offset)
            self.readinto(buffer[half:], offset + half)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source; data is to be read from here, not from where it lies."""
        for extent in self._source.extents(offset, length):
            yield extent._replace(kind=Kind.ENCODED) if extent.kind is Kind.DATA else extent

    def bad_extents(self) -> list[Extent]:
        """What could not be read so far, in order."""
        with self._lock:
            found = sorted(self._bad)
        return list(coalesce(Extent(offset, length, Kind.BAD) for offset, length in found))

    def close(self) -> None:
        """Of the source."""
        self._source.close()
