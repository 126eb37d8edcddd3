"""A stream of known size as a source, without a copy of it."""

from __future__ import annotations

import os
import select
import threading
from typing import Final

from imprint.core.contracts import Order, Traits
from imprint.core.errors import ReadError, TruncatedImageError
from imprint.core.units import MIB
from imprint.filters.readonly import ReadOnlyStorage

BACKLOG_BYTES: Final = 64 * MIB
"""How far a reader of a stream may run ahead of another: twice the window of 16 workers."""


class SequentialSource(ReadOnlyStorage):
    """A stream of known size, read once; a :class:`~imprint.core.contracts.Storage`.

    Each byte can be read one time. Threads may run ahead of each other: what one of them has
    to skip is kept for the others, up to a bound, beyond which the oldest is forgotten.
    """

    def __init__(
        self, fd: int, size: int, *, name: str, backlog_bytes: int = BACKLOG_BYTES
    ) -> None:
        """Borrows ``fd``: it stays open."""
        self._fd = fd
        self._size = size
        self._name = name
        self._position = 0
        self._backlog = _Backlog(backlog_bytes)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """As given; what follows in the stream is left unread."""
        return self._size

    @property
    def traits(self) -> Traits:
        """Wants to be read in ascending order."""
        return Traits(order=Order.ASCENDING)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            ReadError: if any of it was read before, or forgotten.
            TruncatedImageError: if the stream ends too early.
        """
        end = offset + len(buffer)
        if end > self._size:
            raise TruncatedImageError(
                f"expected {len(buffer)} bytes at 0x{offset:x}, found a size of {self._size}",
                name=self._name,
                offset=offset,
                length=len(buffer),
            )
        with self._lock:
            while self._position < offset:
                piece = memoryview(bytearray(min(MIB, offset - self._position)))
                start = self._position
                self._receive(piece)
                self._backlog.put(piece, start)
            kept = buffer[: self._position - offset]
            if not self._backlog.take(kept, offset):
                raise ReadError(
                    f"the bytes at 0x{offset:x} are gone: a stream can be read only once",
                    name=self._name,
                    offset=offset,
                    length=len(kept),
                )
            self._receive(buffer[len(kept) :])

    def close(self) -> None:
        """Nothing: the descriptor is borrowed."""

    def _receive(self, view: memoryview) -> None:
        """Fill ``view`` with what comes next."""
        done = 0
        while done < len(view):
            count = read_some(self._fd, view[done:], self._name)
            if count == 0:
                raise TruncatedImageError(
                    f"expected {self._size} bytes, found {self._position}",
                    name=self._name,
                    offset=self._position,
                )
            done += count
            self._position += count


def read_some(fd: int, buffer: memoryview, name: str) -> int:
    """Wait for some bytes; 0 at the end of the stream."""
    while True:
        try:
            return os.readv(fd, [buffer])
        except BlockingIOError:  # whoever shares the pipe has made it so
            wait_ready(fd, select.POLLIN)
        except OSError as failure:
            reason = (failure.strerror or str(failure)).lower()
            raise ReadError(f"cannot read: {reason}", name=name) from failure


def wait_ready(fd: int, events: int, timeout_ms: int | None = None) -> bool:
    """Wait until ``fd`` is ready; ``False`` if it still is not after the time."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout_ms))


class _Backlog:
    """Bytes that came before they were asked for, ascending."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._pieces: list[tuple[int, memoryview]] = []

    def put(self, piece: memoryview, offset: int) -> None:
        """Keep a piece; it lies behind all others."""
        self._pieces.append((offset, piece))
        self._bytes += len(piece)
        while self._bytes > self._bytes_max:
            self._bytes -= len(self._pieces.pop(0)[1])

    def take(self, view: memoryview, offset: int) -> bool:
        """Move bytes into ``view``; ``False`` if not all of them are here."""
        end, found = offset + len(view), 0
        rest: list[tuple[int, memoryview]] = []
        for start, piece in self._pieces:
            first = min(max(start, offset), start + len(piece))
            last = max(min(start + len(piece), end), first)
            if first < last:
                view[first - offset : last - offset] = piece[first - start : last - start]
            found += last - first
            parts = ((start, piece[: first - start]), (last, piece[last - start :]))
            rest += [part for part in parts if len(part[1])]
        self._pieces = rest
        self._bytes -= found
        return found == len(view)
