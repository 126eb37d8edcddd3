"""Objects in buckets of a real server: that of moto, which speaks S3 from memory."""

from __future__ import annotations

import http.client
import http.server
import itertools
import threading
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError, NetworkError, ReadError, TargetError
from imprint.objects.contract import MissingObjectError, ObjectExistsError
from imprint.objects.s3 import S3Options, S3Store
from imprint.objects.s3_answers import Answer
from imprint.testing.object_servers import free_port, make_bucket
from imprint.testing.object_suite import ObjectStoreContract

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.objects.contract import ObjectStore

_NOT_IMPLEMENTED = b"<Error><Code>NotImplemented</Code></Error>"
_BUCKETS = (f"bucket-{number}" for number in itertools.count())


def options(endpoint: str, *, timeout_s: float = 20.0) -> S3Options:
    return S3Options(
        endpoint=endpoint, access_key="somebody", secret_key="secret", timeout_s=timeout_s
    )


class TestS3(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, moto: str) -> None:
        self.endpoint = moto
        self.bucket = next(_BUCKETS)
        make_bucket(moto, self.bucket)

    def make(self, tmp_path: Path) -> ObjectStore:
        return self.another(None, tmp_path)

    def another(self, store: ObjectStore | None, tmp_path: Path) -> ObjectStore:
        return S3Store(self.bucket, "some/folder", options=options(self.endpoint))


class TestS3WithoutPrefix(TestS3):
    def another(self, store: ObjectStore | None, tmp_path: Path) -> ObjectStore:
        return S3Store(self.bucket, options=options(self.endpoint))


def test_a_prefix_is_a_place_of_its_own(moto: str) -> None:
    """Fails if two repositories in one bucket see each other's objects."""
    bucket = next(_BUCKETS)
    make_bucket(moto, bucket)
    stores = [S3Store(bucket, prefix, options=options(moto)) for prefix in ("a", "a/b", "ab")]
    for store in stores:
        store.put("index/x", [store.name.encode()])
    for store in stores:
        assert store.get("index/x") == store.name.encode()
        assert [info.name for info in store.list("index/")] == ["index/x"]


def test_more_objects_than_fit_in_an_answer_are_listed(moto: str) -> None:
    """Fails if a listing ends with the server's first answer, which here has 50 objects."""
    bucket = next(_BUCKETS)
    make_bucket(moto, bucket)
    store = S3Store(bucket, "p", options=options(moto))
    names = [f"packs/{index:04x}" for index in range(130)]
    for name in names:
        store.put(name, [b""])
    assert [info.name for info in store.list("packs/")] == names


def test_a_large_object_goes_up_in_parts(moto: str) -> None:
    """Fails if an index that is larger than a request may be is not stored as one object."""
    bucket = next(_BUCKETS)
    make_bucket(moto, bucket)
    store = S3Store(bucket, options=options(moto))
    data = bytes(range(256)) * (65 << 12)
    store.put("index/large", [data])
    assert store.get("index/large") == data


def test_a_bucket_that_is_not_there_is_no_missing_object(moto: str) -> None:
    """Fails if a typing error in an address looks like an empty repository."""
    store = S3Store("no-such-bucket", options=options(moto))
    with pytest.raises(ReadError, match="no such bucket"):
        store.get("format")
    with pytest.raises(ReadError, match="no such bucket"):
        list(store.list("index/"))
    with pytest.raises(TargetError, match="no such bucket"):
        store.put("format", [b"{}"])
    with pytest.raises(TargetError, match="no such bucket"):
        store.put("format", [b"{}"], only_new=True)


def test_nobody_there_is_a_network_error() -> None:
    """Fails if a server that is down has another exit code, or its error is more than a line."""
    store = S3Store("bucket", options=options(f"http://127.0.0.1:{free_port()}"))
    attempts = (
        lambda: store.get("format"),
        lambda: store.stat("format"),
        lambda: list(store.list("index/")),
        lambda: store.put("format", [b""]),
        lambda: store.put("format", [b""], only_new=True),
        lambda: store.delete("format"),
    )
    for attempt in attempts:
        with pytest.raises(NetworkError, match="cannot be reached") as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 8


def test_secrets_are_not_shown(moto: str) -> None:
    """Fails if the secret key gets into an error or a log."""
    settings = options(moto)
    assert "secret" not in repr(settings).replace("secret_key", "")
    store = S3Store("no-such-bucket", options=settings)
    with pytest.raises(MissingObjectError) as caught:
        S3Store("no-such-bucket", options=settings).get_range("a", 0, 0)
    assert "secret" not in str(caught.value) + store.name


