"""Objects read by ranges, from real servers on loopback that misbehave on demand."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import (
    ImagingError,
    NetworkError,
    RefusedError,
    TruncatedImageError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.units import KIB, MIB
from imprint.filters.block_cache import BLOCK_BYTES, CACHE_BYTES
from imprint.storage.http import HttpStorage
from imprint.storage.http_address import Address
from imprint.storage.http_ranges import REDIRECTS_MAX, HttpPolicy
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = random.Random(1).randbytes(3 * MIB + 12345)
HASTY = HttpPolicy(timeout_s=2.0, attempts=4, pause_s=0.001)
Behaviour = Callable[["Handler"], bool]


@dataclass
class World:
    """What the server has, does and has seen.

    Attributes:
        content: of the object.
        headers: sent with every range.
        behaviours: what happens to coming requests, one each: ``True`` ends the request.
        always: what happens to every request.
        ranges: asked for so far, as (first, last).
        seen: headers of the requests so far.
        connections: accepted so far.
    """

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    behaviours: list[Behaviour] = field(default_factory=list)
    always: Behaviour | None = None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    base: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def setup(self) -> None:
        super().setup()
        self.world.connections += 1

    def do_GET(self) -> None:
        world = self.world
        world.seen.append({"path": self.path, **dict(self.headers.items())})
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        assert match is not None
        first, last = int(match.group(1)), int(match.group(2))
        world.ranges.append((first, last))
        if world.always is not None and world.always(self):
            return
        if world.behaviours and world.behaviours.pop(0)(self):
            return
        self.send_part(first, min(last, len(world.content) - 1))

    def send_part(self, first: int, last: int) -> None:
        world = self.world
        if_range = self.headers.get("If-Range")
        if if_range is not None and if_range != world.headers.get("ETag"):
            self.send_whole()
            return
        body = world.content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(world.content)}")
        self.finish_with(body, world.headers)

    def send_whole(self) -> None:
        self.send_response(200)
        self.finish_with(self.world.content, {})

    def finish_with(self, body: bytes, headers: dict[str, str]) -> None:
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have seen enough
            self.wfile.write(body)

    def say(self, status: int, headers: dict[str, str] | None = None) -> bool:
        self.send_response(status)
        self.finish_with(b"", headers or {})
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — its name there
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what some of these tests are about."""


@contextlib.contextmanager
def serving(world: World, tls: ssl.SSLContext | None = None) -> Iterator[World]:
    handler = type("WorldHandler", (Handler,), {"world": world})
    server = Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    world.base = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def world() -> Iterator[World]:
    with serving(World()) as world:
        yield world


@pytest.fixture
def opened() -> Iterator[Callable[[str], HttpStorage]]:
    with contextlib.ExitStack() as stack:

        def open_url(url: str) -> HttpStorage:
            storage = HttpStorage.open(url, policy=HASTY)
            stack.callback(storage.close)
            return storage

        yield open_url


Open = Callable[[str], HttpStorage]


def _read(storage: HttpStorage, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)


def test_ranges_are_what_the_object_holds(world: World, opened: Open) -> None:
    """Fails if a range is misplaced where blocks of the cache meet, or at the end."""
    storage = opened(world.base + "/disk.img")
    size = len(CONTENT)
    assert storage.size == storage.stored_size == size
    for offset, length in (
        (0, 1),
        (BLOCK_BYTES - 1, 2),
        (BLOCK_BYTES - 10, BLOCK_BYTES),
        (100, BLOCK_BYTES - 1),
        (1, 3 * MIB),
        (size - 1, 1),
        (size - 5000, 5000),
        (size - BLOCK_BYTES, BLOCK_BYTES),
        (0, size),
        (size, 0),
    ):
        assert _read(storage, offset, length) == CONTENT[offset : offset + length]
    for offset, length in ((size, 1), (size - 1, 2), (1 << 60, 1)):
        with pytest.raises(TruncatedImageError):
            _read(storage, offset, length)


def test_small_reads_are_answered_from_the_cache(world: World, opened: Open) -> None:
    """Fails if each table entry costs a request, or what the probe got is fetched again."""
    storage = opened(world.base)
    for offset in range(0, 2 * BLOCK_BYTES, 4096):
        assert _read(storage, offset, 512) == CONTENT[offset : offset + 512]
    assert world.ranges == [(0, BLOCK_BYTES - 1), (BLOCK_BYTES, 2 * BLOCK_BYTES - 1)]


