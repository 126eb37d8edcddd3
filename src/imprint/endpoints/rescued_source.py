"""A medium for readers that cannot take up a copy half-way: repositories, streams, several at once.

They read on as if nothing had happened when the medium fails: the rescue goes into a raw file, and
whatever was not read before comes from there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from imprint.core.errors import ReadError, TargetError
from imprint.core.events import Finding, Severity
from imprint.core.extent import Kind
from imprint.core.limits import SPAN_BYTES
from imprint.core.runs import Runs
from imprint.endpoints.maps import read_map
from imprint.endpoints.rescue_left import prepare_left
from imprint.endpoints.rescuing import Rescue, bad_in, note_failed
from imprint.filters.over import OverSource
from imprint.transfer.rescue.reading import is_gone
from imprint.transfer.rescue.sink import Random, TargetSink
from imprint.transfer.rescue.states import Areas, State
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.rescue_left import Place
    from imprint.transfer.report import Report


class Home(Random, Protocol):
    """A target that is written by one of the readers, and that may be rescued into as well.

    Attributes:
        position: it holds all of the disk below this.
        is_lost: it cannot be written any more.
    """

    position: int
    is_lost: bool


class Rescuable(OverSource):
    """A medium that becomes what was rescued of it, at the first error. Thread-safe.

    Attributes:
        aside: the same for whoever looks at some of it in any order: that neither counts as
            read, nor begins a rescue.
        before: what was read before the medium failed, and lies nowhere.
        has_failed: the rescue has begun; it may be over.
        home: where it goes; ``None``, or lost when it begins: into a file of its own.
        work: what is rescued into; ``None``: nothing yet.
        kept: ``(offset, data)`` of what the readers have in memory; ``None``: nothing.
        on_begin: called before anything is rescued.
    """

    def __init__(self, request: CopyRequest, source: Source, place: Place | None = None) -> None:
        """Takes over ``source``; ``place``: of the rescue, if not that for the one target."""
        self._rescue = Rescue(request, source, place)
        super().__init__(self._rescue.source)
        self._medium = source
        self._request = request
        self.aside: Source = _Aside(self)
        self._done = Areas(source.size)
        self._noting = threading.Condition()
        self._reading = 0
        self._rescuing = threading.Lock()
        self.before = Runs.of(())
        self._rescued: Source | None = None
        self._bad: list[Extent] = []
        self.has_failed = False
        self.home: Home | None = None
        self.work: Random | None = None
        self.kept: Callable[[], list[tuple[int, memoryview]]] | None = None
        self.on_begin: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._bytes_read: int | None = None
        self._resumed_at = 0

    def begin(self, *, is_left: bool | None = None) -> None:
        """Go on with what another run has left, or rescue before anything fails if wanted.

        Args:
            is_left: whether there is something; ``None``: as for one target, and then what is
                in the way of a new rescue is removed.

        Raises:
            RefusedError: if what was left is of another disk.
            ReadError: if the medium is gone.
        """
        rescue = self._rescue
        if is_left is None:
            is_left = prepare_left(self._request, rescue.map_path)
        if not is_left and not rescue.is_at_once:
            return
        areas = read_map(rescue.map_path, self.size)[0] if is_left else Areas(self.size)
        work = self._work()
        if is_left:
            self._resumed_at = areas.total(State.GOOD)
            said = f"a rescue goes on: {self._resumed_at} of {self.size} bytes were read before"
            self._request.on_event(Finding(Severity.INFO, self._request.target.address, said))
            rescue.check_same(work, areas)
        self._get(work, areas, is_clear=not is_left)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``, with zeros where the medium cannot be read.

        Raises:
            ImagingError: as :meth:`~imprint.endpoints.rescuing.Rescue.rescue`.
        """
        # In windows: of one that fails, each sector is read.
        for start in range(0, len(buffer), SPAN_BYTES):
            self._read_window(buffer[start : start + SPAN_BYTES], offset + start)

    def read_rescued(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` after the rescue: from the medium again what was read of it before.

        Waits for the rescue.

        Raises:
            ReadError: if that cannot be read any more.
            ImagingError: what the rescue has failed with.
        """
        self.wait()
        assert self._rescued is not None
        position, end = offset, offset + len(buffer)
        for start, length in self.before.clip(offset, end):
            if start > position:
                self._rescued.readinto(buffer[position - offset : start - offset], position)
            position = start + length
            self._medium.readinto(buffer[start - offset : position - offset], start)
        if end > position:
            self._rescued.readinto(buffer[position - offset :], position)

    def wait(self) -> None:
        """Wait for the rescue, which has begun.

        Raises:
            ImagingError: what it has failed with.
        """
        with self._rescuing:
            if self._error is not None:
                raise self._error

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the medium; data is to be read from here, not from where it lies.

        What it says is bad is data as well where a pattern takes its place.
        """
        is_filled = bool(self._request.rescue.fill)
        for extent in self._source.extents(offset, length):
            is_data = is_filled and extent.kind is Kind.BAD
            yield extent._replace(kind=Kind.ENCODED) if is_data else extent

    def bad_extents(self) -> list[Extent]:
        """What could not be read."""
        return self._bad

    def finish(self, report: Report, *, is_kept: bool = False) -> None:
        """All was stored: tell what was read for it, and clear away what was kept till then.

        Args:
            report: of the copy.
            is_kept: not all was stored; so nothing is cleared away.
        """
        report.resumed_at = max(report.resumed_at, self._resumed_at)
        if self._bytes_read is not None:
            report.bytes_read = self._bytes_read
        if not is_kept:
            self._rescue.finish(report)

    def close(self) -> None:
        """Close the medium, and the file that was rescued into."""
        self._source.close()

    @property
    def medium(self) -> Source:
        """As it was opened."""
        return self._medium

    @property
    def watched(self) -> Source:
        """What fails."""
        return self._source

    def _read_window(self, buffer: memoryview, offset: int) -> None:
        with self._noting:
            is_well = not self.has_failed
            self._reading += is_well
        failure = self._try(buffer, offset) if is_well else None
        if failure is not None:
            self._recover(failure, offset, len(buffer))
        if failure is not None or not is_well:
            self.read_rescued(buffer, offset)

    def _try(self, buffer: memoryview, offset: int) -> ReadError | None:
        """Read from the medium while it is well."""
        is_good = False
        try:
            self._source.readinto(buffer, offset)
            is_good = True
        except ReadError as error:
            return error
        finally:
            with self._noting:
                self._reading -= 1
                if is_good:
                    self._done.set(offset, offset + len(buffer), State.GOOD)
                self._noting.notify_all()
        return None

    def _recover(self, error: ReadError, offset: int, length: int) -> None:
        """Rescue all that is left of the medium, unless another thread has."""
        with self._rescuing:
            if self.has_failed:
                return
            if self._request.cancel is not None:
                self._request.cancel.check()
            try:
                with self._noting:
                    self.has_failed = True
                    # Reads that are on their way need not be made, nor fail, a second time.
                    while self._reading:
                        self._noting.wait()
                    areas, self._done = self._done, Areas(self.size)
                work = self._work()
                # What was kept in memory may have been read again, and only then have failed.
                there = self.home.position if self.home is not None and work is self.home else 0
                areas.set(max(offset, there), max(offset + length, there), State.UNTRIED)
                # Windows were read, in which there may be holes.
                read = (areas.runs(State.GOOD) & self._data()).total
                if not is_gone(error):
                    note_failed(areas, self._rescue.source)
                self.before = self._store(work, areas.runs(State.GOOD).clip(there, self.size))
                self._get(work, areas, is_clear=True, read=read)
            except BaseException as failure:
                self._error = failure
                raise

    def _data(self) -> Runs:
        """What of the medium has to be read at all."""
        extents = self._medium.extents(0, self.size)
        return Runs.of((each.offset, each.length) for each in extents if each.kind in HAS_BYTES)

    def _store(self, work: Random, before: Runs) -> Runs:
        """Put into a file what is in memory of ``before``; the rest of that."""
        sink, stored = TargetSink(work, is_clear=True), []
        for offset, data in () if self.kept is None else self.kept():
            if before.covers(offset, len(data)):
                try:
                    sink.write(data, offset)
                except TargetError:
                    break  # the rescue says so, when its map is there
                stored.append((offset, len(data)))
        return before - Runs.of(stored)

    def _work(self) -> Random:
        """What is rescued into."""
        if self.home is not None and not self.home.is_lost:
            return self.home
        return self._rescue.work_file()

    def _get(self, work: Random, areas: Areas, *, is_clear: bool, read: int = 0) -> None:
        """Rescue into a file, and read from there from now on."""
        self.has_failed, self.work = True, work
        if self.on_begin is not None:
            self.on_begin()
        got = self._rescue.rescue(work, areas, is_clear=is_clear, fleeting=self.before)
        self._bytes_read = read + got
        self._bad = bad_in(areas)
        self._rescued = self._rescue.view(work, areas)


class _Aside(OverSource):
    """See :attr:`Rescuable.aside`; not to be closed."""

    def __init__(self, disk: Rescuable) -> None:
        super().__init__(disk.watched)
        self._disk = disk

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        if self._disk.has_failed:
            self._disk.read_rescued(buffer, offset)
        else:
            self._source.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the medium."""
        return self._disk.extents(offset, length)

    def close(self) -> None:
        """Nothing of its own."""
