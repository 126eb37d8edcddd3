"""The targets of one capture into several, each in a thread of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imprint.core.contracts import Documenting
from imprint.core.errors import ImagingError
from imprint.core.image import WritableImage
from imprint.endpoints.fitted import untouched_of
from imprint.endpoints.journal import journal_path
from imprint.endpoints.location import FORMAT, Where, parse
from imprint.endpoints.open import files_of
from imprint.endpoints.target import (
    check_not_source,
    create_target,
    resume_target,
    stored_size,
)
from imprint.storage.pending import discard
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Source, Target
    from imprint.core.formats import CreateSpec
    from imprint.endpoints.capturing import Addition
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.rescued_source import Rescuable
    from imprint.endpoints.several_home import HomeWriting
    from imprint.endpoints.target import TargetRequest
    from imprint.filters.broadcast import View
    from imprint.repository.snapshots import Snapshot
    from imprint.transfer.hashing import HashSet


@dataclass
class TargetResult:
    """What came of one target.

    Attributes:
        request: what it was to be.
        format: its name.
        bytes_stored: what it takes up; for a device, the disk's size; 0 if it failed.
        error: what went wrong; ``None``: it is whole.
        snapshot: that was made, if it is a repository.
        proved: whether it was proved that nothing in use was left out of the snapshot.
    """

    request: TargetRequest
    format: str
    bytes_stored: int = 0
    error: ImagingError | None = None
    snapshot: Snapshot | None = None
    proved: bool = False


class Writing(Protocol):
    """How one target is written.

    Attributes:
        result: what comes of it.
        wanted_hashes: names of those that it keeps.
        needs_hashes: whether it has to have them before it is finished.
    """

    result: TargetResult
    wanted_hashes: tuple[str, ...]
    needs_hashes: bool

    def write(self, request: CopyRequest, view: View, hashes: HashSet | None) -> None:
        """Read ``view``, finish the target, and note in ``result`` what it has become.

        Raises:
            ImagingError: if it fails; nothing of it shows then.
        """

    def finish(self) -> None:
        """All others have come to their end, and this one did not fail; does not raise."""

    def abort(self) -> None:
        """Nothing was written, and nothing will be."""

    def close(self) -> None:
        """Everything is done, or has failed."""


class ImageWriting:
    """A file, or a device."""

    def __init__(self, request: TargetRequest, target: Target, spec: CreateSpec | None) -> None:
        self.result = TargetResult(request, request.chosen_format().name)
        self.needs_hashes = isinstance(target, Documenting)
        self.wanted_hashes: tuple[str, ...] = ()
        if isinstance(target, Documenting):
            self.wanted_hashes = tuple(target.wanted_hashes)
        self.target = target
        self._spec = spec

    def write(self, request: CopyRequest, view: View, hashes: HashSet | None) -> None:
        """See :class:`Writing`."""
        copy(
            view,
            self.target,
            workers=request.workers,
            hashes=hashes,
            detect_zeros=request.detect_zeros,
            cancel=request.cancel,
        )
        size = self.target.size
        if self._spec is not None:
            size = stored_size(self.result.request.location.path, self._spec)
        self.result.bytes_stored = size

    def finish(self) -> None:
        """See :class:`Writing`."""

    def abort(self) -> None:
        """See :class:`Writing`."""
        self.target.abort()

    def close(self) -> None:
        """See :class:`Writing`: the copy has closed it."""


class SnapshotWriting:
    """A repository."""

    needs_hashes = True

    def __init__(
        self, request: TargetRequest, addition: Addition, opened: Source, aside: Source
    ) -> None:
        """``aside`` is where file systems of ``opened`` are looked at."""
        self.result = TargetResult(request, FORMAT)
        self._aside = aside
        self.wanted_hashes: tuple[str, ...] = ()
        self._addition = addition
        self._opened = opened

    def write(self, request: CopyRequest, view: View, hashes: HashSet | None) -> None:
        """See :class:`Writing`."""
        del request  # the addition has its own
        added = self._addition.add(self._opened, view, aside=self._aside, hashes=hashes)
        self.result.bytes_stored = added.bytes_stored
        self.result.snapshot = added.snapshot
        self.result.proved = added.proved

    def finish(self) -> None:
        """See :class:`Writing`."""

    def abort(self) -> None:
        """See :class:`Writing`."""

    def close(self) -> None:
        """See :class:`Writing`."""
        self._addition.close()


def home_writing(
    request: CopyRequest, wanted: TargetRequest, disk: Rescuable, *, is_left: bool
) -> HomeWriting:
    """Begin a raw file that may be rescued into, or take up the one of another attempt.

    Raises:
        ImagingError: if it cannot be written.
    """
    from imprint.endpoints.several_home import HomeWriting  # only where errors are expected

    sources = tuple(files_of(disk.medium))
    check_not_source(wanted, sources)
    sector = disk.traits.logical_sector
    spec = wanted.spec(disk.size, request.access, sector=sector, sources=sources)
    target = resume_target(wanted, spec) if is_left else create_target(wanted, spec)
    assert isinstance(target, WritableImage), "what raw files are"
    discard(journal_path(wanted.location.path))
    return HomeWriting(wanted, target, spec, disk, is_left=is_left)


def image_writing(request: CopyRequest, wanted: TargetRequest, source: Source) -> ImageWriting:
    """Begin a file or a device.

    Raises:
        ImagingError: if it cannot be written.
    """
    sources = tuple(files_of(source))
    check_not_source(wanted, sources)
    if wanted.location.is_overwritten:
        from imprint.endpoints.device import open_device_target  # only for devices

        untouched = untouched_of(source)
        return ImageWriting(
            wanted, open_device_target(wanted, source.size, untouched=untouched), None
        )
    sector = source.traits.logical_sector
    spec = wanted.spec(source.size, request.access, sector=sector, sources=sources)
    target = create_target(wanted, spec)
    # What an earlier copy has noted is about a file that is gone now.
    discard(journal_path(wanted.location.path))
    return ImageWriting(wanted, target, spec)


def is_repository(request: TargetRequest) -> bool:
    """Whether a target is an image in a repository."""
    return parse(request.address).where is Where.REPOSITORY


class Job:
    """One target on its way."""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.result = writing.result
        self._defect: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, write: Callable[[], None], view: View, failed: Callable[[], None]) -> None:
        """Write in a thread, which leaves ``view`` in the end."""

        def work() -> None:
            try:
                write()
            except ImagingError as error:
                self.result.error = error
                failed()
            except BaseException as error:  # noqa: BLE001 - it is raised again by join()
                self._defect = error
                failed()
            finally:
                view.close()

        self._thread = threading.Thread(target=work, name="target", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for it."""
        if self._thread is not None:
            self._thread.join()
        if self._defect is not None:
            raise self._defect
