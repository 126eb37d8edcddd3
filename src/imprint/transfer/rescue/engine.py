"""The rescue of a medium that cannot be read as a whole: what is easy first, what may kill it last.

::

    copying    clusters of 64 KiB. Where a read fails or takes long, skip ahead, further each time;
               then the other way round, which finds the far side of the hole; then without skips
    trimming   sectors of a cluster that failed, from both of its edges up to a bad one
    scraping   all sectors between two bad ones, once
    retrying   bad sectors again, as often as it is asked for

So every sector that can be read is read; a bad one costs one failing read of its own, and a share
in that of its cluster. The phases and their order are those of GNU ddrescue, so that its map
files mean the same here.

Source: the GNU ddrescue manual, chapter "Algorithm".
"""

from __future__ import annotations

import contextlib
import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core import events
from imprint.core.errors import ImagingError, ReadError
from imprint.core.units import KIB, align_up
from imprint.transfer.rescue.mapfile import FINISHED, Progress
from imprint.transfer.rescue.reading import TimedReader, VanishedError
from imprint.transfer.rescue.states import Areas, State, find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.transfer.rescue.sink import Sink

CLUSTER_BYTES: Final = 64 * KIB
"""What is read at a time: a failing read of more would have to be taken apart by sectors."""

_SWEEP_FACTOR_MAX: Final = 4
"""In the last pass, where one cluster has failed after another, so many are read at once."""

_SKIP_SHARE: Final = 100_000
_SKIP_SHARE_MAX: Final = 100
"""Of the medium: the first skip is its 100000th part, the longest a hundredth."""

_SLOW_FACTOR: Final = 8
"""A slow read takes so many times what the others took: a floppy disk is not damaged."""

_EVENT_INTERVAL_S: Final = 0.25


@dataclass(frozen=True)
class Settings:
    """How hard to try.

    Attributes:
        retries: how often sectors that failed are tried again.
        reverse: begin at the end.
        timeout_s: how long to wait for a read; ``None``: as long as the system does.
        slow_s: what a read may take before the area is left for later.
        save_interval_s: between two times that the map is saved.
        probe_after: failing reads, with no good one between, after which a sector is read
            that was good: if it is not any more, the medium is gone.
    """

    retries: int = 0
    reverse: bool = False
    timeout_s: float | None = None
    slow_s: float = 1.0
    save_interval_s: float = 10.0
    probe_after: int = 64


class Keeper(Protocol):
    """Keeps the map, so that a rescue can go on after any end."""

    def save(self, areas: Areas, progress: Progress) -> None:
        """Make what is stored durable, and then the map, which replaces the old one."""


class Outcome(enum.Enum):
    """What became of a read."""

    GOOD = "good"
    SLOW = "slow"
    FAILED = "failed"


