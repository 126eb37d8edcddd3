"""Storages that record, fail and count what is done to them.

All of them wrap another storage and behave as it does, but for what they are there for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.buffers import copy_by_hand
from imprint.core.errors import ImagingError, ReadError, TargetError
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Iterator

    from imprint.core.contracts import Storage, Traits
    from imprint.core.extent import Extent

SECTOR_BYTES: Final = 512
"""What a disk writes as a whole even when the power fails; a torn write tears between these."""

Verb = Literal["read", "write", "zero", "resize", "flush", "commit"]
CHANGES: Final[frozenset[Verb]] = frozenset({"write", "zero", "resize", "flush", "commit"})


class WrappedStorage:
    """Another storage under the same contract; the base of those below."""

    def __init__(self, inner: Storage | None = None) -> None:
        """``inner`` is an empty :class:`MemoryStorage` if it is not given."""
        self.inner: Storage = MemoryStorage() if inner is None else inner

    @property
    def name(self) -> str:
        """Of the inner storage."""
        return self.inner.name

    @property
    def size(self) -> int:
        """Of the inner storage."""
        return self.inner.size

    @property
    def traits(self) -> Traits:
        """Of the inner storage."""
        return self.inner.traits

    @property
    def is_writable(self) -> bool:
        """Of the inner storage."""
        return self.inner.is_writable

    @property
    def stored_size(self) -> int:
        """Of the inner storage."""
        return self.inner.stored_size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Read from the inner storage."""
        self.inner.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the inner storage, so that reading them comes back here."""
        for extent in self.inner.extents(offset, length):
            yield extent if extent.storage is None else extent._replace(storage=self)

    def write(self, data: memoryview, offset: int) -> None:
        """Write to the inner storage."""
        self.inner.write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Zero in the inner storage."""
        self.inner.zero(offset, length)

    def resize(self, size: int) -> None:
        """Resize the inner storage."""
        self.inner.resize(size)

    def can_offload(self, source: Storage) -> bool:
        """Never: all bytes shall pass here."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """A read there and a write here."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Flush the inner storage."""
        self.inner.flush()

    def commit(self) -> None:
        """Commit the inner storage."""
        self.inner.commit()

    def abort(self) -> None:
        """Abort the inner storage."""
        self.inner.abort()

    def close(self) -> None:
        """Close the inner storage."""
        self.inner.close()


@dataclass(frozen=True)
class Operation:
    """Something that was done to a storage.

    Attributes:
        verb: what it was.
        offset: where, in bytes; 0 where that has no meaning.
        length: how many bytes; for ``resize`` the new size.
        data: what a ``write`` wrote.
    """

    verb: Verb
    offset: int = 0
    length: int = 0
    data: bytes = b""