class Forgetful(threading.Thread):
    """A line to a server that does not know ``If-None-Match``, as older ones do not.

    Either it ignores the condition, which is taken out on the way, or it refuses all such requests.
    """

    def __init__(self, endpoint: str, *, refuses: bool) -> None:
        super().__init__(daemon=True)
        far = urllib.parse.urlsplit(endpoint)
        seen: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen.append(self.command)
                condition = self.headers.get("If-None-Match")
                if condition is not None and refuses:
                    content, status, headers = _NOT_IMPLEMENTED, 501, []
                else:
                    del self.headers["If-None-Match"]
                    connection = http.client.HTTPConnection(str(far.hostname), far.port)
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    content, status = answer.read(), answer.status
                    headers = answer.getheaders()
                    connection.close()
                self.send_response(status)
                for key, value in headers:
                    if key.lower() in ("etag", "last-modified", "content-type"):
                        self.send_header(key, value)
                length = dict(headers).get("Content-Length", str(len(content)))
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815 - names of the module

            def log_message(self, *arguments: object) -> None:
                pass

        self.seen = seen
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def run(self) -> None:
        self.server.serve_forever(0.05)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_without_conditions_is_noticed_once(moto: str, refuses: bool) -> None:
    """Fails if ``only_new`` replaces where the server ignores it, or cannot be used there."""
    bucket = next(_BUCKETS)
    make_bucket(moto, bucket)
    line = Forgetful(moto, refuses=refuses)
    line.start()
    try:
        store = S3Store(bucket, options=options(line.endpoint))
        store.put("format", [b"first"], only_new=True)
        assert line.seen == ["HEAD", "PUT", "PUT"]
        line.seen.clear()
        for name in ("format", "keys/1"):
            if name != "format":
                store.put(name, [b"first"], only_new=True)
                assert line.seen == ["HEAD", "HEAD", "PUT"]  # that of "format" came before
            with pytest.raises(ObjectExistsError):
                store.put(name, [b"second"], only_new=True)
            assert S3Store(bucket, options=options(moto)).get(name) == b"first"
    finally:
        line.server.shutdown()
        line.server.server_close()


class Astray(http.server.BaseHTTPRequestHandler):
    """A server that answers as Amazon's does for a bucket of another region."""

    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_bucket_of_another_region_is_said_to_be_one() -> None:
    """Fails if a wrong region is taken for a failing network, and tried again."""
    with http.server.HTTPServer(("127.0.0.1", 0), Astray) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        store = S3Store("bucket", options=options(f"http://127.0.0.1:{server.server_port}"))
        with pytest.raises(ReadError, match="another region") as caught:
            store.get("format")
        thread.join()
    assert "AWS_REGION" in str(caught.value.advice)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("PUT http://169.254.169.254/latest in 1s - status code: 403", TargetError, "credentials"),
        ("Server returned non-2xx status code: 403 Forbidden: ", TargetError, "403"),
        ("status code: 403 Forbidden: <Code>InvalidAccessKeyId</Code>", TargetError, "Invalid"),
        ("status code: 507 Insufficient Storage", TargetError, "507"),
        ("status code: 501 Not Implemented", TargetError, "501"),
        ("status code: 400 Bad: <Code>EntityTooLarge</Code>", TargetError, "EntityTooLarge"),
        ("status code: 400 Bad Request: <Code>RequestTimeout</Code>", NetworkError, "Timeout"),
        ("status code: 409 <Code>ConditionalRequestConflict</Code>", NetworkError, "Conflict"),
        ("status code: 429 Too Many Requests", NetworkError, "429"),
        ("status code: 503 <Code>SlowDown</Code>", NetworkError, "SlowDown"),
        ("HTTP error: error sending request kind: Timeout", NetworkError, "in time"),
        ("something that nobody has seen", NetworkError, "failed"),
    ],
)
def test_only_what_may_pass_is_a_network_error(
    text: str, kind: type[ImagingError], words: str
) -> None:
    """Fails if a refusal is tried again for a minute, or a busy server ends a backup."""
    error = Answer.of(Exception(text)).error(TargetError, "s3://bucket/a")
    assert type(error) is kind
    assert words in str(error)
