"""Restoring onto what is there already: only what differs is written.

A file is changed in place then, as a device always is: an interrupted run leaves a mixture of
both disks, and the same command completes it.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from imprint.core.buffers import is_zero
from imprint.core.contracts import Target
from imprint.core.errors import RefusedError, UsageError
from imprint.core.limits import SPAN_BYTES
from imprint.endpoints.copying import CopyRequest, Outcome
from imprint.endpoints.fitted import untouched_of
from imprint.endpoints.location import Where
from imprint.endpoints.open import Access, files_of, open_editable, open_source
from imprint.endpoints.target import check_not_source, stored_size
from imprint.transfer.copy import copy
from imprint.transfer.hashing import HashSet
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source, Traits
    from imprint.core.extent import Extent
    from imprint.transfer.report import Report

_GRAIN_MAX = 64 << 10
_GRAIN_MIN = 4096


class Changeable(Target, Protocol):
    """A target that can be read as well."""

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """As of a source."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """As of a source."""


class DeltaTarget:
    """Passes on to ``target`` only what it does not hold already.

    Attributes:
        bytes_written: what was passed on.
    """

    def __init__(self, target: Changeable) -> None:
        self._target = target
        self._grain = min(_GRAIN_MAX, max(_GRAIN_MIN, target.traits.grain))
        self.bytes_written = 0

    @property
    def name(self) -> str:
        """Of the target."""
        return self._target.name

    @property
    def size(self) -> int:
        """Of the target."""
        return self._target.size

    @property
    def traits(self) -> Traits:
        """Of the target, about whose content nothing is known."""
        return replace(self._target.traits, reads_zero=False)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Of the target."""
        self._target.readinto(buffer, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write the blocks of ``data`` that differ, neighbours together."""
        # A bytearray compares by memcmp, two memoryviews byte by byte.
        present = bytearray(len(data))
        self._target.readinto(memoryview(present), offset)
        self.update(present, data, offset)

    def update(self, present: bytearray, data: memoryview, offset: int) -> None:
        """The same where it was read already that the target holds ``present``."""
        if present == data:
            return
        differs = [
            present[at : at + self._grain] != data[at : at + self._grain]
            for at in range(0, len(data), self._grain)
        ]
        for start, end in self._runs(differs, len(data)):
            self._target.write(data[start:end], offset + start)
            self.bytes_written += end - start

    def zero(self, offset: int, length: int) -> None:
        """Zero the blocks that are not zero, neighbours together."""
        for extent in self._target.extents(offset, length):
            if extent.kind in HAS_BYTES:
                for start in range(extent.offset, extent.end, SPAN_BYTES):
                    self._zero_span(start, min(SPAN_BYTES, extent.end - start))

    def _zero_span(self, offset: int, length: int) -> None:
        present = memoryview(bytearray(length))
        self._target.readinto(present, offset)
        if is_zero(present):
            return
        differs = [
            not is_zero(present[at : at + self._grain]) for at in range(0, length, self._grain)
        ]
        for start, end in self._runs(differs, length):
            self._target.zero(offset + start, end - start)
            self.bytes_written += end - start

    def _runs(self, differs: list[bool], length: int) -> Iterator[tuple[int, int]]:
        """Where runs of blocks that differ begin and end, in bytes."""
        position = 0
        for is_different, blocks in itertools.groupby(differs):
            end = min(position + self._grain * len(list(blocks)), length)
            if is_different:
                yield position, end
            position = end

    def commit(self) -> None:
        """Of the target."""
        self._target.commit()

    def abort(self) -> None:
        """Of the target; what was written stays."""
        self._target.abort()


def restore_delta(request: CopyRequest) -> Outcome:
    """Make a disk that exists the same as the source, writing only what differs.

    The report's ``bytes_written`` counts that.

    Raises:
        RefusedError: if a file may not be changed, or nobody said yes to a device.
        ImagingError: of the kind that says what else is wrong.
    """
    check_not_source(request.target, (request.source,))
    location = request.target.location
    if location.where is Where.STREAM:
        raise UsageError("expected a target that can be read", name=request.target.address)
    if location.where is Where.FILE and not request.target.force:
        raise RefusedError(
            "exists already", name=request.target.address, advice="--force changes it in place"
        )
    source = open_source(request.source, request.access)
    try:
        check_not_source(request.target, tuple(files_of(source)))
        if request.reshape is not None:
            source = request.reshape(source)
        target = DeltaTarget(_open_target(request, source))
        report = _copy(request, source, target)
    finally:
        source.close()
    report.bytes_written = target.bytes_written
    stored = stored_size(location.path) if location.where is Where.FILE else report.size
    return Outcome(report, stored, request.target.chosen_format().name)


def _copy(request: CopyRequest, source: Source, target: DeltaTarget) -> Report:
    if not request.hashes:
        from imprint.repository.restoring import restore_differences  # only with a repository
        from imprint.repository.source import SnapshotSource

        if isinstance(source, SnapshotSource):
            return restore_differences(
                source,
                target,
                workers=request.workers,
                on_event=request.on_event,
                cancel=request.cancel,
            )
    return copy(
        source,
        target,
        workers=request.workers,
        hashes=HashSet(request.hashes) if request.hashes else None,
        detect_zeros=request.detect_zeros,
        on_event=request.on_event,
        cancel=request.cancel,
    )


def _open_target(request: CopyRequest, source: Source) -> Changeable:
    if request.target.location.is_overwritten:
        from imprint.endpoints.device import open_device_target  # only for devices

        return open_device_target(request.target, source.size, untouched=untouched_of(source))
    access = Access(
        format=request.target.chosen_format().name,
        allowed=request.access.allowed,
        passphrase=request.access.passphrase,
        on_event=request.access.on_event,
    )
    image = open_editable(request.target.address, access)
    try:
        if image.size != source.size:
            image.resize(source.size)
    except BaseException:
        image.close()
        raise
    return image
