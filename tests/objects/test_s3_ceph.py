"""Objects in buckets of Ceph's gateway: another S3 server, made by other people than moto's."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.errors import ReadError, TargetError
from imprint.objects.s3 import S3Options, S3Store
from imprint.testing.ceph_rgw import ACCESS_KEY, SECRET_KEY, TOOLS, ceph_gateway
from imprint.testing.object_suite import ObjectStoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.objects.contract import ObjectStore

pytestmark = [
    pytest.mark.oracle(*TOOLS),
    pytest.mark.slow,
    pytest.mark.timeout(240),
]
_BUCKETS = (f"bucket-{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def ceph() -> Iterator[Any]:
    """A client of another library, to make buckets with."""
    pytest.importorskip("obstore")
    boto3 = pytest.importorskip("boto3")
    # Not below pytest's folder: the path of a socket has at most 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="ceph") as folder,
        ceph_gateway(Path(folder)) as endpoint,
    ):
        yield boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )


def _store(client: Any, bucket: str, secret: str = SECRET_KEY) -> S3Store:  # noqa: ANN401
    endpoint = client.meta.endpoint_url
    options = S3Options(endpoint=endpoint, access_key=ACCESS_KEY, secret_key=secret)
    return S3Store(bucket, "some/folder", options=options)


class TestCeph(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, ceph: Any) -> None:  # noqa: ANN401
        self.client = ceph
        self.bucket = next(_BUCKETS)
        ceph.create_bucket(Bucket=self.bucket)

    def make(self, tmp_path: Path) -> ObjectStore:
        return self.another(None, tmp_path)

    def another(self, store: ObjectStore | None, tmp_path: Path) -> ObjectStore:
        return _store(self.client, self.bucket)


def test_another_client_reads_what_was_put(ceph: Any) -> None:  # noqa: ANN401
    """Fails if an object is not what other programs call one: in parts, encoded, elsewhere."""
    bucket = next(_BUCKETS)
    ceph.create_bucket(Bucket=bucket)
    store = _store(ceph, bucket)
    data = bytes(range(256)) * (65 << 12)
    for name, content in (("index/large", data), ("format", b"{}")):
        store.put(name, [content])
        found = ceph.get_object(Bucket=bucket, Key=f"some/folder/{name}")["Body"].read()
        assert found == content


def test_a_wrong_secret_is_a_refusal(ceph: Any) -> None:  # noqa: ANN401
    """Fails if who may not is taken for a failing network, and tried again."""
    bucket = next(_BUCKETS)
    ceph.create_bucket(Bucket=bucket)
    store = _store(ceph, bucket, "wrong")
    with pytest.raises(ReadError, match="403"):
        store.get("format")
    with pytest.raises(TargetError, match="403"):
        store.put("format", [b"{}"])


def test_a_bucket_that_is_not_there_is_said_to_be_missing(ceph: Any) -> None:  # noqa: ANN401
    """Fails if a typing error in an address looks like an empty repository."""
    with pytest.raises(ReadError, match="no such bucket"):
        list(_store(ceph, "never-made").list("index/"))
