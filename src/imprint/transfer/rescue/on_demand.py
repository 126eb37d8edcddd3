"""A medium that is rescued where somebody looks: who reads its metadata has it read first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import ReadError
from imprint.core.units import align_down, align_up
from imprint.filters.over import OverSource
from imprint.transfer.rescue.engine import CLUSTER_BYTES, Outcome
from imprint.transfer.rescue.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent
    from imprint.transfer.rescue.engine import Engine
    from imprint.transfer.rescue.sink import TargetSink


class OnDemand(OverSource):
    """Reads each byte of the medium once: what is stored is read from there. For one thread."""

    def __init__(self, source: Source, engine: Engine, sink: TargetSink) -> None:
        """``engine`` rescues ``source`` into ``sink``."""
        super().__init__(source)
        self._engine = engine
        self._sink = sink

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``, from the medium if it was not read yet.

        Raises:
            ReadError: if some of it cannot be read: it is not tried again.
            VanishedError: if the medium is gone.
        """
        areas, sector = self._engine.areas, self._engine.sector
        first = align_down(offset, sector)
        last = min(align_up(offset + len(buffer), sector), self.size)
        for start, end, state in areas.within(first, last):
            if state is State.UNTRIED:
                self._fetch(start, end)
            elif state is not State.GOOD:
                raise self._unreadable(start, end)
        self._sink.disk.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source."""
        return self._source.extents(offset, length)

    def close(self) -> None:
        """The source belongs to somebody else."""

    def _fetch(self, start: int, end: int) -> None:
        for position in range(start, end, CLUSTER_BYTES):
            stop = min(position + CLUSTER_BYTES, end)
            if self._engine.attempt(position, stop, State.UNTRIMMED) is Outcome.FAILED:
                raise self._unreadable(position, stop)

    def _unreadable(self, start: int, end: int) -> ReadError:
        return ReadError(
            f"cannot read at 0x{start:x}", name=self.name, offset=start, length=end - start
        )
