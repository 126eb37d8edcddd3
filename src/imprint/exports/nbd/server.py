"""Listens, and serves each client with a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import logging
import selectors
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.channel import Channel
from imprint.core.errors import ImagingError
from imprint.exports.nbd.connection import Transmission
from imprint.protocols.nbd.serving import serve
from imprint.protocols.nbd.steps import drive

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable

    from imprint.core.cancel import CancelToken
    from imprint.exports.nbd.export import Export

CONNECTIONS_MAX: Final = 64
"""By default: each takes a thread, and up to 16 more with 256 KiB each while it is busy."""

_LOOK_S: Final = 0.2
_TIMEOUT_S: Final = 30.0
_NEGOTIATION_S_MAX: Final = 15.0
_FAREWELL_S: Final = 3.0
_FULL_PAUSE_S: Final = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """How clients are treated.

    Attributes:
        connections: at the same time; one more takes the place of one that only negotiates.
        tls: certificates; ``None``: everything goes in the clear.
        once: end when the last client has left that has used an export.
        timeout_s: a message that has begun must not pause for longer.
        negotiation_s: a client has to know what it wants after that.
    """

    connections: int = CONNECTIONS_MAX
    tls: ssl.SSLContext | None = None
    once: bool = False
    timeout_s: float = _TIMEOUT_S
    negotiation_s: float = _NEGOTIATION_S_MAX


class _Client:
    """A connection, and how far it has come."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.began = time.monotonic()
        self.is_served = False
        self.thread: threading.Thread | None = None


class Server:
    """Serves exports on sockets that listen; owns the sockets, and not the exports."""

    def __init__(
        self,
        exports: Iterable[Export],
        listeners: Iterable[socket.socket],
        policy: Policy | None = None,
    ) -> None:
        self._exports = {export.offer.name: export for export in exports}
        self._offers = {name: export.offer for name, export in self._exports.items()}
        self._listeners = tuple(listeners)
        self._policy = policy or Policy()
        self._clients: set[_Client] = set()
        self._lock = threading.Lock()
        self._served = 0

    def run(self, cancel: CancelToken) -> None:
        """Serve until the stop is asked for; replies that are due are sent before it returns."""
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                listener.settimeout(0)
                selector.register(listener, selectors.EVENT_READ, listener)
            while not cancel.is_cancelled and not self._is_over():
                for key, _ in selector.select(_LOOK_S):
                    self._accept(key.data)
                self._drop_undecided()
        for listener in self._listeners:
            listener.close()
        self._dismiss()

    def _is_over(self) -> bool:
        if not self._policy.once:
            return False
        with self._lock:
            return bool(self._served) and not any(item.is_served for item in self._clients)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connected, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as failure:  # too many files are open
            _log.warning("%s", failure)
            time.sleep(_FULL_PAUSE_S)
            return
        try:
            client = _Client(Channel(connected, timeout_s=self._policy.timeout_s))
        except OSError:
            connected.close()
            return
        if not self._admit(client):
            _log.warning("a connection was refused: there are %d", self._policy.connections)
            client.channel.close()
            return
        client.thread = threading.Thread(
            target=self._serve, args=(client,), name="nbd", daemon=True
        )
        try:
            client.thread.start()
        except RuntimeError as failure:  # the system gives no more threads
            _log.warning("%s", failure)
            self._forget(client)

    def _admit(self, client: _Client) -> bool:
        """Take a client in, in the place of the oldest that has not said what it wants."""
        with self._lock:
            waiting = [item for item in self._clients if not item.is_served]
            if len(self._clients) >= self._policy.connections:
                if not waiting:
                    return False
                oldest = min(waiting, key=lambda item: item.began)
                oldest.channel.break_off()
                self._clients.discard(oldest)
            self._clients.add(client)
            return True

    def _drop_undecided(self) -> None:
        late = time.monotonic() - self._policy.negotiation_s
        with self._lock:
            for client in self._clients:
                if not client.is_served and client.began < late:
                    client.channel.break_off()

    def _serve(self, client: _Client) -> None:
        channel = client.channel
        try:
            negotiation = serve(self._offers, tls=self._policy.tls is not None)
            agreed = drive(negotiation, channel, functools.partial(self._secure, channel))
            if agreed is not None and self._begin(client):
                export = self._exports[agreed.offer.name]
                Transmission(channel, export, agreed).run()
        except (OSError, ImagingError) as error:
            _log.info("a client was dropped: %s", error)
        except Exception:  # noqa: BLE001 - a defect ends the connection, and not the server
            _log.exception("a client was dropped")
        finally:
            self._forget(client)

    def _secure(self, channel: Channel) -> None:
        assert self._policy.tls is not None
        channel.secure(self._policy.tls, server_name=None, is_server=True)

    def _begin(self, client: _Client) -> bool:
        """From now on it counts as a client; it may have been dropped meanwhile."""
        with self._lock:
            client.is_served = client in self._clients
            self._served += client.is_served
            return client.is_served

    def _forget(self, client: _Client) -> None:
        client.channel.close()
        with self._lock:
            self._clients.discard(client)

    def _dismiss(self) -> None:
        """Let all clients have their replies, and go."""
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            client.channel.finish_receiving()
        until = time.monotonic() + _FAREWELL_S
        for client in clients:
            if client.thread is not None:
                with contextlib.suppress(RuntimeError):
                    client.thread.join(max(0.0, until - time.monotonic()))
        for client in clients:
            client.channel.break_off()
