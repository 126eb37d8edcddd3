"""A proxy between a client and a server, which does to connections what networks do.

It looks into HTTP just as far as it has to: to answer in the server's place, a request is read
to its end. Everything else is bytes.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECE_BYTES: Final = 16 << 10
_WAIT_S: Final = 30.0


class Fault(enum.Enum):
    """What happens to a connection."""

    NONE = "passed on"
    REFUSED = "closed before anything is said"
    REQUEST_CUT = "closed when half of the request has been passed on"
    ANSWER_LOST = "the server does it all, the client hears nothing"
    ANSWER_CUT = "closed in the middle of the answer's body"
    ERROR_500 = "answered 500 in the server's place"
    ERROR_503 = "answered 503 in the server's place"
    SILENT = "nothing is ever answered"
    SLOW = "passed on, piece by piece"


class FaultyProxy:
    """Listens on a free port of this machine and passes each request on, or not.

    Every request has a connection of its own, since answers are passed on with
    ``Connection: close``. Faults are used up one for each request; then all goes well, or
    the lasting one happens.
    """

    def __init__(self, port: int) -> None:
        """Starts at once; ``port`` is that of the server, on this machine."""
        self._port = port
        self._faults: deque[Fault] = deque()
        self._lasting = Fault.NONE
        self._lock = threading.Lock()
        self.requests = 0
        """How many have come."""
        self._is_closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where clients connect to."""
        port: int = self._listener.getsockname()[1]
        return port

    def plan(self, faults: Iterable[Fault] = (), *, lasting: Fault = Fault.NONE) -> None:
        """What happens to the next requests, and to all behind them."""
        with self._lock:
            self._faults = deque(faults)
            self._lasting = lasting
            self.requests = 0

    def close(self) -> None:
        """Stop listening, and let go of who waits."""
        self._is_closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_WAIT_S)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close it."""
        self.close()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_WAIT_S)
        with client, contextlib.suppress(OSError):
            head = _read_head(client)
            if not head:
                return  # a client that opened a connection to have one
            with self._lock:
                self.requests += 1
                fault = self._faults.popleft() if self._faults else self._lasting
            self._misbehave(client, head, fault)

    def _misbehave(self, client: socket.socket, head: bytes, fault: Fault) -> None:
        """Do to one request what is planned for it."""
        if fault is Fault.REFUSED:
            return
        if fault is Fault.SILENT:
            self._is_closed.wait(_WAIT_S)
            return
        body = _read_body(client, head)
        if fault in (Fault.ERROR_500, Fault.ERROR_503):
            client.sendall(_error(fault))
            return
        with socket.create_connection(("127.0.0.1", self._port), _WAIT_S) as server:
            request = _closing(head) + body
            if fault is Fault.REQUEST_CUT:
                server.sendall(request[: len(_closing(head)) + len(body) // 2])
                return
            server.sendall(request)
            answer = b"".join(iter(lambda: server.recv(_PIECE_BYTES), b""))
        if fault is Fault.ANSWER_LOST:
            return
        start = answer.find(b"\r\n\r\n") + 4
        if fault is Fault.ANSWER_CUT:
            client.sendall(answer[: start + (len(answer) - start) // 2])
        elif fault is Fault.SLOW:
            for position in range(0, len(answer), _PIECE_BYTES):
                client.sendall(answer[position : position + _PIECE_BYTES])
                time.sleep(0.02)
        else:
            client.sendall(answer)


def _read_head(client: socket.socket) -> bytes:
    """A request up to the empty line, and what came with it."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = client.recv(_PIECE_BYTES)
        if not piece:
            return b""
        found += piece
    return found


def _read_body(client: socket.socket, head: bytes) -> bytes:
    """What is left of a request behind what came with its head."""
    start = head.index(b"\r\n\r\n") + 4
    length = 0
    for line in head[:start].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    parts = []
    missing = length - (len(head) - start)
    while missing > 0:
        piece = client.recv(min(missing, 1 << 20))
        if not piece:
            break
        parts.append(piece)
        missing -= len(piece)
    return b"".join(parts)


def _closing(head: bytes) -> bytes:
    """A head that asks the server to close the connection behind its answer."""
    return head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def _error(fault: Fault) -> bytes:
    status, code = (
        (b"500 Internal Server Error", b"InternalError")
        if fault is Fault.ERROR_500
        else (b"503 Slow Down", b"SlowDown")
    )
    body = b"<Error><Code>" + code + b"</Code></Error>"
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
