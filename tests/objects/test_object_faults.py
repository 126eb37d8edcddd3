"""A bad line to an S3 server: it works in the end, or there is one error in bounded time."""

from __future__ import annotations

import itertools
import time
import urllib.parse
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import NetworkError
from imprint.objects.contract import MissingObjectError, ObjectExistsError
from imprint.objects.retrying import Retries, RetryingStore
from imprint.objects.s3 import S3Options, S3Store
from imprint.testing.faulty_proxy import Fault, FaultyProxy
from imprint.testing.object_servers import make_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.objects.contract import ObjectStore

DATA = bytes(range(256)) * 2000
FAULTS = [
    fault for fault in Fault if fault not in (Fault.NONE, Fault.SILENT, Fault.SLOW)
]  # SILENT costs a second each time: it has tests of its own
_ANSWERED = ("get", "get_range", "list")
_BUCKETS = (f"faults-{number}" for number in itertools.count())


class Line:
    """A store behind a proxy, and the same one without it."""

    def __init__(
        self, endpoint: str, proxy: FaultyProxy, *, attempts: int = 4, timeout_s: float = 5.0
    ) -> None:
        bucket = next(_BUCKETS)
        make_bucket(endpoint, bucket)
        self.proxy = proxy
        self.direct = S3Store(bucket, options=_options(endpoint, 20.0))
        self._bucket = bucket
        self.bare = self.behind(timeout_s=timeout_s)
        self.store: ObjectStore = RetryingStore(self.bare, Retries(attempts, 0.01, 0.02))

    def behind(self, *, timeout_s: float) -> S3Store:
        """The place as it is seen through the proxy."""
        endpoint = f"http://127.0.0.1:{self.proxy.port}"
        return S3Store(self._bucket, options=_options(endpoint, timeout_s))


def _options(endpoint: str, timeout_s: float) -> S3Options:
    return S3Options(
        endpoint=endpoint, access_key="somebody", secret_key="secret", timeout_s=timeout_s
    )


@pytest.fixture
def line(moto: str) -> Iterator[Line]:
    port = urllib.parse.urlsplit(moto).port
    assert port is not None
    with FaultyProxy(port) as proxy:
        yield Line(moto, proxy)


def _requests(store: ObjectStore) -> dict[str, Callable[[], object]]:
    return {
        "get": lambda: store.get("packs/aa/1"),
        "get_range": lambda: store.get_range("packs/aa/1", 5, 100_000),
        "stat": lambda: store.stat("packs/aa/1"),
        "list": lambda: [info.name for info in store.list("packs/")],
        "put": lambda: store.put("packs/aa/2", [DATA]),
        "only new": lambda: store.put("packs/aa/3", [DATA], only_new=True),
        "delete": lambda: store.delete("packs/aa/1"),
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("what", ["get", "get_range", "stat", "list", "put", "only new", "delete"])
def test_a_request_succeeds_after_faults(line: Line, what: str, fault: Fault) -> None:
    """Fails if a passing fault is not survived, or what comes in the end is not all of it."""
    if fault is Fault.ANSWER_CUT and what not in _ANSWERED:
        fault = Fault.ANSWER_LOST  # without a body, nothing is left of the answer
    line.direct.put("packs/aa/1", [DATA])
    expected = _requests(line.direct)[what]() if what in _ANSWERED else None
    line.proxy.plan([fault, Fault.NONE, fault, fault] if what == "only new" else [fault, fault])
    found = _requests(line.store)[what]()
    if expected is not None:
        assert found == expected
    if what in ("put", "only new"):
        assert line.direct.get("packs/aa/2" if what == "put" else "packs/aa/3") == DATA
    if what == "delete":
        assert line.direct.stat("packs/aa/1") is None
    if what == "stat":
        assert found == line.direct.stat("packs/aa/1")
    assert line.proxy.requests >= 2


@pytest.mark.parametrize(
    "fault", [Fault.REFUSED, Fault.REQUEST_CUT, Fault.ANSWER_CUT, Fault.ERROR_503, Fault.SILENT]
)
def test_a_lasting_fault_is_one_error_in_bounded_time(moto: str, fault: Fault) -> None:
    """Fails if a broken line hangs, leaks another exception, or leaves part of an object."""
    port = urllib.parse.urlsplit(moto).port
    assert port is not None
    with FaultyProxy(port) as proxy:
        line = Line(moto, proxy, attempts=2, timeout_s=0.1 if fault is Fault.SILENT else 0.3)
        line.direct.put("packs/aa/1", [DATA])
        proxy.plan(lasting=fault)
        # The answer to a put has no body that could be cut.
        for what in ("get", "list", "put")[: 2 if fault is Fault.ANSWER_CUT else 3]:
            began = time.monotonic()
            with pytest.raises(NetworkError) as caught:
                _requests(line.store)[what]()
            assert "\n" not in str(caught.value)
            # Twice the time that one request may take; sending one may take ten times as long.
            assert time.monotonic() - began < 10
        assert line.direct.stat("packs/aa/2") is None


def test_an_upload_that_is_cut_off_leaves_no_object(line: Line) -> None:
    """Fails if a part of an object is visible under its name."""
    line.proxy.plan([Fault.REQUEST_CUT])
    with pytest.raises(NetworkError):
        line.bare.put("packs/aa/2", [DATA])
    time.sleep(0.1)  # for the server to see the end of the connection
    assert line.direct.stat("packs/aa/2") is None
    with pytest.raises(MissingObjectError):
        line.direct.get("packs/aa/2")


def test_an_object_that_was_made_unseen_is_our_own(line: Line) -> None:
    """Fails if the second attempt takes the first one's object for somebody else's."""
    line.store.put("format", [b"first"], only_new=True)  # the place is known from here on
    line.proxy.plan([Fault.ANSWER_LOST])
    line.store.put("keys/1", [b"ours"], only_new=True)
    assert line.direct.get("keys/1") == b"ours"
    assert line.proxy.requests == 3  # put, put again, look


def test_an_object_of_somebody_else_is_not_our_own(line: Line) -> None:
    """Fails if a doubtful attempt excuses replacing, or claims what another writer made."""
    line.store.put("format", [b"first"], only_new=True)
    line.direct.put("keys/1", [b"theirs"])
    line.proxy.plan([Fault.ERROR_500])
    with pytest.raises(ObjectExistsError):
        line.store.put("keys/1", [b"ours"], only_new=True)
    assert line.direct.get("keys/1") == b"theirs"


def test_a_slow_line_is_no_fault(line: Line) -> None:
    """Fails if the whole answer has to be there in the time that one wait may take."""
    line.direct.put("packs/aa/1", [DATA * 2])
    slow = line.behind(timeout_s=0.3)
    line.proxy.plan(lasting=Fault.SLOW)
    began = time.monotonic()
    assert slow.get("packs/aa/1") == DATA * 2
    assert time.monotonic() - began > 0.5  # 1 MB in pieces of 16 KiB, each 20 ms after another
