"""Connections to one export: opened as they are needed, and again when they break."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.channel import Channel
from imprint.core.errors import ImagingError, NetworkError
from imprint.core.limits import DISK_SIZE_MAX
from imprint.protocols.nbd.asking import ask
from imprint.protocols.nbd.constants import Feature
from imprint.protocols.nbd.steps import drive
from imprint.storage.nbd_link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.storage.nbd_address import Address

_LINKS_MAX: Final = 4


@dataclass(frozen=True)
class NbdPolicy:
    """How patient to be.

    Attributes:
        timeout_s: for connecting, and for each reply.
        attempts: of a read, on a new connection each, before it counts as failed.
        pause_s: before the second attempt; doubled for each further one.
    """

    timeout_s: float = 60.0
    attempts: int = 5
    pause_s: float = 0.5


class Links:
    """Thread-safe. A server that says that it may be has several connections."""

    def __init__(self, address: Address, policy: NbdPolicy, *, is_writable: bool) -> None:
        """Connect for the first time.

        Raises:
            NetworkError: if the server does not answer, or has no such export.
            ReadError: if there are no certificates.
        """
        self._address = address
        self._policy = policy
        self._tls = address.tls() if address.is_secure else None
        self._lock = threading.Lock()
        self._is_closed = False
        first = self._connect()
        self.opened = first.opened
        self._links = [first]
        is_shared = self.opened.offer.features & Feature.MULTI_CONN and not is_writable
        self._limit = _LINKS_MAX if is_shared else 1
        self.may_reconnect = True

    def attempts(self, what: str) -> Iterator[Link]:
        """Connections, one after the other, as long as there is hope.

        Args:
            what: is attempted, for the error.

        Raises:
            NetworkError: when there is none.
        """
        count = self._policy.attempts if self.may_reconnect else 1
        why: BaseException | None = None
        for attempt in range(count):
            if attempt:
                time.sleep(self._policy.pause_s * 2 ** (attempt - 1))
            try:
                link = self.take()
            except NetworkError as error:
                why = error
                continue
            yield link
            why = link.failure
        said = why.args[0] if isinstance(why, ImagingError) else why
        times = f", tried {count} times" if count > 1 else ""
        raise NetworkError(f"cannot {what}{times}: {said}", name=self._address.name) from why

    def take(self) -> Link:
        """The connection that is least busy, or a new one.

        Raises:
            NetworkError: if there can be none.
        """
        with self._lock:
            if self._is_closed:
                raise NetworkError("is closed", name=self._address.name)
            broken = [link for link in self._links if link.failure is not None]
            if broken and not self.may_reconnect:
                raise NetworkError(
                    f"the connection broke: {broken[0].failure}", name=self._address.name
                )
            for link in broken:
                self._links.remove(link)
                link.close()
            best = min(self._links, key=lambda link: link.busy, default=None)
            if best is None or (best.busy and len(self._links) < self._limit):
                best = self._connect()
                if best.opened != self.opened:
                    best.close()
                    raise NetworkError("the export has become another", name=self._address.name)
                self._links.append(best)
            return best

    def close(self) -> None:
        """Say goodbye on all of them. Calling again changes nothing."""
        with self._lock:
            self._is_closed = True
            links, self._links = self._links, []
        for link in links:
            link.close()

    def _connect(self) -> Link:
        address, timeout_s = self._address, self._policy.timeout_s
        try:
            channel = Channel(address.connect(timeout_s), timeout_s=timeout_s)
            try:
                secure = functools.partial(self._secure, channel)
                opened = drive(ask(address.export, tls=address.is_secure), channel, secure)
                size = opened.offer.size
                if size > DISK_SIZE_MAX:
                    raise NetworkError(f"found a size of {size} bytes")
            except BaseException:
                channel.close()
                raise
        except (OSError, UnicodeError) as failure:
            said = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
            raise NetworkError(f"cannot connect: {said.lower()}", name=address.name) from failure
        except ImagingError as error:
            error.name = error.name or address.name
            raise
        return Link(channel, opened)

    def _secure(self, channel: Channel) -> None:
        assert self._tls is not None
        channel.secure(self._tls, server_name=self._address.host, is_server=False)
