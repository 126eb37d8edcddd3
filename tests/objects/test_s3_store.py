"""Objects in buckets of a real server: that of moto, which speaks S3 from memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import NetworkError, ReadError, TargetError
from imprint.objects.contract import MissingObjectError
from imprint.objects.s3 import S3Options, S3Store
from imprint.testing.object_servers import free_port, make_bucket
from imprint.testing.object_suite import ObjectStoreContract

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.objects.contract import ObjectStore

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
    """Fails if a listing ends with the server's first answer: 1000 objects."""
    bucket = next(_BUCKETS)
    make_bucket(moto, bucket)
    store = S3Store(bucket, "p", options=options(moto))
    names = [f"packs/{index:04x}" for index in range(1100)]
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