def test_large_reads_are_one_request_each(world: World, opened: Open) -> None:
    """Fails if a span is cut into blocks, or one connection does not serve all requests."""
    storage = opened(world.base)
    for offset in (0, MIB, 2 * MIB):
        assert _read(storage, offset, MIB) == CONTENT[offset : offset + MIB]
    assert world.ranges[1:] == [(0, MIB - 1), (MIB, 2 * MIB - 1), (2 * MIB, 3 * MIB - 1)]
    assert world.connections == 1


def test_the_cache_is_bounded(opened: Open) -> None:
    """Fails if reading a whole object keeps all of it in memory."""
    count = CACHE_BYTES // BLOCK_BYTES
    with serving(World(content=bytes((count + 2) * BLOCK_BYTES))) as world:
        storage = opened(world.base)
        for index in range(count + 2):
            _read(storage, index * BLOCK_BYTES, 1)
        assert len(world.ranges) == count + 2
        _read(storage, (count + 1) * BLOCK_BYTES, 1)
        assert len(world.ranges) == count + 2
        _read(storage, 0, 1)
        assert len(world.ranges) == count + 3


def test_many_threads_can_read(world: World, opened: Open) -> None:
    """Fails if threads share a connection, or fetch one block many times."""
    storage = opened(world.base)

    def read(index: int) -> bool:
        length = 300 * KIB if index % 4 == 0 else 5000
        offset = index * 104_729 % (len(CONTENT) - length)
        return _read(storage, offset, length) == CONTENT[offset : offset + length]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(80)))
    small = [pair for pair in world.ranges if pair[0] % BLOCK_BYTES == 0]
    assert len(small) == len(set(small))
    assert world.connections <= 7


def test_bytes_are_asked_for_as_they_are(world: World, opened: Open) -> None:
    """Fails if a server may compress what it sends."""
    opened(world.base)
    assert world.seen[0]["Accept-Encoding"] == "identity"
    assert "If-Range" not in world.seen[0]


def test_a_server_that_compresses_anyway_is_refused(world: World, opened: Open) -> None:
    """Fails if compressed bytes pass for the disk's."""
    world.headers["Content-Encoding"] = "gzip"
    with pytest.raises(NetworkError, match="encoded by gzip"):
        opened(world.base)


def test_a_server_without_ranges_is_refused_with_advice(world: World, opened: Open) -> None:
    """Fails if the whole object is downloaded for every read."""

    def whole(handler: Handler) -> bool:
        handler.send_whole()
        return True

    world.always = whole
    with pytest.raises(NetworkError, match="only whole") as caught:
        opened(world.base + "/disk.img")
    assert caught.value.advice == "download it first"
    assert caught.value.name == world.base + "/disk.img"


@pytest.mark.parametrize("status", [200, 416])
def test_an_empty_object_has_size_0(world: World, opened: Open, status: int) -> None:
    """Fails if an empty file is taken for a server without ranges."""
    headers = {"Content-Range": "bytes */0"} if status == 416 else {}
    world.always = lambda handler: handler.say(status, headers)
    storage = opened(world.base)
    assert storage.size == 0
    assert _read(storage, 0, 0) == b""


@pytest.mark.parametrize("length", [1000, MIB])
@pytest.mark.parametrize(
    "change",
    [
        {"ETag": '"two"'},
        {"Last-Modified": "Fri, 01 Jan 2027 00:00:00 GMT"},
        {"ETag": 'W/"two"'},
    ],
)
def test_an_object_that_changes_is_an_error(
    opened: Open, change: dict[str, str], length: int
) -> None:
    """Fails if a disk is put together from two versions."""
    key = next(iter(change))
    before = {
        "ETag": 'W/"one"' if change[key].startswith("W/") else '"one"',
        "Last-Modified": "Fri, 01 Jan 2021 00:00:00 GMT",
    }
    with serving(World(headers={key: before[key]})) as world:
        storage = opened(world.base)
        world.headers = change
        with pytest.raises(NetworkError, match="has changed on the server"):
            _read(storage, MIB, length)


def test_an_object_that_grows_is_an_error(opened: Open) -> None:
    """Fails if a server without validators can swap the object for a longer one."""
    with serving(World(headers={})) as world:
        storage = opened(world.base)
        assert _read(storage, MIB, 10) == CONTENT[MIB : MIB + 10]
        world.content = CONTENT + b"more"
        with pytest.raises(NetworkError, match="has changed on the server"):
            _read(storage, 2 * MIB, 10)


