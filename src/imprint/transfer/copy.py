"""The copy engine: every verb that moves a disk is one call of :func:`copy`.

::

    source.extents ─► batches ─► windowed(load) ─► target.write / zero ─► hash ─► commit
                                 workers: read,     one thread, ascending  a thread each
                                 find zeros, compress

A batch is one window of 1 MiB. Workers read ahead, at most ``2 * workers`` windows, so a copy
holds that many buffers whatever the disk's size.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import fill_zero
from imprint.core.contracts import Encoding, Offloading, Salvage, Source, Target
from imprint.core.errors import ReadError, TargetTooSmallError
from imprint.core.events import OnEvent, ignore
from imprint.core.extent import Extent, Kind, cut
from imprint.core.limits import SPAN_BYTES
from imprint.core.runs import Runs
from imprint.transfer.checkpoints import Checkpoints
from imprint.transfer.documenting import document, hashes_for
from imprint.transfer.pace import Pace
from imprint.transfer.report import Report
from imprint.transfer.span import HAS_BYTES, BufferPool, Span, batches, split_zeros
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from imprint.core.cancel import CancelToken
    from imprint.transfer.checkpoints import Journal
    from imprint.transfer.hashing import HashSet
    from imprint.transfer.recovery import Recovered, Recovery

CHECKPOINT_INTERVAL_S: Final = 2.0
"""Between checkpoints: what a crash may cost. Each waits for the disk, as the end would anyway."""

_HASHED_AT_ONCE_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Loaded:
    """One window, read.

    Attributes:
        offset: of the disk.
        length: in bytes.
        moved: bytes that were read for it.
        data: the whole window, zeros filled in; only if it has to be hashed.
        spans: what to write; empty if ``units`` is given.
        units: what the target's ``encode`` made of the window.
        offload: extents that the system copies by itself.
        buffer: to give back to the pool.
    """

    offset: int
    length: int
    moved: int = 0
    data: memoryview | None = None
    spans: tuple[Span, ...] = ()
    units: list[bytes] | None = None
    offload: tuple[Extent, ...] = ()
    buffer: memoryview | None = None

    @property
    def end(self) -> int:
        """The first byte of the disk behind the window."""
        return self.offset + self.length


def copy(
    source: Source,
    target: Target,
    *,
    workers: int = 2,
    hashes: HashSet | None = None,
    detect_zeros: bool = True,
    start: int = 0,
    journal: Journal | None = None,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
    phase: str = "copy",
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    recovery: Recovery | None = None,
) -> Report:
    """Copy all of ``source`` to ``target`` and commit it.

    Args:
        source: read from many threads.
        target: written by this thread, in ascending order.
        workers: threads that read ahead; they also compress.
        hashes: fed with the content of the whole source.
        detect_zeros: look for zeros in the data too, not only in the source's map. Without
            it, and without ``hashes``, the system may copy (or share) the bytes by itself.
        start: bytes below this are in the target already; they are only hashed.
        journal: told about checkpoints, if the target can make them.
        on_event: gets :class:`~imprint.core.events.Progress`.
        cancel: stops the copy when set.
        phase: what progress calls it.
        checkpoint_interval_s: least time between checkpoints.
        recovery: asked when the source cannot be read; ``None``: that is the end.

    Raises:
        TargetTooSmallError: before anything is written.
        Cancelled: if ``cancel`` was set.
        ImagingError: whatever reading or writing raises. In all these cases the target
            is aborted; or, if there is a checkpoint to come back to, suspended.
    """
    hashes = hashes_for(target, hashes)
    if hashes is not None:
        hashes.is_apart = workers > 1
    run = _Run(source, target, hashes=hashes, detect_zeros=detect_zeros, start=start)
    pace = Pace(source.size, phase, on_event)
    checkpoints = Checkpoints(target, journal, start, checkpoint_interval_s)
    began = time.monotonic()
    try:
        if target.size < source.size:
            raise TargetTooSmallError(
                f"has {target.size} bytes, the source has {source.size}", name=target.name
            )
        if hashes is not None:
            hashes.check(source.size)
        move = partial(_move, workers=workers, pace=pace, checkpoints=checkpoints, cancel=cancel)
        run = _moved(run, move, checkpoints, recovery)
        run.pad()
        if hashes is not None:
            run.report.hashes, run.report.pieces = hashes.digests(), hashes.pieces()
        document(target, source, hashes, run.all_bad())
        target.commit()
    except BaseException:
        checkpoints.give_up()
        raise
    finally:
        if hashes is not None:
            hashes.close()
    checkpoints.finish()
    run.report.duration_s = time.monotonic() - began
    run.report.bad = run.all_bad()
    pace.tell(source.size, run.report.bytes_read, bad=run.bad_bytes(), force=True)
    return run.report


def _moved(
    run: _Run, move: Callable[[_Run], None], checkpoints: Checkpoints, recovery: Recovery | None
) -> _Run:
    """Move all of a disk; what came to its end, if the source failed on the way."""
    try:
        move(run)
    except ReadError as error:
        if recovery is None:
            raise
        if recovery.is_in_place:
            checkpoints.hand_over()
        run = run.after(recovery.recover(run.position, error))
        move(run)
    return run


def _move(
    run: _Run, *, workers: int, pace: Pace, checkpoints: Checkpoints, cancel: CancelToken | None
) -> None:
    """Load and store all windows of a run."""
    with closing(run.windows(workers)) as loaded:
        for window in loaded:
            if cancel is not None and cancel.is_cancelled:
                checkpoints.keep(window.offset)
                cancel.check()
            run.store(window)
            pace.tell(window.end, run.report.bytes_read, bad=run.bad_bytes())
            checkpoints.reached(window.end)


class _Run:
    """One copy: how a window is loaded (by workers) and stored (by the caller's thread)."""

    def __init__(
        self,
        source: Source,
        target: Target,
        *,
        hashes: HashSet | None,
        detect_zeros: bool,
        start: int,
    ) -> None:
        self._source = source
        self._target = target
        self._hashes = hashes
        self._detect_zeros = detect_zeros
        self._start = start
        self._salvage = source if isinstance(source, Salvage) else None
        self._encoder = target if isinstance(target, Encoding) else None
        may_offload = hashes is None and not detect_zeros and self._encoder is None
        self._offloader = target if may_offload and isinstance(target, Offloading) else None
        self._reads_zero = target.traits.reads_zero
        # Zeros in shorter runs than a sector are not worth looking for.
        self._grain = max(512, target.traits.grain)
        self._window = max(SPAN_BYTES, self._grain)
        self._pool = BufferPool(self._window)
        self._recovered: Recovered | None = None
        self._bad: list[Extent] = []
        self.position = 0 if hashes is not None else start
        self.report = Report(source.size, resumed_at=start)

    def after(self, recovered: Recovered) -> _Run:
        """What goes on where this run has failed."""
        run = _Run(
            recovered.source,
            self._target,
            hashes=self._hashes,
            detect_zeros=self._detect_zeros,
            start=max(self.position, self._start, recovered.start),
        )
        if self._hashes is not None:
            run.position = self.position
        run.report = self.report
        run.report.bytes_read += recovered.bytes_read
        run._recovered = recovered
        return run

    def windows(self, workers: int) -> Generator[Loaded, None, None]:
        """All of the disk that has to be looked at, in order."""
        first = self.position
        if first and self._recovered is None:  # what was copied before an interruption
            self._bad += [e for e in self._source.extents(0, first) if e.kind is Kind.BAD]
        extents = self._noting_bad(self._source.extents(first, self._source.size - first))
        if self._hashes is not None:
            # A hole has to be hashed too: whole, it could be neither stopped nor watched.
            extents = cut(extents, _HASHED_AT_ONCE_BYTES)
        return windowed(
            self._load, batches(extents, self._window), workers=workers, window=2 * workers
        )

    def store(self, window: Loaded) -> None:
        """Hand a window to the target, and hash it."""
        if self._recovered is None:
            self.report.bytes_read += window.moved
        if window.end > self._start:
            self._write(window)
        release = None if window.buffer is None else partial(self._pool.give_back, window.buffer)
        if self._hashes is not None:
            # Behind the write: hashers may still read the buffer when this returns.
            self._hashes.feed(window.data, window.length, release)
        elif release is not None:
            release()
        self.position = window.end

    def pad(self) -> None:
        """A target may be larger than the source: what is behind it reads as zeros."""
        if self._target.size > self._source.size and not self._reads_zero:
            self._target.zero(self._source.size, self._target.size - self._source.size)

    def bad_extents(self) -> list[Extent]:
        """What the source could not read so far."""
        if self._recovered is not None:
            return self._recovered.bad
        return self._bad if self._salvage is None else self._salvage.bad_extents()

    def all_bad(self) -> list[Extent]:
        """The same, and what the source knew without reading."""
        found = [*self._bad, *self.bad_extents()]
        runs = Runs.of((extent.offset, extent.length) for extent in found)
        return [Extent(*run, Kind.BAD) for run in runs]

    def bad_bytes(self) -> int:
        """How much that is."""
        return sum(extent.length for extent in self.bad_extents())

    def _noting_bad(self, extents: Iterator[Extent]) -> Iterator[Extent]:
        """What an image says to have been unreadable stays so."""
        for extent in extents:
            if extent.kind is Kind.BAD:
                self._bad.append(extent)
            yield extent

    def _write(self, window: Loaded) -> None:
        if window.units is not None:
            assert self._encoder is not None
            self._encoder.write_encoded(window.units, window.offset)
            self.report.bytes_written += window.length
            return
        for extent in window.offload:
            assert self._offloader is not None
            self._offloader.copy_from(extent)
            self.report.bytes_written += extent.length
        for span in window.spans:
            if span.data is not None:
                self._target.write(span.data, span.offset)
                self.report.bytes_written += span.length
            elif not self._reads_zero:
                self._target.zero(span.offset, span.length)

    def _load(self, batch: list[Extent]) -> Loaded:
        """Read one window; runs in a worker."""
        offset = batch[0].offset
        length = batch[-1].end - offset
        if not any(extent.kind in HAS_BYTES for extent in batch):
            return Loaded(offset, length, spans=(Span(offset, length, None),))
        if self._offloader is not None and all(map(self._can_offload, batch)):
            return self._offloaded(batch, offset, length)
        buffer = self._pool.take()
        data = buffer[:length]
        moved = self._read(batch, data, offset)
        if self._encoder is not None:
            units = self._encoder.encode(data, offset) if offset + length > self._start else None
            return Loaded(offset, length, moved, data, units=units, buffer=buffer)
        spans = tuple(self._spans(batch, data, offset))
        return Loaded(offset, length, moved, data, spans, buffer=buffer)

    def _read(self, batch: list[Extent], data: memoryview, offset: int) -> int:
        moved = 0
        needs_all = self._hashes is not None or self._encoder is not None
        for extent in batch:
            view = data[extent.offset - offset : extent.end - offset]
            if extent.kind is Kind.DATA:
                # The map has said where the bytes are: no need to ask it again.
                assert extent.storage is not None
                extent.storage.readinto(view, extent.storage_offset)
                moved += extent.length
            elif extent.kind is Kind.ENCODED:
                self._source.readinto(view, extent.offset)
                moved += extent.length
            elif needs_all:
                fill_zero(view)
        return moved

    def _spans(self, batch: list[Extent], data: memoryview, offset: int) -> Iterator[Span]:
        for extent in batch:
            view = data[extent.offset - offset : extent.end - offset]
            if extent.kind not in HAS_BYTES:
                yield Span(extent.offset, extent.length, None)
            elif not self._detect_zeros:
                yield Span(extent.offset, extent.length, view)
            else:
                yield from split_zeros(view, extent.offset, self._grain)

    def _can_offload(self, extent: Extent) -> bool:
        assert self._offloader is not None
        return extent.kind is not Kind.ENCODED and (
            extent.kind is not Kind.DATA or self._offloader.can_offload(extent)
        )

    def _offloaded(self, batch: list[Extent], offset: int, length: int) -> Loaded:
        return Loaded(
            offset,
            length,
            spans=tuple(
                Span(extent.offset, extent.length, None)
                for extent in batch
                if extent.kind not in HAS_BYTES
            ),
            offload=tuple(extent for extent in batch if extent.kind in HAS_BYTES),
        )
