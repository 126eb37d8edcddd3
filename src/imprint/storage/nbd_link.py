"""One connection to a server, on which many requests are under way.

It has no thread of its own: of those who wait for replies, one receives for all.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import fill_zero
from imprint.core.errors import ImagingError
from imprint.protocols.nbd.constants import ChunkType, Command
from imprint.protocols.nbd.options import malformed
from imprint.protocols.nbd.transmission import (
    CHUNK,
    SIMPLE_REPLY,
    Failure,
    Request,
    parse_chunk,
    parse_error,
    parse_hole,
    parse_reply,
    parse_status,
)

if TYPE_CHECKING:
    from imprint.core.channel import Channel
    from imprint.protocols.nbd.asking import Opened
    from imprint.protocols.nbd.transmission import Chunk

_SIMPLE_START: Final = 0x67
"""First byte of a simple reply; that of a part of a structured one is 0x66, as is the second."""

_SLOW: Final = (Command.FLUSH, Command.TRIM, Command.WRITE_ZEROES)
"""May take as long as the server's disk likes."""

_OFFSET_BYTES: Final = 8
_HOLE_BYTES: Final = 12


class Pending:
    """A request that was sent.

    Attributes:
        request: as it was sent.
        view: where the data goes that was asked for.
        failure: what the server says is wrong.
        runs: lengths and flags, of block status.
    """

    __slots__ = ("broken", "failure", "filled", "is_done", "request", "runs", "view")

    def __init__(self, request: Request, view: memoryview | None) -> None:
        self.request = request
        self.view = view
        self.failure: Failure | None = None
        self.runs: list[tuple[int, int]] = []
        self.filled = 0
        self.is_done = False
        self.broken: Exception | None = None

    def has_ended(self) -> bool:
        """Whether its reply is here, or never will be; another thread may see to that."""
        return self.is_done

    def overlaps(self, offset: int, length: int) -> bool:
        """Whether it is about a part of the same range."""
        request = self.request
        return request.offset < offset + length and offset < request.offset + request.length