class RecordingStorage(WrappedStorage):
    """Keeps every change, so that the power can be cut afterwards, at any point.

    ``operations[:n]`` is what was done when the power failed; of it, everything before the
    last flush is durable, and what came later may have reached the disk or not.
    """

    def __init__(self, content: bytes | bytearray = b"", *, name: str = "recorded") -> None:
        super().__init__(MemoryStorage(content, name=name))
        self._initial = bytes(content)
        self.operations: list[Operation] = []

    def write(self, data: memoryview, offset: int) -> None:
        """Write and remember."""
        self.operations.append(Operation("write", offset, len(data), bytes(data)))
        super().write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Zero and remember."""
        self.operations.append(Operation("zero", offset, length))
        super().zero(offset, length)

    def resize(self, size: int) -> None:
        """Resize and remember."""
        self.operations.append(Operation("resize", 0, size))
        super().resize(size)

    def flush(self) -> None:
        """Flush and remember."""
        self.operations.append(Operation("flush"))
        super().flush()

    def commit(self) -> None:
        """Commit and remember."""
        self.operations.append(Operation("commit"))
        super().commit()

    def replay(
        self, count: int, *, dropped: Collection[int] = (), torn_bytes: int | None = None
    ) -> MemoryStorage:
        """What a new storage holds after the first ``count`` operations.

        Args:
            count: of operations that were begun.
            dropped: indexes of operations that never reached the disk.
            torn_bytes: of the last operation, if it is a write, only so many bytes arrived.
        """
        storage = MemoryStorage(self._initial, name=self.name)
        for index, operation in enumerate(self.operations[:count]):
            if index not in dropped:
                limit = torn_bytes if index == count - 1 else None
                _apply(storage, operation, limit)
        return storage

    def unflushed(self, count: int) -> range:
        """Which of the first ``count`` operations were not durable yet."""
        start = count
        while start and self.operations[start - 1].verb not in ("flush", "commit"):
            start -= 1
        return range(start, count)

    def crashes(
        self, randomness: random.Random, *, variants: int = 2, start: int = 0
    ) -> Iterator[tuple[int, MemoryStorage]]:
        """What may be on the disk after the power fails, for every point of the recording.

        For each number of operations from ``start`` on: all of them arrived; none of the
        un-flushed ones did; of these only the last did; and ``variants``
        times a random part, the last one torn between two sectors. Yields that number, and
        the storage.
        """
        for count in range(start, len(self.operations) + 1):
            yield count, self.replay(count)
            loose = self.unflushed(count)
            if not loose:
                continue
            yield count, self.replay(count, dropped=loose)
            # What comes last overtakes the rest: tables that are written before their data.
            yield count, self.replay(count, dropped=loose[:-1])
            for _ in range(variants):
                dropped = {index for index in loose if randomness.random() < 0.5}
                last = self.operations[count - 1]
                tear = _torn_bytes(last.offset, randomness.randint(0, last.length))
                torn = tear if last.verb == "write" else None
                yield count, self.replay(count, dropped=dropped, torn_bytes=torn)


class FaultyStorage(WrappedStorage):
    """Fails when and where it is told to; all else works.

    Attributes:
        count: how many operations have counted so far.
        fail_at: the index of the next one that fails; may be changed at any time.
    """

    def __init__(
        self,
        inner: Storage | None = None,
        *,
        fail_at: int | None = None,
        lasting: bool = True,
        late: bool = False,
        verbs: Iterable[Verb] = ("read", *sorted(CHANGES)),
        code: int = errno.EIO,
        bad: Iterable[tuple[int, int]] = (),
        size_max: int | None = None,
    ) -> None:
        """Wrap ``inner``.

        Args:
            inner: the storage that does the work.
            fail_at: the index of the first operation that fails, counting those in ``verbs``.
            lasting: whether those behind it fail too, as on a dead disk.
            late: whether what fails has been done all the same, as when an answer is lost.
            verbs: which operations count and fail.
            code: the ``errno`` in the message: ``EIO``, ``ENOSPC`` …
            bad: ranges ``(offset, length)`` in which each of ``verbs`` fails.
            size_max: it cannot grow beyond this, as on a full file system.
        """
        super().__init__(inner)
        self.count = 0
        self.fail_at = fail_at
        self._lasting = lasting
        self._late = late
        self._verbs = frozenset(verbs)
        self._code = code
        self._bad = tuple(bad)
        self._size_max = size_max
        self._lock = threading.Lock()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Read, or fail."""
        self._pass("read", offset, len(buffer))
        super().readinto(buffer, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Write, or fail; a failing write may have written half, as real ones do."""
        self._grow(offset + len(data))
        try:
            self._pass("write", offset, len(data))
        except TargetError:
            arrived = len(data) if self._late else _torn_bytes(offset, len(data) // 2)
            super().write(data[:arrived], offset)
            raise
        super().write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Zero, or fail."""
        self._grow(offset + length)
        with self._failing("zero", offset, length):
            super().zero(offset, length)

    def resize(self, size: int) -> None:
        """Resize, or fail."""
        self._grow(size)
        with self._failing("resize", size, 0):
            super().resize(size)

    def flush(self) -> None:
        """Flush, or fail."""
        with self._failing("flush", 0, 0):
            super().flush()

    def commit(self) -> None:
        """Commit, or fail."""
        with self._failing("commit", 0, 0):
            super().commit()

    @contextmanager
    def _failing(self, verb: Verb, offset: int, length: int) -> Iterator[None]:
        """Fail before the operation, or behind it."""
        if not self._late:
            self._pass(verb, offset, length)
        yield
        if self._late:
            self._pass(verb, offset, length)

    def _pass(self, verb: Verb, offset: int, length: int) -> None:
        if verb not in self._verbs:
            return
        with self._lock:
            index = self.count
            self.count += 1
        if self.fail_at is not None:
            hit = index >= self.fail_at if self._lasting else index == self.fail_at
            if hit:
                raise self._error(verb, self._code, offset, length)
        for start, size in self._bad:
            if offset < start + size and start < offset + length:
                raise self._error(verb, self._code, offset, length)

    def _grow(self, end: int) -> None:
        if self._size_max is not None and end > max(self._size_max, self.size):
            raise self._error("write", errno.ENOSPC, end, 0)

    def _error(self, verb: Verb, code: int, offset: int, length: int) -> ImagingError:
        kind = ReadError if verb == "read" else TargetError
        message = f"cannot {verb} at 0x{offset:x}: {os.strerror(code).lower()}"
        return kind(message, name=self.name, offset=offset, length=length)


class CountingStorage(WrappedStorage):
    """Counts what is read.

    Attributes:
        reads: how often :meth:`readinto` was called.
        bytes_read: how many bytes it returned.
        ranges: what was read, as ``(offset, length)``, in order.
    """

    def __init__(self, inner: Storage | None = None) -> None:
        super().__init__(inner)
        self.reads = 0
        self.bytes_read = 0
        self.ranges: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Read and count."""
        super().readinto(buffer, offset)
        with self._lock:
            self.reads += 1
            self.bytes_read += len(buffer)
            self.ranges.append((offset, len(buffer)))


def is_unseen(storage: MemoryStorage, seen: set[bytes]) -> bool:
    """Whether a content is not in ``seen`` yet, where it is now.

    Many cuts leave the same behind, and a judge that is another program need not be asked twice.
    """
    digest = hashlib.sha256(storage.content).digest()
    is_new = digest not in seen
    seen.add(digest)
    return is_new


def _torn_bytes(offset: int, length: int) -> int:
    """How much of a write arrived if it tore about ``length`` bytes in: up to a sector's end."""
    return max(0, (offset + length) // SECTOR_BYTES * SECTOR_BYTES - offset)


def _apply(storage: MemoryStorage, operation: Operation, limit: int | None) -> None:
    """Do an operation again; ``limit`` cuts off a write."""
    if operation.verb == "write":
        storage.write(memoryview(operation.data[:limit]), operation.offset)
    elif operation.verb == "zero":
        storage.zero(operation.offset, operation.length)
    elif operation.verb == "resize":
        storage.resize(operation.length)
