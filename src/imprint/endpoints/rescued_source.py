"""A medium for readers that cannot take up a copy half-way: repositories, standard output.

They read on as if nothing had happened when the medium fails: the rescue goes into a raw file, and
whatever was not read before comes from there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from imprint.core.errors import ReadError
from imprint.core.events import Finding, Severity
from imprint.core.limits import SPAN_BYTES
from imprint.core.runs import Runs
from imprint.endpoints.maps import read_map
from imprint.endpoints.rescue_left import prepare_left
from imprint.endpoints.rescuing import Rescue, bad_in, note_failed
from imprint.filters.over import OverSource
from imprint.transfer.rescue.reading import is_gone
from imprint.transfer.rescue.states import Areas, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.extent import Extent
    from imprint.endpoints.copying import CopyRequest
    from imprint.storage.file import FileStorage
    from imprint.transfer.report import Report


class Rescuable(OverSource):
    """A medium that becomes what was rescued of it, at the first error. Thread-safe.

    Attributes:
        aside: the same for whoever looks at some of it in any order: that neither counts as
            read, nor begins a rescue.
        has_failed: the rescue has begun; it may be over.
    """

    def __init__(self, request: CopyRequest, source: Source) -> None:
        """Takes over ``source``."""
        self._rescue = Rescue(request, source)
        super().__init__(self._rescue.source)
        self._medium = source
        self._request = request
        self.aside: Source = _Aside(self)
        self._done = Areas(source.size)
        self._noting = threading.Lock()
        self._rescuing = threading.Lock()
        self._before = Runs.of(())
        self._rescued: Source | None = None
        self._bad: list[Extent] = []
        self.has_failed = False
        self._error: BaseException | None = None
        self._bytes_read: int | None = None
        self._resumed_at = 0

    def begin(self) -> None:
        """Go on with what another run has left, or rescue before anything fails if wanted.

        Raises:
            RefusedError: if what was left is of another disk.
            ReadError: if the medium is gone.
        """
        rescue = self._rescue
        is_left = prepare_left(self._request, rescue.map_path)
        if not is_left and not self._request.rescue.is_at_once:
            return
        areas = read_map(rescue.map_path, self.size)[0] if is_left else Areas(self.size)
        work = rescue.work_file()
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
        with self._rescuing:
            if self._error is not None:
                raise self._error
        assert self._rescued is not None
        position, end = offset, offset + len(buffer)
        for start, length in self._before.clip(offset, end):
            if start > position:
                self._rescued.readinto(buffer[position - offset : start - offset], position)
            position = start + length
            self._medium.readinto(buffer[start - offset : position - offset], start)
        if end > position:
            self._rescued.readinto(buffer[position - offset :], position)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the medium; data is to be read from here, not from where it lies."""
        return self._source.extents(offset, length)

    def bad_extents(self) -> list[Extent]:
        """What could not be read."""
        return self._bad

    def finish(self, report: Report) -> None:
        """All was stored: tell what was read for it, and clear away what was kept till then."""
        report.resumed_at = max(report.resumed_at, self._resumed_at)
        if self._bytes_read is not None:
            report.bytes_read = self._bytes_read
        self._rescue.finish(report)

    def close(self) -> None:
        """Close the medium, and the file that was rescued into."""
        self._source.close()

    @property
    def watched(self) -> Source:
        """What fails."""
        return self._source

    def _read_window(self, buffer: memoryview, offset: int) -> None:
        if not self.has_failed:
            try:
                self._source.readinto(buffer, offset)
            except ReadError as error:
                self._recover(error, offset, len(buffer))
            else:
                with self._noting:
                    self._done.set(offset, offset + len(buffer), State.GOOD)
                return
        self.read_rescued(buffer, offset)

    def _recover(self, error: ReadError, offset: int, length: int) -> None:
        """Rescue all that is left of the medium, unless another thread has."""
        with self._rescuing:
            if self.has_failed:
                return
            self.has_failed = True
            try:
                with self._noting:
                    areas, self._done = self._done, Areas(self.size)
                areas.set(offset, offset + length, State.UNTRIED)
                before = areas.runs(State.GOOD)
                read = before.total
                if not is_gone(error):
                    note_failed(areas, self._rescue.source)
                self._before = before
                self._get(self._rescue.work_file(), areas, is_clear=True, read=read)
            except BaseException as failure:
                self._error = failure
                raise

    def _get(self, work: FileStorage, areas: Areas, *, is_clear: bool, read: int = 0) -> None:
        """Rescue into a file, and read from there from now on."""
        self.has_failed = True
        got = self._rescue.rescue(work, areas, is_clear=is_clear, fleeting=self._before)
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
