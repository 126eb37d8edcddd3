"""Hashes of many files of a volume by one pass over it, in the order of their places.

What lies close together is read at once. Files that lie in one piece, most of them, are hashed by
workers, where they were read; others are fed, part by part, to hashers that stay open. Where
that would be too many, or a file lies backwards, it is read by itself when the pass is over.
"""

from __future__ import annotations

from array import array
from collections import deque
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.cancel import CancelToken
from imprint.endpoints.report.gathering import DAMAGED, HOLE
from imprint.endpoints.report.results import WANTED
from imprint.filesystems.contents import Run, mapped
from imprint.transfer.hashing import HashSet
from imprint.transfer.pace import Pace
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.core.events import OnEvent
    from imprint.endpoints.report.results import Results

WINDOW_BYTES: Final = 2 << 20
"""Read at once."""

GAP_BYTES: Final = 64 << 10
"""Between two files: reading it costs less than another read."""

_HOLE_BYTES: Final = 64 << 20
"""Of zeros that are hashed before somebody looks whether to stop."""

OPEN_MAX: Final = 256
"""Files that are begun and not ended."""

_APART_MAX: Final = 4
"""Of these, those whose hashes have threads of their own."""


class _Task(NamedTuple):
    """A range of the volume, and what of it belongs to whom: ``(file, start in it, length)``."""

    start: int
    length: int
    wholes: list[tuple[int, int, int]]
    pieces: list[tuple[int, int, int]]


class _Read(NamedTuple):
    """What a worker has made of a task: rows of its wholes, and failures by file."""

    task: _Task
    buffer: bytearray
    rows: list[bytes]
    failures: dict[int, str]