class Link:
    """Sends requests and finds their replies; for any number of threads."""

    def __init__(self, channel: Channel, opened: Opened) -> None:
        """Takes over a connection on which transmission has begun."""
        self._channel = channel
        self.opened = opened
        self._turn = threading.Condition()
        self._is_receiving = False
        self._pending: dict[int, Pending] = {}
        self._cookie = 0
        self._broken: BaseException | None = None

    @property
    def failure(self) -> BaseException | None:
        """Why it is of no use any more; ``None``: it is."""
        return self._broken

    @property
    def busy(self) -> int:
        """Requests that are under way."""
        return len(self._pending)

    def start(
        self,
        command: Command,
        offset: int,
        length: int,
        *,
        data: memoryview | None = None,
        view: memoryview | None = None,
    ) -> Pending:
        """Send a request; ``data`` may be used again when this returns, ``view`` may not.

        Raises:
            OSError: if the connection is broken.
        """
        with self._turn:
            if self._broken is not None:
                raise ConnectionError(str(self._broken)) from self._broken
            self._cookie += 1
            pending = Pending(Request(0, command, self._cookie, offset, length), view)
            self._pending[self._cookie] = pending
        head = pending.request.pack()
        try:
            if data is None:
                self._channel.send(head)
            else:
                self._channel.send(head, data)
        except BaseException as failure:
            # Whoever receives finds the end, and tells the others: it may be in their buffers.
            with self._turn:
                self._broken = failure
                self._pending.pop(pending.request.cookie, None)
            self._channel.break_off()
            raise
        return pending

    def wait(self, pending: Pending) -> None:
        """Wait until its reply is here.

        Raises:
            OSError: if the connection breaks before.
            NetworkError: if the server does not keep to the protocol.
        """
        while not pending.has_ended():
            with self._turn:
                self._turn.wait_for(lambda: pending.is_done or not self._is_receiving)
                if pending.has_ended():
                    break
                self._is_receiving = True
            try:
                while not pending.has_ended():
                    self._receive()
            except (OSError, ImagingError) as failure:
                self._break(failure)
            except BaseException as failure:
                self._break(failure)  # in the middle of a message
                raise
            finally:
                with self._turn:
                    self._is_receiving = False
                    self._turn.notify_all()
        if pending.broken is not None:
            raise pending.broken

    def close(self) -> None:
        """Say goodbye if there is still somebody, and close."""
        if self._broken is None:
            self._broken = ConnectionError("closed")
            with contextlib.suppress(OSError):
                self._channel.send(Request(0, Command.DISC, 0).pack())
        self._channel.close()

    def _break(self, failure: BaseException) -> None:
        """No reply comes any more, for nobody."""
        with self._turn:
            self._broken = self._broken if self._broken is not None else failure
            for pending in self._pending.values():
                pending.broken, pending.is_done = ConnectionError(str(failure)), True
                if isinstance(failure, ImagingError):
                    pending.broken = failure
            self._pending.clear()
            self._turn.notify_all()
        self._channel.break_off()

    def _receive(self) -> None:
        """One message."""
        is_slow = any(item.request.command in _SLOW for item in list(self._pending.values()))
        head = self._channel.receive(SIMPLE_REPLY.size, is_idle=is_slow)
        if head[0] == _SIMPLE_START:
            error, cookie = parse_reply(head)
            pending = self._find(cookie)
            if error:
                pending.failure = Failure(error)
            elif pending.view is not None:
                if self.opened.is_structured:
                    raise malformed("a simple reply with data")
                self._channel.receive_into(pending.view)
                pending.filled = len(pending.view)
            self._finish(pending)
            return
        chunk = parse_chunk(head + self._channel.receive(CHUNK.size - len(head)))
        pending = self._find(chunk.cookie)
        if chunk.length:
            self._take(chunk, pending)
        if chunk.is_last:
            self._finish(pending)

    def _take(self, chunk: Chunk, pending: Pending) -> None:
        """The payload of a part of a reply."""
        if chunk.is_error:
            pending.failure = parse_error(chunk.kind, self._receive_all(chunk.length))
        elif chunk.kind == ChunkType.OFFSET_DATA and chunk.length > _OFFSET_BYTES:
            offset = int.from_bytes(self._channel.receive(_OFFSET_BYTES))
            view = self._part(pending, offset, chunk.length - _OFFSET_BYTES)
            self._channel.receive_into(view)
        elif chunk.kind == ChunkType.OFFSET_HOLE and chunk.length == _HOLE_BYTES:
            fill_zero(self._part(pending, *parse_hole(self._channel.receive(_HOLE_BYTES))))
        elif chunk.kind == ChunkType.BLOCK_STATUS and (
            pending.request.command == Command.BLOCK_STATUS
        ):
            context, runs = parse_status(self._receive_all(chunk.length))
            if context == self.opened.context:
                pending.runs = runs
        else:
            raise malformed(f"found a part of a reply of type {chunk.kind}, {chunk.length} bytes")

    def _receive_all(self, length: int) -> bytes:
        payload = bytearray(length)
        self._channel.receive_into(memoryview(payload))
        return bytes(payload)

    def _part(self, pending: Pending, offset: int, length: int) -> memoryview:
        """Where bytes go; only inside of what was asked for."""
        start = offset - pending.request.offset
        pending.filled += length
        if pending.view is None or start < 0 or pending.filled > len(pending.view) or not length:
            raise malformed("data that was not asked for")
        view = pending.view[start : start + length]
        if len(view) != length:
            raise malformed("data that was not asked for")
        return view

    def _find(self, cookie: int) -> Pending:
        pending = self._pending.get(cookie)
        if pending is None:
            raise malformed("a reply to nothing")
        return pending

    def _finish(self, pending: Pending) -> None:
        if pending.failure is None and pending.view is not None:
            if pending.filled != len(pending.view):
                raise malformed("less data than was asked for")
        elif pending.request.command == Command.BLOCK_STATUS and not (
            pending.failure or pending.runs
        ):
            raise malformed("no block status")
        with self._turn:
            self._pending.pop(pending.request.cookie, None)
            pending.is_done = True
            self._turn.notify_all()
