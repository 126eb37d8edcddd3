"""A raw file among several targets: if the source fails, it is rescued into, and others read it.

So it gets its name when all others are done, and stays under its temporary one if they are not.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from imprint.core.errors import ImagingError, ReadError
from imprint.core.limits import SPAN_BYTES
from imprint.endpoints.several_jobs import TargetResult
from imprint.endpoints.target import stored_size
from imprint.filters.over import OverSource
from imprint.transfer.copy import copy
from imprint.transfer.recovery import Recovered
from imprint.transfer.rescue.sink import TargetSink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.extent import Extent
    from imprint.core.formats import CreateSpec
    from imprint.core.image import WritableImage
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.rescued_source import Rescuable
    from imprint.endpoints.target import TargetRequest
    from imprint.filters.broadcast import View
    from imprint.transfer.hashing import HashSet


class RawHome(OverSource):
    """The file, for all threads; see :class:`~imprint.endpoints.rescued_source.Home`."""

    def __init__(self, target: WritableImage) -> None:
        super().__init__(target)
        self.position = 0
        self.is_lost = False
        self._target = target
        self._turn = threading.Lock()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._target.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the file."""
        return self._target.extents(offset, length)

    def write(self, data: memoryview, offset: int) -> None:
        """As of a target."""
        with self._turn:
            self._target.write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """As of a target."""
        with self._turn:
            self._target.zero(offset, length)

    def flush(self) -> None:
        """Wait until all that was written is durable."""
        with self._turn:
            self._target.flush()

    def close(self) -> None:
        """It belongs to whoever writes it."""


class HomeWriting:
    """How such a file is written; see :class:`~imprint.endpoints.several_jobs.Writing`."""

    needs_hashes = False

    def __init__(
        self,
        request: TargetRequest,
        target: WritableImage,
        spec: CreateSpec,
        disk: Rescuable,
        *,
        is_left: bool,
    ) -> None:
        """``is_left``: the target is one that another attempt has left."""
        self.result = TargetResult(request, request.chosen_format().name)
        self.wanted_hashes: tuple[str, ...] = ()
        self.target = target
        self.home = RawHome(target)
        self._spec = spec
        self._disk = disk
        self._is_left = is_left

    def write(self, request: CopyRequest, view: View, hashes: HashSet | None) -> None:
        """Write all, and wait for the others if none shall appear alone."""
        try:
            copy(
                _UntilFailure(view, self._disk),
                _Deferred(self.home),
                workers=request.workers,
                detect_zeros=request.detect_zeros,
                start=self.home.position,
                cancel=request.cancel,
                recovery=_Remnants(view, self._disk, self.home),
            )
            # Nobody has to wait for a reader that does not read.
            view.close()
            if hashes is not None:
                hashes.digests()
        except BaseException:
            self.home.is_lost = True
            raise

    def finish(self) -> None:
        """Let it have its name, now that nobody reads from it."""
        try:
            self.target.commit()
            path = self.result.request.location.path
            self.result.bytes_stored = stored_size(path, self._spec)
        except ImagingError as error:
            self.result.error = error

    def abort(self) -> None:
        """See :meth:`close`."""

    def close(self) -> None:
        """Keep what was rescued, unless it has its name; remove what was only copied."""
        if self._is_left or self._disk.work is self.home:
            self.target.suspend()
        else:
            self.target.abort()


class _Deferred:
    """The file as the target of a copy: neither finished nor removed by it."""

    def __init__(self, home: RawHome) -> None:
        self._home = home
        self.name = home.name
        self.size = home.size
        self.traits = home.traits

    def write(self, data: memoryview, offset: int) -> None:
        """Store it, and note how far it has come."""
        self._home.write(data, offset)
        self._home.position = offset + len(data)

    def zero(self, offset: int, length: int) -> None:
        """The same."""
        self._home.zero(offset, length)
        self._home.position = offset + length

    def commit(self) -> None:
        """Later; see :meth:`HomeWriting.finish`."""

    def abort(self) -> None:
        """Later; see :meth:`HomeWriting.close`."""


class _UntilFailure(OverSource):
    """A view that ends where the rescue has begun: what is behind is in the file already."""

    def __init__(self, view: View, disk: Rescuable) -> None:
        super().__init__(view)
        self._disk = disk

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            ReadError: if the medium has failed.
        """
        if self._disk.has_failed:
            raise ReadError("is rescued", name=self.name, offset=offset, length=len(buffer))
        self._source.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the view."""
        return self._source.extents(offset, length)

    def close(self) -> None:
        """Of the view."""
        self._source.close()


class _Remnants:
    """Adds what the file lacks after a rescue into it.

    A :class:`~imprint.transfer.recovery.Recovery`.
    """

    is_in_place = False

    def __init__(self, view: View, disk: Rescuable, home: RawHome) -> None:
        self._view = view
        self._disk = disk
        self._home = home

    def recover(self, position: int, error: ReadError) -> Recovered:
        """Wait for the rescue, and add what was read before it and not yet written."""
        del position, error
        self._disk.wait()
        sink = TargetSink(self._home, is_clear=True)
        for start, length in self._disk.before:
            for first in range(start, start + length, SPAN_BYTES):
                buffer = memoryview(bytearray(min(SPAN_BYTES, start + length - first)))
                self._view.readinto(buffer, first)
                sink.write(buffer, first)
        return Recovered(self._view, self._view.size, self._disk.bad_extents())
