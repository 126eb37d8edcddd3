"""Making a disk that exists the same as a snapshot, reading and writing only what differs.

The target is read and its chunks named; only chunks of other names are fetched.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from imprint.core.contracts import Target
from imprint.core.errors import TargetTooSmallError
from imprint.core.events import OnEvent, ignore
from imprint.core.extent import Extent, Kind
from imprint.repository.nodes import Leaf, Piece
from imprint.transfer.pace import Pace
from imprint.transfer.report import Report
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.cancel import CancelToken
    from imprint.repository.source import SnapshotSource


class ReadableTarget(Target, Protocol):
    """A target that can be read as well."""

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """As of a source."""

    def update(self, present: bytearray, data: memoryview, offset: int) -> None:
        """Write what of ``data`` is not in ``present``, which the target is known to hold."""


@dataclass
class _Difference:
    """Of one leaf: bytes to write, and runs to zero.

    Attributes:
        end: of the leaf, in bytes of the disk.
        data: offset, what the target holds there, and what it shall hold.
        zeros: offset and length of what has to read as zeros.
        bad: what could not be read when the snapshot was made.
    """

    end: int
    data: list[tuple[int, bytearray, memoryview]] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)
    bad: list[Extent] = field(default_factory=list)


def restore_differences(
    source: SnapshotSource,
    target: ReadableTarget,
    *,
    workers: int = 2,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> Report:
    """Make ``target`` the same as the snapshot, and commit it.

    The report's ``bytes_read`` are those fetched from the repository.

    Args:
        source: the snapshot.
        target: a disk that exists; ``zero`` may leave out what is there already.
        workers: threads that read and compare.
        on_event: told of progress.
        cancel: stops it; the disk is a mixture then, which the same call completes.

    Raises:
        TargetTooSmallError: before anything is written.
        ImagingError: whatever reading or writing raises.
    """
    if target.size < source.size:
        raise TargetTooSmallError(
            f"has {target.size} bytes, the snapshot has {source.size}", name=target.name
        )
    began = time.monotonic()
    report = Report(source.size)
    pace = Pace(source.size, "restore", on_event)

    def compared(item: tuple[int, int, bytes]) -> _Difference:
        start, end, name = item
        return _compare(source, target, source.tree.leaf(name, start, end))

    try:
        found = windowed(
            compared, source.tree.leaves(0, source.size), workers=workers, window=2 * workers
        )
        with closing(found) as differences:
            for difference in differences:
                if cancel is not None:
                    cancel.check()
                for offset, present, data in difference.data:
                    target.update(present, data, offset)
                    report.bytes_read += len(data)
                for offset, length in difference.zeros:
                    target.zero(offset, length)
                report.bad += difference.bad
                pace.tell(difference.end, report.bytes_read)
        if target.size > source.size:
            target.zero(source.size, target.size - source.size)
        target.commit()
    except BaseException:
        target.abort()
        raise
    report.duration_s = time.monotonic() - began
    pace.tell(source.size, report.bytes_read, force=True)
    return report


def _compare(source: SnapshotSource, target: ReadableTarget, leaf: Leaf) -> _Difference:
    """What of a leaf the target lacks; runs in a worker."""
    difference = _Difference(leaf.end)
    difference.bad = [
        Extent(offset, length, Kind.BAD)
        for offset, length, kind in zip(leaf.borders, leaf.lengths, leaf.kinds, strict=False)
        if kind == Piece.BAD
    ]
    for offset, length, has_bytes in _runs(leaf):
        if not has_bytes:
            difference.zeros.append((offset, length))
            continue
        present = bytearray(length)
        target.readinto(memoryview(present), offset)
        for start, size in source.differing(leaf, offset, memoryview(present)):
            data = memoryview(bytearray(size))
            source.readinto(data, start)
            place = start - offset
            difference.data.append((start, present[place : place + size], data))
    return difference


def _runs(leaf: Leaf) -> Iterator[tuple[int, int, bool]]:
    """Offset and length of runs of chunks, and of runs that read as zeros."""
    start = leaf.start
    for entry, border in enumerate(leaf.borders[1:]):
        has_bytes = leaf.kinds[entry] == Piece.DATA
        is_last = entry + 1 == len(leaf.kinds)
        if is_last or (leaf.kinds[entry + 1] == Piece.DATA) != has_bytes:
            yield start, border - start, has_bytes
            start = border