def test_an_object_that_vanishes_is_an_error(world: World, opened: Open) -> None:
    """Fails if the reason is lost."""
    storage = opened(world.base)
    world.always = lambda handler: handler.say(404)
    with pytest.raises(NetworkError, match="found 404 Not Found"):
        _read(storage, MIB, 10)
    assert len(world.ranges) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_a_refusal_is_final(world: World, opened: Open, status: int) -> None:
    """Fails if asking again is tried where it cannot help."""
    world.always = lambda handler: handler.say(status)
    with pytest.raises(NetworkError, match=f"found {status}"):
        opened(world.base)
    assert len(world.ranges) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(world: World, opened: Open, status: int) -> None:
    """Fails if one hiccup ends a copy of hours; or if there is no end of asking."""
    storage = opened(world.base)
    busy: Behaviour = lambda handler: handler.say(status, {"Retry-After": "0"})  # noqa: E731
    world.behaviours = [busy] * (HASTY.attempts - 1)
    assert _read(storage, MIB, MIB) == CONTENT[MIB : 2 * MIB]
    world.behaviours = [busy] * HASTY.attempts
    with pytest.raises(NetworkError, match=f"tried 4 times: the server answers {status}"):
        _read(storage, MIB, MIB)
    assert _read(storage, MIB, MIB) == CONTENT[MIB : 2 * MIB]


def _break_after(count: int) -> Behaviour:
    """Send some bytes of what was asked for, and hang up."""

    def behave(handler: Handler) -> bool:
        first, last = handler.world.ranges[-1]
        size = len(handler.world.content)
        last = min(last, size - 1)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        handler.send_header("Content-Length", str(last + 1 - first))
        handler.end_headers()
        handler.wfile.write(handler.world.content[first : min(first + count, last + 1)])
        handler.close_connection = True
        return True

    return behave


def test_a_broken_connection_is_taken_up_where_it_broke(world: World, opened: Open) -> None:
    """Fails if bytes are lost or doubled at the seam, or fetched twice."""
    storage = opened(world.base)
    world.behaviours = [_break_after(1000), _break_after(0), _break_after(500_000)]
    assert _read(storage, MIB, MIB) == CONTENT[MIB : 2 * MIB]
    assert [first for first, _ in world.ranges[1:]] == [
        MIB,
        MIB + 1000,
        MIB + 1000,
        MIB + 501_000,
    ]


def test_a_connection_that_always_breaks_is_given_up(world: World, opened: Open) -> None:
    """Fails if some progress each time means no end of trying."""
    storage = opened(world.base)
    world.always = _break_after(10)
    with pytest.raises(NetworkError, match="tried 4 times: the connection broke off"):
        _read(storage, MIB, MIB)
    assert len(world.ranges) == 1 + HASTY.attempts


def test_a_failed_block_is_fetched_anew(world: World, opened: Open) -> None:
    """Fails if a failure stays in the cache."""
    storage = opened(world.base)
    world.always = lambda handler: handler.say(503)
    with pytest.raises(NetworkError):
        _read(storage, MIB, 10)
    world.always = None
    assert _read(storage, MIB, 10) == CONTENT[MIB : MIB + 10]


def test_a_silent_server_is_given_up(world: World) -> None:
    """Fails if there is a wait without end."""
    release = threading.Event()

    def hang(handler: Handler) -> bool:
        release.wait(30)
        handler.close_connection = True
        return True

    world.always = hang
    policy = HttpPolicy(timeout_s=0.05, attempts=2, pause_s=0.001)
    try:
        with pytest.raises(NetworkError, match="no answer in time"):
            HttpStorage.open(world.base, policy=policy)
    finally:
        release.set()


