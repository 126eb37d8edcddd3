"""A connection that is read exactly, written whole, and does not wait for ever; with TLS or not.

The socket blocks; how long a call may block is set in the kernel (``SO_RCVTIMEO``), since the
time limits of Python's sockets cost a system call more for each read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import HasDescriptor

_BUFFER_BYTES: Final = 64 * KIB
_RECORDS_BYTES: Final = 256 * KIB  # encrypted at a time
_RATE_MIN: Final = 64 * KIB  # bytes a second: who sends a message more slowly holds us up
_KEEPALIVE_S: Final = 60

_LOST: Final = (ConnectionError, TimeoutError)


class SourceFailedError(OSError):
    """What was to be sent could not be read; so much of it was sent before.

    Attributes:
        sent: bytes.
    """

    def __init__(self, failure: OSError, sent: int) -> None:
        super().__init__(failure.errno, failure.strerror)
        self.sent = sent


class Channel:
    """One thread receives, any may send."""

    def __init__(self, connected: socket.socket, *, timeout_s: float) -> None:
        """Takes over a socket; no message that has begun may pause for longer than the timeout."""
        connected.settimeout(None)
        self._socket = connected
        self._timeout_s = timeout_s
        self._waits_s: float | None = None
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._sending = threading.Lock()
        self._tls: _Tls | None = None
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        _set_limit(connected, socket.SO_SNDTIMEO, timeout_s)

    @property
    def is_secure(self) -> bool:
        """Whether TLS has begun."""
        return self._tls is not None

    def has(self, length: int) -> bool:
        """Whether so many bytes are here already."""
        return self._end - self._start >= length

    def secure(self, context: ssl.SSLContext, *, server_name: str | None, is_server: bool) -> None:
        """Begin TLS.

        Raises:
            OSError: if it fails, or the other side has sent something in the clear behind it.
        """
        if self._end > self._start:
            raise ConnectionError("data in the clear before the handshake of TLS")
        tls = _Tls(context, server_name=server_name, is_server=is_server)
        try:
            self._shake(tls)
        finally:
            self._send_raw(tls.outgoing())  # or why it has failed, which the other side may tell
        self._tls = tls

    def receive(self, length: int, *, is_idle: bool = False) -> bytes:
        """Exactly ``length`` bytes, of which there are few.

        Args:
            length: at most 64 KiB.
            is_idle: nothing need come for as long as the other side likes.

        Raises:
            ConnectionError: if the connection ends before.
            TimeoutError: if it takes too long.
        """
        if not self.has(length):
            self._fill(length, is_idle=is_idle)
        start = self._start
        self._start += length
        return bytes(self._buffer[start : start + length])

    def receive_into(self, view: memoryview) -> None:
        """Fill ``view``; otherwise as :meth:`receive`."""
        done = min(len(view), self._end - self._start)
        view[:done] = self._buffer[self._start : self._start + done]
        self._start += done
        until = time.monotonic() + self._timeout_s + len(view) / _RATE_MIN
        while done < len(view):
            self._wait(self._timeout_s)
            done += self._receive_some(view[done:])
            if time.monotonic() > until:
                raise TimeoutError("takes too long")

    def skip(self, length: int) -> None:
        """Receive so many bytes for nothing."""
        waste = memoryview(bytearray(min(length, _BUFFER_BYTES)))
        while length:
            part = waste[:length]
            self.receive_into(part)
            length -= len(part)

    def send(self, *parts: bytes | memoryview) -> None:
        """Send all of it, in one piece.

        Raises:
            ConnectionError: if the other side has gone.
            TimeoutError: if it does not take it.
        """
        with self._sending:
            self._send_all(parts)

    def send_pieces(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send one message piece by piece, as they are made; if that fails, end the connection.

        Raises:
            OSError: as :meth:`send`.
            ImagingError: whatever making a piece raises.
        """
        with self._sending:
            try:
                for piece in pieces:
                    self._send_all((piece,))
            except BaseException:
                self.break_off()
                raise

    def send_file(self, head: bytes, file: HasDescriptor, offset: int, length: int) -> None:
        """Send ``head``, and behind it bytes of a file that do not pass through here.

        Raises:
            SourceFailedError: if the file cannot be read; ``head`` and a part are sent then.
            ConnectionError: if the other side has gone.
            TimeoutError: if it does not take it.
        """
        assert self._tls is None
        with self._sending:
            self._send_raw(head, getattr(socket, "MSG_MORE", 0))
            done = 0
            while done < length:
                try:
                    count = os.sendfile(
                        self._socket.fileno(), file.fileno(), offset + done, length - done
                    )
                except BlockingIOError:
                    raise TimeoutError("does not take what it has asked for") from None
                except _LOST:
                    raise
                except OSError as failure:
                    raise SourceFailedError(failure, done) from failure
                if count == 0:
                    raise SourceFailedError(OSError(0, "the file has become shorter"), done)
                done += count

    def finish_receiving(self) -> None:
        """Let whoever waits in :meth:`receive` find the end; what is to be sent still goes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def break_off(self) -> None:
        """End it in both directions; whoever waits gets an error."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye, and close. Calling again changes nothing."""
        tls, self._tls = self._tls, None
        if tls is not None:
            with contextlib.suppress(OSError), self._sending:
                self._send_raw(tls.goodbye())
        self.break_off()
        self._socket.close()

    def _shake(self, tls: _Tls) -> None:
        until = time.monotonic() + self._timeout_s
        while not tls.shake():
            self._send_raw(tls.outgoing())
            self._wait(self._timeout_s)
            if not tls.take(self._socket.recv(_BUFFER_BYTES)):
                raise ConnectionResetError("the connection was closed in the handshake of TLS")
            if time.monotonic() > until:
                raise TimeoutError("the handshake of TLS takes too long")

    def _fill(self, length: int, *, is_idle: bool) -> None:
        view, held = self._buffer, self._end - self._start
        view[:held] = bytes(view[self._start : self._end])
        self._start, self._end = 0, held
        until = None
        while self._end < length:
            if is_idle and not self._end:
                self._wait(None)
            else:
                until = until or time.monotonic() + self._timeout_s
                self._wait(self._timeout_s)
            self._end += self._receive_some(view[self._end :])
            if until is not None and time.monotonic() > until:
                raise TimeoutError("takes too long")

    def _wait(self, seconds: float | None) -> None:
        if seconds != self._waits_s:
            _set_limit(self._socket, socket.SO_RCVTIMEO, seconds or 0)
            self._waits_s = seconds

    def _receive_some(self, view: memoryview) -> int:
        if self._tls is not None:
            return self._receive_secure(self._tls, view)
        try:
            count = self._socket.recv_into(view)
        except BlockingIOError:
            raise TimeoutError("does not answer") from None
        if not count:
            raise ConnectionResetError("the connection was closed")
        return count

    def _receive_secure(self, tls: _Tls, view: memoryview) -> int:
        while True:
            count = tls.read_into(view)
            if tls.has_outgoing:
                with self._sending:
                    self._send_raw(tls.outgoing())
            if count is not None:
                return count
            try:
                data = self._socket.recv(_RECORDS_BYTES)
            except BlockingIOError:
                raise TimeoutError("does not answer") from None
            if not tls.take(data):
                raise ConnectionResetError("the connection was closed")

    def _send_all(self, parts: tuple[bytes | memoryview, ...]) -> None:
        if self._tls is None:
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                raise TimeoutError("does not take what it has asked for") from None
            for part in parts:
                if sent < len(part):
                    self._send_raw(memoryview(part)[sent:])
                sent = max(0, sent - len(part))
            return
        for part in parts:
            view = memoryview(part)
            for start in range(0, len(view), _RECORDS_BYTES):
                self._send_raw(self._tls.encrypt(view[start : start + _RECORDS_BYTES]))

    def _send_raw(self, data: bytes | memoryview, flags: int = 0) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, flags) :]
            except BlockingIOError:
                raise TimeoutError("does not take what it has asked for") from None