class Engine:
    """One rescue. For one thread.

    Attributes:
        areas: what has been tried.
        bytes_read: that came from the medium.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        areas: Areas,
        domain: Runs,
        *,
        keeper: Keeper,
        settings: Settings | None = None,
        on_event: events.OnEvent = events.ignore,
        cancel: CancelToken | None = None,
    ) -> None:
        """Prepare a rescue; nothing is read yet.

        Args:
            source: the medium.
            sink: where its bytes go.
            areas: what an earlier attempt has come to; it is changed.
            domain: which bytes are wanted. What is outside of it stays as it is.
            keeper: keeps ``areas``.
            settings: how hard to try.
            on_event: gets :class:`~imprint.core.events.Progress`.
            cancel: stops it.
        """
        self.areas = areas
        self.bytes_read = 0
        self._sink = sink
        self._domain = domain
        self._keeper = keeper
        self._settings = settings or Settings()
        self._on_event = on_event
        self._cancel = cancel
        self._sector = max(1, source.traits.logical_sector)
        self._reader = TimedReader(
            source,
            bytes_max=max(CLUSTER_BYTES * _SWEEP_FACTOR_MAX, self._sector),
            timeout_s=self._settings.timeout_s,
            cancel=cancel,
        )
        self._phase = "rescue"
        self._progress = Progress()
        self._unsure: list[tuple[int, int, State]] = []
        self._known_good: int | None = None
        self._good_reads = 0
        self._good_s = 0.0
        self._was_slow = False
        now = time.monotonic()
        self._last_good = self._last_event = self._last_save = now

    @property
    def sector(self) -> int:
        """What cannot be read in parts, in bytes."""
        return self._sector

    def run(self, order: Sequence[Runs] = ()) -> None:
        """Rescue what is wanted; parts that are in ``order`` first, one after the other.

        Raises:
            ReadError: if the medium is gone. The map says what was read until then.
            Cancelled: if the stop was asked for; likewise.
            TargetError: if the sink cannot take it; likewise.
        """
        with self.kept():
            parts = [self._domain & self._whole_sectors(part) for part in order]
            parts.append(self._domain)
            self.save()
            for part in parts:
                self._copy(part)
            for part in parts:
                self._trim(part)
            for part in parts:
                self.enter("scrape", "/", 1)
                self._each_sector(State.UNSCRAPED, part, forward=True)
            for number in range(1, self._settings.retries + 1):
                self.enter(f"retry {number}", "-", number)
                forward = (number % 2 == 1) is not self._settings.reverse
                for part in parts:
                    self._each_sector(State.BAD, part, forward=forward)
            called_bad = (each[:2] for each in self._unsure if each[2] is not State.BAD)
            if sum(end - start for start, end in called_bad) > self._sector:
                self._probe()  # one alone, the last of the medium, is nothing special
            self._progress = Progress(self.areas.size, FINISHED, 1)
        self._tell()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """For the time inside, the medium is read: however that ends, the map is saved."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, VanishedError):
                self._take_back()
            # What went wrong first says more than that the map could not be saved either.
            with contextlib.suppress(ImagingError):
                self.save()
            raise
        finally:
            self._reader.close()
        self.save()

    def save(self) -> None:
        """Save the map now."""
        self._keeper.save(self.areas, self._progress)
        self._last_save = time.monotonic()

    def enter(self, phase: str, status: str, number: int) -> None:
        """Begin a phase: what progress and the map call it, and which pass of it."""
        self._phase = phase
        self._progress = Progress(self._progress.position, status, number)

    def attempt(self, start: int, end: int, failed: State) -> Outcome:
        """Read ``[start, end)`` and store it; where that fails, it is ``failed`` from now on.

        Raises:
            VanishedError: if the medium is gone.
        """
        self._tick(start)
        try:
            data = self._reader.read(start, end - start)
        except VanishedError:
            raise
        except ReadError:
            self._fail(start, end, State.BAD if end - start <= self._sector else failed)
            return Outcome.FAILED
        self.bytes_read += len(data)
        self._sink.write(data, start)
        self.areas.set(start, end, State.GOOD)
        self._unsure.clear()
        self._known_good = start
        self._last_good = time.monotonic()
        seconds = self._reader.seconds
        usual = self._good_s / self._good_reads if self._good_reads else 0.0
        if seconds > max(self._settings.slow_s, _SLOW_FACTOR * usual):
            self._was_slow = True
            return Outcome.SLOW
        self._good_reads += 1
        self._good_s += seconds
        return Outcome.GOOD

    def _copy(self, part: Runs) -> None:
        forward = not self._settings.reverse
        self._copying(1, part, forward=forward, on_error=True, on_slow=True)
        self._copying(2, part, forward=not forward, on_error=True, on_slow=True)
        if self._was_slow:
            self._copying(3, part, forward=forward, on_error=True, on_slow=False)
            self._copying(4, part, forward=not forward, on_error=True, on_slow=False)
        self._copying(5, part, forward=forward, on_error=False, on_slow=False)

    def _copying(
        self, number: int, part: Runs, *, forward: bool, on_error: bool, on_slow: bool
    ) -> None:
        """One pass over what was not tried yet; skips ahead where it is told to."""
        size = self.areas.size
        self.enter(f"rescue {number}", "?", number)
        first = align_up(max(CLUSTER_BYTES, size // _SKIP_SHARE), self._sector)
        longest = max(first, align_up(size // _SKIP_SHARE_MAX, self._sector))
        position, skip, clusters = 0 if forward else size, 0, 1
        while True:
            found = find(self.areas, State.UNTRIED, part, position, forward=forward)
            if found is None:
                return
            start, end = self._cut(*found, CLUSTER_BYTES, clusters, forward=forward)
            outcome = self.attempt(start, end, State.UNTRIMMED)
            position = end if forward else start
            is_failed = outcome is Outcome.FAILED
            if (is_failed and on_error) or (outcome is Outcome.SLOW and on_slow):
                skip = min(2 * skip, longest) if skip else first
                position = position + skip if forward else position - skip
            elif not is_failed:
                skip = 0
            clusters = min(2 * clusters, _SWEEP_FACTOR_MAX) if is_failed and not on_error else 1

    def _trim(self, part: Runs) -> None:
        """Look for the edges of what failed."""
        self.enter("trim", "*", 1)
        position = 0
        while True:
            found = find(self.areas, State.UNTRIMMED, part, position, forward=True)
            if found is None:
                return
            start, end = found
            position = end
            start = self._trimmed(start, end, forward=True)
            end = self._trimmed(start, end, forward=False)
            self.areas.set(start, end, State.UNSCRAPED)

    def _trimmed(self, start: int, end: int, *, forward: bool) -> int:
        """Read from one edge up to a bad sector; where what is left begins, or ends."""
        while start < end:
            first, last = self._cut(start, end, self._sector, 1, forward=forward)
            outcome = self.attempt(first, last, State.BAD)
            start, end = (last, end) if forward else (start, first)
            if outcome is Outcome.FAILED:
                break
        return start if forward else end

    def _each_sector(self, state: State, part: Runs, *, forward: bool) -> None:
        """Try all sectors in a state, once."""
        position = 0 if forward else self.areas.size
        while True:
            found = find(self.areas, state, part, position, forward=forward)
            if found is None:
                return
            start, end = self._cut(*found, self._sector, 1, forward=forward)
            self.attempt(start, end, State.BAD)
            position = end if forward else start

    def _cut(
        self, start: int, end: int, unit: int, count: int, *, forward: bool
    ) -> tuple[int, int]:
        """The part of a run that is read next: up to a border between units."""
        if forward:
            return start, min(end, start - start % unit + unit * count)
        return max(start, (end - 1) // unit * unit - unit * (count - 1)), end

    def _fail(self, start: int, end: int, state: State) -> None:
        self._unsure += self.areas.within(start, end)
        self.areas.set(start, end, state)
        if len(self._unsure) >= self._settings.probe_after:
            self._probe()

    def _probe(self) -> None:
        """Where the last reads failed, read what was good, in this run or before.

        Raises:
            VanishedError: if it is not any more, wherever one looks.
        """
        good = self.areas.runs(State.GOOD).starts
        places = [good[0], good[len(good) // 2], good[-1]] if good else []
        if self._known_good is not None:
            places.append(self._known_good)
        last: ReadError | None = None
        for position in reversed(places):
            try:
                self._reader.read(position, min(self._sector, self.areas.size - position))
            except ReadError as error:
                last = error
            else:
                last = None
                break
        if last is not None:
            raise VanishedError(
                "the medium does not answer any more, not even where it was good", name=last.name
            ) from last
        self._unsure.clear()

    def _take_back(self) -> None:
        """What failed because the medium was gone has not been tried."""
        for start, end, state in reversed(self._unsure):
            self.areas.set(start, end, state)
        self._unsure.clear()

    def _tick(self, position: int) -> None:
        """Between two reads: whatever has to be done now and then."""
        if self._cancel is not None:
            self._cancel.check()
        self._progress = Progress(position, self._progress.status, self._progress.number)
        now = time.monotonic()
        if now - self._last_event >= _EVENT_INTERVAL_S:
            self._last_event = now
            self._tell()
        if now - self._last_save >= self._settings.save_interval_s:
            self.save()

    def _tell(self) -> None:
        failed = (State.UNTRIMMED, State.UNSCRAPED, State.BAD)
        self._on_event(
            events.Progress(
                self._phase,
                self.areas.total(State.GOOD, State.BAD),
                self.areas.size,
                self.bytes_read,
                self.areas.total(*failed),
                bad_areas=sum(1 for _, _, state in self.areas if state in failed),
                since_good_s=time.monotonic() - self._last_good,
            )
        )

    def _whole_sectors(self, runs: Runs) -> Runs:
        return runs.widened(self._sector).clip(0, self.areas.size)