def test_an_idle_connection_may_be_closed_by_the_server(world: World, opened: Open) -> None:
    """Fails if the end of keep-alive counts as a failure of the server."""
    policy = HttpPolicy(timeout_s=2.0, attempts=1)
    storage = HttpStorage.open(world.base, policy=policy)

    def close_after(handler: Handler) -> bool:
        # Without announcing it by a header, as when an idle time runs out.
        first, last = handler.world.ranges[-1]
        handler.send_part(first, last)
        handler.close_connection = True
        return True

    world.always = close_after
    for offset in (0, MIB, 2 * MIB):
        assert _read(storage, offset, MIB) == CONTENT[offset : offset + MIB]
    storage.close()
    del opened


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_once(world: World, opened: Open, status: int) -> None:
    """Fails if a redirect is refused, or asked for again at every read."""
    world.always = lambda handler: (
        handler.path.startswith("/old") and handler.say(status, {"Location": "/new/disk.img"})
    )
    storage = opened(world.base + "/old/disk.img")
    assert _read(storage, MIB, MIB) == CONTENT[MIB : 2 * MIB]
    assert [seen["path"] for seen in world.seen] == ["/old/disk.img"] + ["/new/disk.img"] * 2
    assert storage.name == world.base + "/old/disk.img"


def test_redirects_end(world: World, opened: Open) -> None:
    """Fails if two servers that send us to each other keep us busy for ever."""
    world.always = lambda handler: handler.say(302, {"Location": handler.path + "x"})
    with pytest.raises(NetworkError, match="at most 5 redirects"):
        opened(world.base + "/")
    assert len(world.ranges) == REDIRECTS_MAX + 1


def test_a_redirect_that_expired_is_asked_for_again(world: World, opened: Open) -> None:
    """Fails if a copy dies when a signed address, valid for minutes, runs out."""
    key = 1

    def signed(handler: Handler) -> bool:
        if handler.path == "/disk.img":
            return handler.say(302, {"Location": f"/store?key={key}"})
        return handler.path != f"/store?key={key}" and handler.say(403)

    world.always = signed
    storage = opened(world.base + "/disk.img")
    assert _read(storage, MIB, MIB) == CONTENT[MIB : 2 * MIB]
    key = 2
    assert _read(storage, 2 * MIB, MIB) == CONTENT[2 * MIB : 3 * MIB]


@pytest.mark.parametrize(
    "location", ["", "ftp://127.0.0.1/disk", "file:///etc/passwd", "http://", "http://[::1/"]
)
def test_redirects_to_elsewhere_are_refused(world: World, opened: Open, location: str) -> None:
    """Fails if a server can make us open what is no web address."""
    world.always = lambda handler: handler.say(302, {"Location": location} if location else {})
    with pytest.raises(NetworkError):
        opened(world.base + "/a")


def test_the_password_is_sent_and_never_shown(world: World, opened: Open) -> None:
    """Fails if a secret of the URL gets into messages."""
    url = world.base.replace("://", "://user:pass%40word@") + "/disk.img?token=geheim"
    storage = opened(url)
    assert world.seen[0]["Authorization"] == "Basic dXNlcjpwYXNzQHdvcmQ="
    assert world.seen[0]["path"] == "/disk.img?token=geheim"
    assert storage.name == world.base + "/disk.img?..."
    world.always = lambda handler: handler.say(404)
    with pytest.raises(NetworkError) as caught:
        _read(storage, MIB, 10)
    for secret in ("pass", "word", "geheim", "user"):
        assert secret not in str(caught.value)


