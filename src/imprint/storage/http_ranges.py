"""Parts of one HTTP object, by range requests: redirects, retries, and change detection.

The object is pinned when it is first seen: an answer that belongs to another version of it
(other size, ``ETag`` or, where there is none, ``Last-Modified``) is an error and never data.

Source: RFC 9110 (14 range requests, 8.8 validators, 13.1.5 ``If-Range``, 15.4 redirects).
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import NetworkError
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.storage.http_address import Address

REDIRECTS_MAX: Final = 5
"""Real chains have one or two: a name service in front of storage."""

_IDLE_MAX: Final = 8  # connections kept open: as many as a copy has workers, and some
_PIECE_BYTES: Final = 256 * KIB  # received between two looks at the clock
_RATE_MIN: Final = 4 * KIB  # bytes a second, below which a server counts as dead
_PAUSE_S_MAX: Final = 30.0  # however long the server asks for

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_GONE: Final = (401, 403, 404, 410)
_BUSY: Final = (408, 429, 500, 502, 503, 504)
_PARTIAL: Final = 206
_WHOLE: Final = 200
_UNSATISFIABLE: Final = 416


@dataclass(frozen=True)
class HttpPolicy:
    """How patient to be.

    Attributes:
        timeout_s: for connecting, and for each wait for bytes.
        attempts: requests for one range before it counts as failed.
        pause_s: before the second attempt; doubled for each further one.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 0.5


@dataclass(frozen=True)
class Version:
    """What tells one state of an object from another.

    Attributes:
        size: in bytes.
        etag: as the server sends it, or ``None``.
        modified: the ``Last-Modified`` date, or ``None``.
    """

    size: int
    etag: str | None
    modified: str | None

    def is_other(self, seen: Version) -> bool:
        """Whether the object has changed between the two."""
        if self.size != seen.size:
            return True
        if self.etag is not None and seen.etag is not None:
            return self.etag != seen.etag
        return (
            self.modified is not None
            and seen.modified is not None
            and self.modified != seen.modified
        )


