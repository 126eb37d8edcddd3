"""Exports of NBD servers: read by ranges with many requests under way, or overwritten."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from imprint.core.buffers import ZEROS, copy_by_hand
from imprint.core.contracts import Traits
from imprint.core.errors import (
    ImagingError,
    NetworkError,
    ReadError,
    RefusedError,
    TargetError,
    TargetTooSmallError,
    TruncatedImageError,
)
from imprint.core.extent import Extent, Kind, coalesce
from imprint.core.units import GIB, KIB, MIB, align_down, align_up
from imprint.protocols.nbd.constants import Command, Errno, Feature, State
from imprint.storage.nbd_address import Address
from imprint.storage.nbd_links import Links, NbdPolicy
from imprint.storage.nbd_status import StatusCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.storage.nbd_link import Link, Pending

_PIECE_BYTES: Final = 512 * KIB  # of one request: two of them are under way for each span
_WRITES_MAX: Final = 8  # that wait for their replies
_ZERO_BYTES: Final = 128 * MIB
_STATUS_BYTES: Final = 1 * GIB
_KINDS: Final = {
    State.HOLE | State.ZERO: Kind.HOLE,
    State.ZERO: Kind.ZERO,
}
_WRONG: Final = {
    Errno.EPERM: "operation not permitted",
    Errno.EIO: "input/output error",
    Errno.ENOMEM: "cannot allocate memory",
    Errno.EINVAL: "invalid argument",
    Errno.ENOSPC: "no space left on device",
    Errno.EOVERFLOW: "value too large",
    Errno.ENOTSUP: "operation not supported",
    Errno.ESHUTDOWN: "the server is shutting down",
}


class NbdStorage:
    """An export, read from many threads, or written by one.

    What a read needs is asked for again on a new connection if one breaks. A write is not: what
    was written before and not flushed may be lost with the server.
    """

    def __init__(
        self, address: Address, policy: NbdPolicy | None = None, *, is_writable: bool = False
    ) -> None:
        """Connects; use :meth:`open`."""
        self._address = address
        self._is_writable = is_writable
        self._writes: deque[tuple[Link, Pending]] = deque()
        self._is_changed = False
        self._is_closed = False
        self._known = StatusCache()
        self._links = Links(address, policy or NbdPolicy(), is_writable=is_writable)
        self._offer = self._links.opened.offer

    @classmethod
    def open(cls, url: str, *, writable: bool = False, policy: NbdPolicy | None = None) -> Self:
        """Find the export.

        Raises:
            UsageError: if ``url`` is none of NBD.
            NetworkError: if the server does not answer, or has no such export.
            TargetError: if it shall be written and must not be.
        """
        storage = cls(Address.parse(url), policy, is_writable=writable)
        if writable and storage._offer.features & Feature.READ_ONLY:
            storage.close()
            raise TargetError("the export is read-only", name=storage.name)
        return storage

    @property
    def name(self) -> str:
        """The URL."""
        return self._address.name

    @property
    def size(self) -> int:
        """Of the export, in bytes."""
        return self._offer.size

    @property
    def is_writable(self) -> bool:
        """As it was opened."""
        return self._is_writable

    @property
    def stored_size(self) -> int:
        """As far as can be known: all of it."""
        return self.size

    @property
    def traits(self) -> Traits:
        """As the server describes it."""
        blocks = self._offer.blocks
        grain = max(4 * KIB, blocks.minimum)
        if blocks.preferred & (blocks.preferred - 1) == 0:
            grain = max(grain, min(blocks.preferred, 1 * MIB))
        smallest = max(512, blocks.minimum)
        return Traits(grain=grain, logical_sector=smallest, physical_sector=smallest)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            ReadError: if the server cannot read it.
            NetworkError: if the server fails, again and again.
        """
        length = len(buffer)
        if offset + length > self.size:
            raise TruncatedImageError(
                f"expected {length} bytes at 0x{offset:x}, found a size of {self.size}",
                name=self.name,
                offset=offset,
                length=length,
            )
        self._settle()
        unit = self._offer.blocks.minimum
        start, end = align_down(offset, unit), min(align_up(offset + length, unit), self.size)
        if (start, end) == (offset, offset + length):
            self._read(buffer, offset)
        elif length:
            whole = memoryview(bytearray(end - start))
            self._read(whole, start)
            buffer[:] = whole[offset - start : offset - start + length]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the server says: data, zeros and holes; all data if it says nothing."""
        return coalesce(self._extents(offset, length))

    def write(self, data: memoryview, offset: int) -> None:
        """Send ``data``; whether it was stored is known after :meth:`flush`, or a later call.

        Raises:
            TargetTooSmallError: if it does not fit.
            TargetError: if the server could not store this or something before.
            NetworkError: if the server fails.
        """
        self._check_fits(offset, len(data))
        unit = self._offer.blocks.minimum
        start, end = align_down(offset, unit), min(align_up(offset + len(data), unit), self.size)
        if (start, end) != (offset, offset + len(data)):
            whole = memoryview(bytearray(end - start))
            self.readinto(whole, start)
            whole[offset - start : offset - start + len(data)] = data
            data, offset = whole, start
        step = min(4 * MIB, self._offer.blocks.maximum)
        for at in range(0, len(data), align_down(step, unit)):
            self._store(Command.WRITE, offset + at, data[at : at + align_down(step, unit)])

    def zero(self, offset: int, length: int) -> None:
        """Let the server make zeros; where it does not offer that, send them.

        Raises:
            TargetTooSmallError: if it does not fit.
            TargetError: if the server could not do this or something before.
            NetworkError: if the server fails.
        """
        self._check_fits(offset, length)
        end, unit = offset + length, self._offer.blocks.minimum
        first = last = end
        if self._offer.features & Feature.WRITE_ZEROES:
            first = min(align_up(offset, unit), end)
            last = max(align_down(end, unit), first)
        self._write_zeros(offset, first)
        for start in range(first, last, _ZERO_BYTES):
            self._store(Command.WRITE_ZEROES, start, None, min(_ZERO_BYTES, last - start))
        self._write_zeros(last, end)

    def resize(self, size: int) -> None:
        """Nothing, if it is the size that the export has.

        Raises:
            TargetTooSmallError: if the export is smaller.
            RefusedError: if it is larger: it cannot be cut off.
        """
        self._check_fits(0, size)
        if size < self.size:
            raise RefusedError(f"an export keeps its {self.size} bytes", name=self.name)

    def can_offload(self, source: Storage) -> bool:
        """Never."""
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read and write."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Wait until all that was written is on the server's medium.

        Raises:
            TargetError: if the server could not store something.
            NetworkError: if the server fails.
        """
        self._settle()
        if self._is_changed and self._offer.features & Feature.FLUSH:
            self._store(Command.FLUSH, 0, None)
            self._settle()

    def commit(self) -> None:
        """Flush, and say goodbye."""
        if not self._is_closed:
            self.flush()
            self.close()

    def abort(self) -> None:
        """Say goodbye; what was written stays."""
        with contextlib.suppress(ImagingError):
            self._settle()
        self.close()

    def close(self) -> None:
        """Close the connections. Calling again changes nothing."""
        self._is_closed = True
        self._links.close()

    def _read(self, buffer: memoryview, offset: int) -> None:
        """Read whole units, going on with what is missing where a connection broke."""
        blocks = self._offer.blocks
        step = align_down(min(_PIECE_BYTES, blocks.maximum), blocks.minimum)
        missing = [(at, buffer[at : at + step]) for at in range(0, len(buffer), step)]
        for link in self._links.attempts(f"read at 0x{offset:x}"):
            missing = self._read_on(link, missing, offset)
            if not missing:
                return

    def _read_on(
        self, link: Link, missing: list[tuple[int, memoryview]], offset: int
    ) -> list[tuple[int, memoryview]]:
        """Read pieces on one connection; those that it could not get, since it broke.

        Raises:
            ReadError: if the server says that one cannot be read.
        """
        asked: list[tuple[int, memoryview, Pending]] = []
        left: list[tuple[int, memoryview]] = []
        for at, view in missing:
            try:
                pending = link.start(Command.READ, offset + at, len(view), view=view)
                asked.append((at, view, pending))
            except OSError:
                left.append((at, view))
        failed: Pending | None = None
        for at, view, pending in asked:
            try:
                link.wait(pending)
            except OSError:
                left.append((at, view))
            else:
                failed = failed or (pending if pending.failure else None)
        if failed is not None:
            raise self._refused(failed)
        return left

    def _refused(self, pending: Pending) -> ImagingError:
        """The error of what the server could not do."""
        request, failure = pending.request, pending.failure
        assert failure is not None
        said = _WRONG.get(failure.number, f"error {failure.number}")  # type: ignore[call-overload]
        if failure.message:
            said = f"{said} ({failure.message:.200})"
        if failure.number == Errno.ESHUTDOWN:
            return NetworkError(said, name=self.name)
        kind: type[ImagingError] = TargetError
        what = "write"
        if request.command in (Command.READ, Command.BLOCK_STATUS):
            kind, what = ReadError, "read"
        return kind(
            f"cannot {what} at 0x{request.offset:x}: {said}",
            name=self.name,
            offset=request.offset,
            length=request.length,
        )

    def _store(
        self, command: Command, offset: int, data: memoryview | None, length: int = 0
    ) -> None:
        """Send what changes the export; waits only for what went before and has to be first."""
        length = length if data is None else len(data)
        end = offset + length
        if any(
            pending.request.offset < end
            and offset < pending.request.offset + pending.request.length
            for _, pending in self._writes
        ):
            self._settle()
        while len(self._writes) >= _WRITES_MAX:
            self._settle_one()
        link = self._links.take()
        self._is_changed = True
        # A new connection would not know what was written and is not durable.
        self._links.may_reconnect = False
        self._known.forget()
        try:
            self._writes.append((link, link.start(command, offset, length, data=data)))
        except OSError as failure:
            raise self._broken(failure) from failure

    def _settle(self) -> None:
        """Wait for all replies that are due."""
        while self._writes:
            self._settle_one()

    def _settle_one(self) -> None:
        link, pending = self._writes.popleft()
        try:
            link.wait(pending)
        except OSError as failure:
            raise self._broken(failure) from failure
        if pending.failure is not None:
            raise self._refused(pending)

    def _broken(self, failure: OSError) -> NetworkError:
        return NetworkError(f"the connection broke: {failure}", name=self.name)

    def _write_zeros(self, start: int, end: int) -> None:
        for at in range(start, end, len(ZEROS)):
            self.write(memoryview(ZEROS)[: end - at], at)

    def _check_fits(self, offset: int, length: int) -> None:
        if not self._is_writable:
            raise RefusedError("is being read and cannot be written", name=self.name)
        if offset + length > self.size:
            raise TargetTooSmallError(
                f"has {self.size} bytes, {offset + length} are needed",
                name=self.name,
                offset=offset,
                length=length,
            )

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        position, end = offset, offset + length
        while position < end:
            stop, flags = end, 0
            if self._links.opened.context is not None:
                stop, flags = self._status(position)
            stop = min(stop, end)
            kind = _KINDS.get(State(flags & 3), Kind.DATA)
            if kind is Kind.DATA:
                yield Extent(position, stop - position, kind, self, position)
            else:
                yield Extent(position, stop - position, kind)
            position = stop

    def _status(self, offset: int) -> tuple[int, int]:
        """Where the run around ``offset`` ends, and its flags."""
        found = self._known.at(offset)
        if found is not None:
            return found
        self._settle()
        start = align_down(offset, self._offer.blocks.minimum)
        length = min(_STATUS_BYTES, self.size - start)
        for link in self._links.attempts(f"ask what is at 0x{offset:x}"):
            try:
                pending = link.start(Command.BLOCK_STATUS, start, length)
                link.wait(pending)
            except OSError:
                continue
            if pending.failure is not None:
                return start + length, 0  # it is a hint: a server need not know
            return self._known.learn(start, pending.runs, self.size, offset)
        raise AssertionError