class Sweep:
    """The files of a batch that are to be hashed."""

    def __init__(self, volume: Source, results: Results, *, workers: int) -> None:
        self._volume = volume
        self._results = results
        self._workers = workers
        self._starts = array("Q")
        self._lengths = array("Q")
        self._owners = array("I")
        self._multi: dict[int, list[tuple[int, int]]] = {}
        self._alone: list[tuple[int, Source]] = []
        self._aside: set[int] = set()
        self._open: dict[int, _Open] = {}
        self._apart = 0
        self._free: deque[bytearray] = deque()
        self._total = 0
        self._cancel = CancelToken()
        self.bytes_read = 0

    def add_plain(self, number: int, start: int, size: int) -> None:
        """A file that lies in one piece of the volume."""
        self._starts.append(start)
        self._lengths.append(size)
        self._owners.append(number)
        self._total += size
        if size > WINDOW_BYTES:
            self._multi[number] = [(start, size)]

    def add_parts(self, number: int, parts: list[tuple[int, int]]) -> None:
        """A file of several parts: ``(start, length)``, or a hole, in its order."""
        places = [part for part in parts if part[0] != HOLE]
        size = sum(length for _, length in parts)
        if len(parts) == 1 and places:
            self.add_plain(number, *parts[0])
        elif not places or not _is_forward(places):
            self._put_aside(number, parts, size)
            self._total += size
        else:
            self._total += size
            self._multi[number] = parts
            for start, length in parts:
                if start != HOLE:
                    self._starts.append(start)
                    self._lengths.append(length)
                    self._owners.append(number)

    def add_content(self, number: int, content: Source) -> None:
        """A file that is read by itself."""
        self._alone.append((number, content))
        self._total += content.size

    def run(self, on_event: OnEvent, cancel: CancelToken) -> None:
        """Hash all that is still wanted.

        Raises:
            Cancelled: if ``cancel`` was set.
        """
        self._cancel = cancel
        wanted = self._results.states.count(WANTED)
        pace = Pace(self._total, f"hash {wanted} files", on_event)
        done = 0
        window = 2 * self._workers
        reads = windowed(self._work, self._tasks(), workers=self._workers, window=window)
        try:
            for read in reads:
                cancel.check()
                self._take(read)
                self.bytes_read += read.task.length
                done += sum(length for _, _, length in read.task.wholes)
                done += sum(length for _, _, length in read.task.pieces)
                pace.tell(done, self.bytes_read)
        finally:
            reads.close()
            for owner in list(self._open):
                self._drop(owner)
        self._read_alone()
        pace.tell(self._total, self.bytes_read, force=True)

    def _tasks(self) -> Iterator[_Task]:
        starts, lengths, owners, multi = self._starts, self._lengths, self._owners, self._multi
        states = self._results.states
        base = end = 0
        wholes: list[tuple[int, int, int]] = []
        pieces: list[tuple[int, int, int]] = []
        for index in sorted(range(len(starts)), key=starts.__getitem__):
            owner, start, length = owners[index], starts[index], lengths[index]
            if states[owner] != WANTED or owner in self._aside:
                continue
            is_apart = not base <= start <= end + GAP_BYTES
            if is_apart or max(end, start + length) - base > WINDOW_BYTES:
                if wholes or pieces:
                    yield _Task(base, end - base, wholes, pieces)
                    wholes, pieces = [], []
                base = end = start
            if owner not in multi:
                wholes.append((owner, start - base, length))
                end = max(end, start + length)
                continue
            while length > WINDOW_BYTES:
                yield _Task(start, WINDOW_BYTES, [], [(owner, 0, WINDOW_BYTES)])
                start += WINDOW_BYTES
                length -= WINDOW_BYTES
                base = end = start
            pieces.append((owner, start - base, length))
            end = max(end, start + length)
        if wholes or pieces:
            yield _Task(base, end - base, wholes, pieces)

    def _work(self, task: _Task) -> _Read:
        buffer = self._free.pop() if self._free else bytearray(WINDOW_BYTES)
        view = memoryview(buffer)[: task.length]
        digest = self._results.digest
        try:
            self._volume.readinto(view, task.start)
        except DAMAGED:
            return self._one_by_one(task, buffer)
        rows = [digest(view[at : at + length]) for _, at, length in task.wholes]
        return _Read(task, buffer, rows, {})

    def _one_by_one(self, task: _Task, buffer: bytearray) -> _Read:
        """What can be read of a range that has bad areas."""
        view = memoryview(buffer)
        rows: list[bytes] = []
        failures: dict[int, str] = {}
        for owner, at, length in (*task.wholes, *task.pieces):
            part = view[at : at + length]
            row = b""
            try:
                self._volume.readinto(part, task.start + at)
                row = self._results.digest(part) if len(rows) < len(task.wholes) else b""
            except DAMAGED as failure:
                failures[owner] = str(failure.args[0])
            rows.append(row)
        return _Read(task, buffer, rows[: len(task.wholes)], failures)

    def _take(self, read: _Read) -> None:
        task, results = read.task, self._results
        for owner, why in read.failures.items():
            results.fail(owner, why)
            self._drop(owner)
        for (owner, _, _), row in zip(task.wholes, read.rows, strict=True):
            if row:
                results.store(owner, row)
        if not task.pieces:
            self._free.append(read.buffer)
            return
        lease = _Lease(read.buffer, self._free, len(task.pieces))
        view = memoryview(read.buffer)
        for owner, at, length in task.pieces:
            opened = self._opened(owner)
            if opened is None:
                lease.release()
                continue
            opened.feed(view[at : at + length], lease)
            if opened.is_whole:
                self._end(opened)

    def _opened(self, owner: int) -> _Open | None:
        """The hashers of a file that was begun, or is begun now, if it is not read by itself."""
        found = self._open.get(owner)
        if found is not None or self._results.states[owner] != WANTED or owner in self._aside:
            return found
        parts = self._multi[owner]
        size = sum(length for _, length in parts)
        if len(self._open) >= OPEN_MAX:
            self._aside.add(owner)
            self._put_aside(owner, parts, size)
            return None
        hashes = HashSet(self._results.names)
        hashes.is_apart = self._apart < _APART_MAX and size > WINDOW_BYTES
        self._apart += hashes.is_apart
        found = self._open[owner] = _Open(owner, hashes, parts, self._cancel)
        return found

    def _end(self, opened: _Open) -> None:
        """A file whose last part has come."""
        digests = opened.digests()
        self._drop(opened.owner)
        self._results.store(opened.owner, digests)

    def _drop(self, owner: int) -> None:
        opened = self._open.pop(owner, None)
        if opened is not None:
            self._apart -= opened.hashes.is_apart
            opened.hashes.close()

    def _put_aside(self, owner: int, parts: list[tuple[int, int]], size: int) -> None:
        """A file of parts is to be read by itself, in the end."""
        position, runs = 0, []
        for start, length in parts:
            if start != HOLE:
                runs.append(Run(position, start, length))
            position += length
        try:
            content = mapped(self._volume, runs, size, name=self._volume.name)
        except DAMAGED as failure:
            self._results.fail(owner, str(failure.args[0]))
        else:
            self._alone.append((owner, content))

    def _read_alone(self) -> None:
        wanted = (item for item in self._alone if self._results.states[item[0]] == WANTED)
        with closing(
            windowed(self._hash_alone, wanted, workers=self._workers, window=2 * self._workers)
        ) as found:
            for owner, size, row, why in found:
                if row is None:
                    self._results.fail(owner, why)
                else:
                    self._results.store(owner, row)
                self.bytes_read += size

    def _hash_alone(self, item: tuple[int, Source]) -> tuple[int, int, bytes | None, str]:
        owner, content = item
        hashers = [make() for make in self._results.makers]
        buffer = memoryview(bytearray(min(WINDOW_BYTES, max(content.size, 1))))
        try:
            for offset in range(0, content.size, WINDOW_BYTES):
                self._cancel.check()
                part = buffer[: min(WINDOW_BYTES, content.size - offset)]
                content.readinto(part, offset)
                for hasher in hashers:
                    hasher.update(part)
        except DAMAGED as failure:
            return owner, content.size, None, str(failure.args[0])
        return owner, content.size, b"".join([hasher.digest() for hasher in hashers]), ""


