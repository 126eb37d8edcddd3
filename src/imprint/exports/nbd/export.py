"""One disk that is exported: what clients are told of it, and where its bytes are."""

from __future__ import annotations

import bisect
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.contracts import HasDescriptor
from imprint.core.extent import Extent, Kind
from imprint.core.units import KIB, MIB
from imprint.filters.shared import SharedDisk
from imprint.protocols.nbd.constants import DESCRIPTORS_MAX, Feature, State
from imprint.protocols.nbd.options import BlockSizes, Offer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

MESSAGE_BYTES_MAX: Final = 32 * MIB
"""What one request may carry: the least that every client may rely on."""

FILE_BYTES_MIN: Final = 64 * KIB
"""Data that is sent from its file without being read; for less, two more calls cost more."""

_HOLE_BYTES_MIN: Final = 4 * KIB  # a shorter run of zeros is sent as such
_PREFERRED_MAX: Final = 1 * MIB
_LOOK_AHEAD: Final = 16 * MIB  # of the map, when it is asked what is at one place
_RUNS_MAX: Final = 1 << 14
_STATUS_RUNS_MAX: Final = 1 << 15
_STATUS_S_MAX: Final = 0.5
_STATUS_STEP: Final = 64 * MIB
_LENGTH_MAX: Final = (1 << 32) - 4096

_READ_ONLY: Final = (
    Feature.HAS_FLAGS | Feature.READ_ONLY | Feature.MULTI_CONN | Feature.CACHE | Feature.FLUSH
)
_WRITABLE: Final = (
    Feature.HAS_FLAGS
    | Feature.FLUSH
    | Feature.FUA
    | Feature.TRIM
    | Feature.WRITE_ZEROES
    | Feature.MULTI_CONN
    | Feature.CACHE
)
# What is bad reads as zeros, or not at all: only reading it tells.
_WITHOUT_BYTES: Final = frozenset({Kind.ZERO, Kind.HOLE, Kind.UNUSED})
# Zeros as well: without HOLE, a write there must not fail for want of room.
_HOLE: Final = State.HOLE | State.ZERO
_STATES: Final = dict.fromkeys(_WITHOUT_BYTES, _HOLE)


class Segment(NamedTuple):
    """A part of a read that is answered in one way.

    Attributes:
        offset: of the disk.
        length: in bytes.
        is_zero: it reads as zeros.
        file: it lies plain in this one.
        position: of the file.
    """

    offset: int
    length: int
    is_zero: bool = False
    file: HasDescriptor | None = None
    position: int = 0


class Export:
    """A disk, under a name. Thread-safe."""

    def __init__(
        self,
        name: str,
        disk: Source | SharedDisk,
        *,
        description: str = "",
        is_thin: bool = False,
    ) -> None:
        """Export ``disk``, which stays the caller's; a :class:`SharedDisk` can be written.

        Args:
            name: by which it is asked for.
            disk: what is exported.
            description: for people.
            is_thin: zeros take no room on it, even when a client wants them to.
        """
        self.disk = disk
        self.is_thin = is_thin
        self.writer = disk if isinstance(disk, SharedDisk) else None
        grain = disk.traits.grain
        is_power = grain & (grain - 1) == 0
        preferred = min(max(grain, 4 * KIB), _PREFERRED_MAX) if is_power else 4 * KIB
        features = _READ_ONLY if self.writer is None else _WRITABLE
        blocks = BlockSizes(1, preferred, MESSAGE_BYTES_MAX)
        self.offer = Offer(name, disk.size, features, description, blocks)
        # What a disk holds changes only where it can be written.
        self._runs = None if self.writer is not None else _Runs(disk)

    def segments(self, offset: int, length: int) -> list[Segment]:
        """How a read is answered best: few parts, zeros and what lies in files apart."""
        found: list[Segment] = []
        for extent in self._extents(offset, length):
            storage: object = extent.storage
            if extent.kind in _WITHOUT_BYTES:
                segment = Segment(extent.offset, extent.length, is_zero=True)
            elif (
                extent.kind is Kind.DATA
                and self._runs is not None
                and isinstance(storage, HasDescriptor)
            ):
                segment = Segment(
                    extent.offset,
                    extent.length,
                    file=storage,
                    position=extent.storage_offset,
                )
            else:
                segment = Segment(extent.offset, extent.length)
            if found and not (_stands_alone(found[-1]) or _stands_alone(segment)):
                segment = Segment(found[-1].offset, found.pop().length + segment.length)
            found.append(segment)
        return found

    def status(self, offset: int, length: int, *, only_one: bool) -> list[tuple[int, int]]:
        """Lengths and flags of runs from ``offset`` on: at least one, not always all."""
        runs: list[tuple[int, int]] = []
        until = time.monotonic() + _STATUS_S_MAX
        end = offset + min(length, _LENGTH_MAX)
        for start in range(offset, end, _STATUS_STEP):
            step = min(_STATUS_STEP, end - start)
            for extent in self.disk.extents(start, step):
                state = _STATES.get(extent.kind, State(0))
                if runs and runs[-1][1] == state:
                    runs[-1] = runs[-1][0] + extent.length, state
                elif (runs and only_one) or len(runs) >= min(_STATUS_RUNS_MAX, DESCRIPTORS_MAX):
                    return runs
                else:
                    runs.append((extent.length, state))
            if time.monotonic() > until:
                break
        return runs

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self._runs is None:
            return self.disk.extents(offset, length)
        return self._runs.within(offset, offset + length)


def _stands_alone(segment: Segment) -> bool:
    if segment.is_zero:
        return segment.length >= _HOLE_BYTES_MIN
    return segment.file is not None and segment.length >= FILE_BYTES_MIN


class _Runs:
    """What was learnt of a disk's map: asking it again costs more than a small read.

    Holes are not kept, since somebody else may fill those of a file.
    """

    def __init__(self, disk: Source) -> None:
        self._disk = disk
        self._starts: list[int] = []
        self._extents: list[Extent] = []
        self._lock = threading.Lock()

    def within(self, start: int, end: int) -> Iterator[Extent]:
        while start < end:
            extent = self._known(start)
            if extent is None:
                ahead = max(end - start, min(_LOOK_AHEAD, self._disk.size - start))
                extent = next(iter(self._disk.extents(start, ahead)))
                if extent.kind not in _WITHOUT_BYTES:
                    self._keep(extent)
            extent = extent.clip(start, end)
            yield extent
            start = extent.end

    def _known(self, offset: int) -> Extent | None:
        with self._lock:
            index = bisect.bisect_right(self._starts, offset) - 1
            extent = self._extents[index] if index >= 0 else None
        return extent if extent is not None and offset < extent.end else None

    def _keep(self, extent: Extent) -> None:
        with self._lock:
            if len(self._starts) >= _RUNS_MAX:
                self._starts.clear()
                self._extents.clear()
            index = bisect.bisect_left(self._starts, extent.offset)
            if index < len(self._starts) and self._starts[index] == extent.offset:
                self._extents[index] = extent
            else:
                self._starts.insert(index, extent.offset)
                self._extents.insert(index, extent)