class RangeReader:
    """Reads ranges of one object. Thread-safe: each call has a connection for itself."""

    def __init__(
        self,
        address: Address,
        *,
        policy: HttpPolicy | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connects to nothing yet; :meth:`probe` comes first."""
        self._origin = address
        self._address = address  # where redirects have led
        self._policy = policy or HttpPolicy()
        self._tls = tls
        self._version: Version | None = None
        self._idle: list[tuple[tuple[str, str, int], http.client.HTTPConnection]] = []
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def name(self) -> str:
        """The URL, without anything secret."""
        return self._origin.name

    def probe(self, length: int) -> tuple[int, bytes]:
        """Size of the object, and its first ``length`` bytes or fewer.

        Raises:
            NetworkError: if the server does not answer, or not with a range.
        """
        buffer = bytearray(length)
        fill = _Fill(memoryview(buffer))
        self._retry(fill, 0)
        assert self._version is not None
        return self._version.size, bytes(buffer[: fill.done])

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; the range lies inside the object.

        Raises:
            NetworkError: if the server fails, or the object has changed.
        """
        self._retry(_Fill(buffer), offset)

    def close(self) -> None:
        """Close what is open. Calling again changes nothing."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _retry(self, fill: _Fill, offset: int) -> None:
        """Ask until all is there, going on where a connection broke off."""
        for attempt in range(1, self._policy.attempts + 1):
            try:
                self._fetch(fill, offset)
            except (OSError, http.client.HTTPException, UnicodeError, _Busy) as failure:
                if self._is_hopeless(failure):
                    raise self._error(_reason(failure)) from failure
                if attempt == self._policy.attempts:
                    raise self._error(
                        f"cannot read at 0x{offset + fill.done:x}, tried {attempt} times: "
                        f"{_reason(failure)}"
                    ) from failure
                pause_s = self._policy.pause_s * 2 ** (attempt - 1)
                if isinstance(failure, _Busy):
                    pause_s = max(pause_s, failure.pause_s)
                time.sleep(min(pause_s, _PAUSE_S_MAX))
            else:
                return

    def _is_hopeless(self, failure: Exception) -> bool:
        """Whether waiting does not help."""
        if isinstance(failure, socket.gaierror):
            return failure.errno == socket.EAI_NONAME
        if isinstance(failure, ConnectionRefusedError):
            return self._version is None  # else it was there before, and may be again
        return isinstance(
            failure, (ssl.SSLCertVerificationError, http.client.InvalidURL, UnicodeError)
        )

    def _fetch(self, fill: _Fill, offset: int) -> None:
        """One request, and what comes of it."""
        first = offset + fill.done
        wanted = len(fill.view) - fill.done
        last = first + wanted - 1
        with self._answer(first, last) as response:
            if response.status != _PARTIAL:
                self._accept_empty(response)
                return
            found_first, found_last = self._check(response)
            # Only a probe may reach behind the end.
            expected = min(last, self._size - 1)
            if (found_first, found_last) != (first, expected):
                raise self._error(
                    f"expected the bytes {first}-{expected}, found {found_first}-{found_last}"
                )
            deadline = time.monotonic() + self._policy.timeout_s + wanted / _RATE_MIN
            end = fill.done + found_last + 1 - first
            while fill.done < end:
                piece = response.read1(min(end - fill.done, _PIECE_BYTES))
                if not piece:
                    raise http.client.IncompleteRead(b"", end - fill.done)
                fill.view[fill.done : fill.done + len(piece)] = piece
                fill.done += len(piece)
                if time.monotonic() > deadline:
                    raise TimeoutError("too slow")

    @property
    def _size(self) -> int:
        assert self._version is not None
        return self._version.size

    @contextmanager
    def _answer(self, first: int, last: int) -> Iterator[http.client.HTTPResponse]:
        """Follow redirects to an answer that may hold bytes; keep its connection if it can be."""
        address = self._address
        for _ in range(REDIRECTS_MAX + 1):
            connection, response = self._request(address, first, last)
            is_whole = False
            try:
                if response.status not in _REDIRECTS:
                    self._refuse(address, response)
                    self._address = address
                    yield response
                    is_whole = response.length == 0 and connection.sock is not None
                    return
                address = address.follow(response.headers.get("Location", ""))
            finally:
                response.close()
                if is_whole:
                    self._give_back(address, connection)
                else:
                    connection.close()
        raise self._error(f"expected at most {REDIRECTS_MAX} redirects, found more")

    def _request(
        self, address: Address, first: int, last: int
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {
            "Range": f"bytes={first}-{last}",
            "Accept-Encoding": "identity",  # a range of compressed bytes would be useless
            "User-Agent": "imprint",
        }
        if address.authorization is not None:
            headers["Authorization"] = address.authorization
        version = self._version
        if version is not None and version.etag is not None and version.etag.startswith('"'):
            headers["If-Range"] = version.etag  # a weak one, W/"…", never matches
        while True:
            connection, is_new = self._take(address)
            try:
                connection.request("GET", address.target, headers=headers)
                return connection, connection.getresponse()
            except BaseException as failure:
                connection.close()
                # A server may close an idle connection at any time: that is no failure.
                if is_new or not isinstance(failure, (OSError, http.client.HTTPException)):
                    raise

    def _refuse(self, address: Address, response: http.client.HTTPResponse) -> None:
        """Raise for answers that hold nothing of use."""
        status = response.status
        if status in (_PARTIAL, _WHOLE, _UNSATISFIABLE):
            return
        found = f"{status} {response.reason}"
        if status in _BUSY:
            raise _Busy(found, response.headers.get("Retry-After", ""))
        if status in _GONE and address != self._origin and self._version is not None:
            # What redirects lead to is often valid for some minutes only: ask again.
            self._address = self._origin
            raise _Busy(found)
        raise self._error(f"expected an object, found {found}")

    def _accept_empty(self, response: http.client.HTTPResponse) -> None:
        """An empty object has no range: servers say so in two ways. All else is refused."""
        length = response.headers.get("Content-Length")
        is_empty = (
            length == "0"
            if response.status == _WHOLE
            else response.headers.get("Content-Range", "").replace(" ", "") == "bytes*/0"
        )
        if self._version is not None:
            raise self._changed()
        if not is_empty:
            raise NetworkError(
                "expected a part of the object, found that the server sends it only whole",
                name=self.name,
                advice="download it first",
            )
        self._version = Version(0, None, None)

    def _check(self, response: http.client.HTTPResponse) -> tuple[int, int]:
        """The range that an answer holds; pins the object's version, or compares with it."""
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise self._error(f"expected bytes as they are, found them encoded by {encoding}")
        text = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(text.strip())
        if match is None:
            raise self._error(f"expected Content-Range with a size, found {text!r}")
        first, last, size = map(int, match.groups())
        if size > DISK_SIZE_MAX:
            raise self._error(f"expected a size of at most {DISK_SIZE_MAX}, found {size}")
        seen = Version(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))
        if self._version is None:
            self._version = seen
        elif self._version.is_other(seen):
            raise self._changed()
        return first, last

    def _take(self, address: Address) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it is new."""
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if self._idle[index][0] == address.site:
                    return self._idle.pop(index)[1], False
        timeout_s = self._policy.timeout_s
        if address.scheme == "http":
            return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s), True
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            tls = self._tls
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=timeout_s, context=tls
        )
        return connection, True

    def _give_back(self, address: Address, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < _IDLE_MAX:
                self._idle.append((address.site, connection))
                return
        connection.close()

    def _changed(self) -> NetworkError:
        return self._error("has changed on the server while it was read")

    def _error(self, message: str) -> NetworkError:
        return NetworkError(message, name=self.name)


class _Busy(Exception):  # noqa: N818 — not an error until there are too many
    """The server asks to be asked again."""

    def __init__(self, found: str, retry_after: str = "") -> None:
        super().__init__(f"the server answers {found}")
        # Seconds; the other form, a date, is rare enough to be ignored.
        self.pause_s = float(retry_after) if re.fullmatch(r"\d{1,6}", retry_after) else 0.0


class _Fill:
    """A buffer, and how far it is filled: survives a broken connection."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.done = 0


def _reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    if isinstance(failure, http.client.IncompleteRead):
        return "the connection broke off"
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {failure.verify_message}"
    if isinstance(failure, OSError):
        return (failure.strerror or str(failure)).lower()
    return str(failure) or type(failure).__name__