def _is_forward(parts: list[tuple[int, int]]) -> bool:
    """Whether each part lies behind the one before it."""
    return all(start + length <= following for (start, length), (following, _) in pairwise(parts))


class _Lease:
    """A buffer that several files have parts in; free again when all are done with it."""

    def __init__(self, buffer: bytearray, free: deque[bytearray], count: int) -> None:
        self._buffer = buffer
        self._free = free
        self._count = count

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            self._free.append(self._buffer)


class _Open:
    """A file that is begun."""

    def __init__(
        self,
        owner: int,
        hashes: HashSet,
        parts: list[tuple[int, int]],
        cancel: CancelToken,
    ) -> None:
        self.owner = owner
        self._cancel = cancel
        self.hashes = hashes
        self._parts = parts
        self._next = 0
        self._done = 0
        self._skip_holes()

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing behind what was fed."""
        return self._next == len(self._parts)

    def feed(self, data: memoryview, lease: _Lease) -> None:
        """The next bytes."""
        self.hashes.feed(data, len(data), lease.release)
        self._done += len(data)
        if self._done == self._parts[self._next][1]:
            self._next += 1
            self._done = 0
            self._skip_holes()

    def digests(self) -> bytes:
        """All digests, one behind the other."""
        return bytes.fromhex("".join(self.hashes.digests().values()))

    def _skip_holes(self) -> None:
        while self._next < len(self._parts) and self._parts[self._next][0] == HOLE:
            length = self._parts[self._next][1]
            for done in range(0, length, _HOLE_BYTES):
                self._cancel.check()
                self.hashes.feed(None, min(_HOLE_BYTES, length - done))
            self._next += 1
