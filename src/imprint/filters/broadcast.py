"""One source read once for many readers, each of which goes through it in ascending order.

What one of them has read is kept until all others have come past it, and a reader that is
:data:`AHEAD` blocks ahead of the slowest has to wait. So what is kept is bounded, whatever the
readers do with it. Nothing depends on their order but speed: what is no longer there is read again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Salvage
from imprint.core.extent import Extent, Kind
from imprint.filters.over import OverSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

BLOCK: Final = 1 << 20
"""What is read at once, in bytes."""

AHEAD: Final = 24
"""Blocks that a reader may be ahead of the slowest one."""

KEPT: Final = 48
"""Blocks that are kept at most: those between the readers, and what their threads still need."""


class Broadcast:
    """Reads ``source`` for all its views. Closing it belongs to whoever has opened it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._size = source.size
        self._turn = threading.Condition()
        self._blocks: dict[int, memoryview] = {}
        self._loading: set[int] = set()
        self._views: list[View] = []

    def view(self) -> View:
        """The source for one more reader. All views are made before the first one reads."""
        view = View(self._source, self)
        self._views.append(view)
        return view

    def leave(self, view: View) -> None:
        """Nobody waits for a reader any more."""
        with self._turn:
            if view in self._views:
                self._views.remove(view)
            self._turn.notify_all()

    def kept(self) -> list[tuple[int, memoryview]]:
        """Blocks that need not be read again, as ``(offset, data)``; not to be changed."""
        with self._turn:
            return [(index * BLOCK, data) for index, data in sorted(self._blocks.items())]

    def block(self, view: View, index: int) -> memoryview:
        """A block of the disk, read by whoever needs it first.

        Raises:
            ImagingError: what the source raises, to each reader that asks.
        """
        with self._turn:
            # Before waiting: the slowest reader is the one that wants least, and never waits.
            if index > view.wanted:
                view.wanted = index
                self._turn.notify_all()
            while (
                index in self._loading or index > self._lowest() + AHEAD
            ) and index not in self._blocks:
                self._turn.wait()
            found = self._blocks.get(index)
            if found is not None:
                return found
            self._loading.add(index)
        start = index * BLOCK
        data = memoryview(bytearray(min(BLOCK, self._size - start)))
        try:
            self._source.readinto(data, start)
        except BaseException:
            with self._turn:
                self._loading.discard(index)
                self._turn.notify_all()
            raise
        with self._turn:
            self._loading.discard(index)
            self._blocks[index] = data
            if len(self._blocks) > KEPT:
                del self._blocks[min(self._blocks)]
            self._turn.notify_all()
        return data

    def _lowest(self) -> int:
        """How far the slowest reader has come."""
        return min((view.wanted for view in self._views), default=0)


class View(OverSource):
    """What one reader sees.

    Attributes:
        wanted: the last block that it has asked for.
    """

    def __init__(self, source: Source, broadcast: Broadcast) -> None:
        super().__init__(source)
        self._broadcast = broadcast
        self.wanted = 0

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """From what another reader has read, or by reading it for all."""
        index, skipped = divmod(offset, BLOCK)
        done = 0
        while done < len(buffer):
            part = self._broadcast.block(self, index)[skipped : skipped + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)
            index, skipped = index + 1, 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source; data is to be read from here, not from where it lies."""
        for extent in self._source.extents(offset, length):
            yield extent._replace(kind=Kind.ENCODED) if extent.kind is Kind.DATA else extent

    def bad_extents(self) -> list[Extent]:
        """Of the source: whole when this reader has read all of it."""
        return self._source.bad_extents() if isinstance(self._source, Salvage) else []

    def close(self) -> None:
        """Let the others go on without this one."""
        self._broadcast.leave(self)