class _Tls:
    """TLS between two buffers. OpenSSL's object is for one thread at a time, so it has a lock."""

    def __init__(
        self, context: ssl.SSLContext, *, server_name: str | None, is_server: bool
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._in, self._out, server_side=is_server, server_hostname=server_name
        )
        self._lock = threading.Lock()

    @property
    def has_outgoing(self) -> bool:
        return bool(self._out.pending)

    def shake(self) -> bool:
        """Go on with the handshake; whether it is done."""
        with self._lock:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return False
            return True

    def take(self, data: bytes) -> bool:
        """What was received; whether it was anything."""
        with self._lock:
            self._in.write(data)
        return bool(data)

    def outgoing(self) -> bytes:
        with self._lock:
            return self._out.read()

    def read_into(self, view: memoryview) -> int | None:
        """Bytes that were decrypted; ``None``: more has to be received for that."""
        with self._lock:
            try:
                # Called with a buffer, it gives how many bytes it has put there.
                count = int(self._object.read(len(view), view))
            except ssl.SSLWantReadError:
                return None
            except ssl.SSLZeroReturnError:
                count = 0
        if not count:
            raise ConnectionResetError("the connection was closed")
        return count

    def encrypt(self, data: memoryview) -> bytes:
        with self._lock:
            self._object.write(data)
            return self._out.read()

    def goodbye(self) -> bytes:
        with self._lock, contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self._out.read()


def _set_limit(connected: socket.socket, option: int, seconds: float) -> None:
    """Source: socket(7): a ``struct timeval``, in which 0 stands for ever."""
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    connected.setsockopt(socket.SOL_SOCKET, option, value)