def test_the_password_stays_with_its_site(world: World, opened: Open) -> None:
    """Fails if a redirect can carry credentials to another server."""
    with serving(World()) as other:
        world.always = lambda handler: handler.say(302, {"Location": other.base + "/x"})
        opened(world.base.replace("://", "://user:secret@") + "/disk.img")
        assert "Authorization" in world.seen[0]
        assert "Authorization" not in other.seen[0]


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 0-9/*",
        "bytes 0-9",
        "items 0-9/100",
        "bytes 5-9/100",
        "bytes 0-8/10",
        "bytes 0-9/5",
        "bytes 9-0/10",
        "bytes 0-262143/99999999999999999999",
        "bytes 0-262143/9000000000000000000",
    ],
)
def test_a_range_that_makes_no_sense_is_refused(
    world: World, opened: Open, content_range: str
) -> None:
    """Fails if bytes are taken from where the server did not say they are."""

    def odd(handler: Handler) -> bool:
        handler.send_response(206)
        handler.finish_with(bytes(10), {"Content-Range": content_range})
        return True

    world.always = odd
    with pytest.raises(NetworkError):
        opened(world.base)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 206 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 206 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/10\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 4\r\n\r\n1234",
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/10\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"HTTP/1.1 302 Moved\r\nLocation: http://\xff\xfe\x00/\r\n\r\n",
        b"HTTP/1.1 302 Moved\r\nLocation: http://" + b"a" * 300 + b"/\r\n\r\n",
    ],
)
def test_what_is_no_http_is_one_error(world: World, opened: Open, answer: bytes) -> None:
    """Fails if a strange server leads to another exception."""

    def odd(handler: Handler) -> bool:
        handler.wfile.write(answer)
        handler.close_connection = True
        return True

    world.always = odd
    with pytest.raises(ImagingError):
        opened(world.base)


def test_a_chunked_answer_is_understood(world: World, opened: Open) -> None:
    """Fails if a range has to come with its length."""

    def chunked(handler: Handler) -> bool:
        first, last = handler.world.ranges[-1]
        last = min(last, len(CONTENT) - 1)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(first, last + 1, 50_000):
            piece = CONTENT[start : min(start + 50_000, last + 1)]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")
        return True

    world.always = chunked
    storage = opened(world.base)
    assert _read(storage, 0, len(CONTENT)) == CONTENT
    assert _read(storage, 5, 100_000) == CONTENT[5:100_005]


def test_nobody_there_is_said_at_once() -> None:
    """Fails if a mistyped port costs minutes of retries."""
    with serving(World()) as gone:
        pass
    with pytest.raises(NetworkError, match="connection refused"):
        HttpStorage.open(gone.base, policy=HttpPolicy(pause_s=1000.0))


@pytest.mark.parametrize(
    "url", ["", "disk.img", "ftp://host/x", "http://", "http://host:port/", "http://[::1/"]
)
def test_only_web_addresses_are_accepted(url: str) -> None:
    """Fails if something else is tried."""
    with pytest.raises(UsageError):
        HttpStorage.open(url)


@pytest.mark.parametrize(
    ("url", "name", "target"),
    [
        ("http://Host/a b", "http://host/a%20b", "/a%20b"),
        ("https://host", "https://host/", "/"),
        ("https://host:443/x", "https://host/x", "/x"),
        ("http://host:443/x", "http://host:443/x", "/x"),
        ("http://[::1]:80/x%20y", "http://[::1]/x%20y", "/x%20y"),
        ("http://host/x?a=ü&b=1", "http://host/x?...", "/x?a=%C3%BC&b=1"),
        ("http://u@host/x#p1", "http://host/x", "/x"),
    ],
)
def test_urls_are_taken_apart(url: str, name: str, target: str) -> None:
    """Fails if a request asks for another path than the user did."""
    address = Address.parse(url)
    assert (address.name, address.target) == (name, target)


def test_https_does_not_lead_to_http() -> None:
    """Fails if a redirect can take the protection away."""
    address = Address.parse("https://user:secret@host/disk")
    with pytest.raises(NetworkError, match="from https to http://other/x"):
        address.follow("http://other/x?key=1")
    assert address.follow("/y").authorization is not None
    assert address.follow("https://host:8443/y").authorization is None
    assert Address.parse("http://host/disk").follow("https://host/y").scheme == "https"


def test_certificates_are_checked(tmp_path: Path) -> None:
    """Fails if anybody in between can pass for the server."""
    certificate, key = _certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serving(World(), tls) as world:
        with pytest.raises(NetworkError, match="certificate is not trusted"):
            HttpStorage.open(world.base, policy=HASTY)
        trusting = ssl.create_default_context(cafile=str(certificate))
        storage = HttpStorage.open(world.base, policy=HASTY, tls=trusting)
        assert _read(storage, MIB, MIB) == CONTENT[MIB : 2 * MIB]
        storage.close()


def test_it_cannot_be_written(world: World, opened: Open) -> None:
    """Fails if a write is silently dropped."""
    storage = opened(world.base)
    assert not storage.is_writable
    assert not storage.can_offload(storage)
    with pytest.raises(RefusedError):
        storage.write(memoryview(b"x"), 0)
    with pytest.raises(RefusedError):
        storage.zero(0, 1)
    with pytest.raises(RefusedError):
        storage.resize(1)
    with pytest.raises(RefusedError):
        storage.copy_range(MemoryStorage(b"x"), 0, 0, 1)
    storage.flush()
    storage.commit()
    storage.abort()
    assert list(storage.extents(7, 5)) == [Extent(7, 5, Kind.DATA, storage, 7)]
    assert list(storage.extents(7, 0)) == []


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody has signed but itself."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path
