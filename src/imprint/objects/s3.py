"""Objects in a bucket of an S3-compatible object store, through ``obstore``.

Every request is made once: what fails for a reason that may pass is a ``NetworkError``, and
:mod:`imprint.objects.retrying` decides whether to try again.

Source: Amazon S3 API reference, *PutObject* (conditional writes), *GetObject*, *ListObjectsV2*.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, TargetError, UsageError
from imprint.core.units import MIB
from imprint.objects.contract import MissingObjectError, ObjectExistsError, ObjectInfo
from imprint.objects.names import check_name, check_prefix
from imprint.objects.s3_answers import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from obstore import ObjectMeta
    from obstore.store import ClientConfig, S3Config
    from obstore.store import S3Store as Client

TIMEOUT_S: Final = 60.0
"""For connecting, and for each wait for bytes of an answer."""

_UPLOAD_TIMEOUT_FACTOR: Final = 10
_PART_BYTES: Final = 64 * MIB  # of an upload in parts: larger than a pack, which goes in one piece
_LEARN_BYTES_MAX: Final = 1 * MIB


@dataclass(frozen=True)
class S3Options:
    """How to reach a bucket.

    Attributes:
        endpoint: URL of the server; ``None``: Amazon's own of the region.
        region: that requests are signed for.
        access_key: whose requests these are; ``None``: what the machine's role gives, if
            it has one.
        secret_key: that they are signed with.
        token: of temporary credentials.
        is_anonymous: requests are not signed: for public buckets.
        is_path_style: the bucket is in the path of the URL, not in its host.
        timeout_s: for connecting, and for each wait for bytes. A request that sends an
            object may take ten times as long.
    """

    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    is_anonymous: bool = False
    is_path_style: bool = True
    timeout_s: float = TIMEOUT_S


class S3Store:
    """A bucket, or what is below a prefix in one."""

    def __init__(self, bucket: str, prefix: str = "", *, options: S3Options | None = None) -> None:
        """Connects to nothing yet.

        Args:
            bucket: that exists.
            prefix: of all keys; a slash follows it if it is not empty.
            options: how to reach it.

        Raises:
            UsageError: if that makes no sense.
        """
        options = options or S3Options()
        self._name = f"s3://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        wait_s = options.timeout_s
        # Waiting for an answer counts from the first byte that is sent: uploads have longer.
        self._client = _client(bucket, options, wait_s, wait_s * _UPLOAD_TIMEOUT_FACTOR)
        self._uploads = _client(bucket, options, None, wait_s * _UPLOAD_TIMEOUT_FACTOR)
        self._lock = threading.Lock()
        self._is_conditional: bool | None = None

    @property
    def name(self) -> str:
        """The address of the bucket and prefix."""
        return self._name

    @property
    def latency_s(self) -> float:
        """Of a request to a server in the same region, and of most others' first byte."""
        return 0.03

    def get(self, name: str) -> bytes:
        """All of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if the server refuses.
            NetworkError: if it does not answer.
        """
        import obstore

        try:
            return obstore.get(self._client, self._key(name)).bytes().to_bytes()
        except _failures() as failure:
            raise self._reading(failure, name) from failure

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if the server refuses.
            NetworkError: if it does not answer.
        """
        import obstore

        key = self._key(name)
        if length <= 0:  # which no request can ask for
            if self.stat(name) is None:
                raise MissingObjectError("there is no such object", name=self._address(name))
            return b""
        try:
            return obstore.get_range(self._client, key, start=offset, length=length).to_bytes()
        except _failures() as failure:
            if Answer.of(failure).is_behind_the_end:
                return b""
            raise self._reading(failure, name) from failure

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object; others see it when the server has all of it.

        ``only_new`` is a conditional request. A server that ignores the condition is noticed
        at the first one: from then on it is asked whether there is an object before each,
        which does not help against another writer in that very moment.

        Raises:
            ObjectExistsError: if ``only_new`` and there is one already.
            TargetError: if the server refuses.
            NetworkError: if it does not answer.
        """
        key = self._key(name)
        content = b"".join(parts)
        if not only_new:
            self._upload(key, name, content)
            return
        if self._is_conditional:
            self._create(key, name, content)
            return
        with self._lock:
            if self.stat(name) is not None:
                raise ObjectExistsError("exists already", name=self._address(name))
            if self._is_conditional is None:
                self._learn(key, name, content)
            else:
                self._upload(key, name, content)

    def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            TargetError: if the server refuses.
            NetworkError: if it does not answer.
        """
        import obstore

        try:
            obstore.delete(self._client, self._key(name))
        except _failures() as failure:
            answer = Answer.of(failure)
            if not answer.is_missing:
                raise answer.error(TargetError, self._address(name)) from failure

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix, in the order in which the server lists them: ascending.

        Raises:
            ReadError: if the server refuses.
            NetworkError: if it does not answer.
        """
        return self._list(check_prefix(prefix))

    def stat(self, name: str) -> ObjectInfo | None:
        """Size and age of one object.

        Raises:
            ReadError: if the server refuses.
            NetworkError: if it does not answer.
        """
        import obstore

        try:
            return self._info(obstore.head(self._client, self._key(name)))
        except _failures() as failure:
            answer = Answer.of(failure)
            if answer.is_missing:
                return None
            raise answer.error(ReadError, self._address(name)) from failure

    def close(self) -> None:
        """Connections are given back by themselves."""

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _address(self, name: str) -> str:
        return f"{self._name}/{name}"

    def _info(self, found: ObjectMeta) -> ObjectInfo:
        name = found["path"].removeprefix(self._prefix)
        # Whole seconds: some servers tell more in a listing than of one object.
        modified = float(int(found["last_modified"].timestamp()))
        return ObjectInfo(name, found["size"], modified)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        import obstore

        last = ""
        try:
            for group in obstore.list(self._client, self._prefix + prefix, chunk_size=1000):
                for found in group:
                    info = self._info(found)
                    if info.name <= last:
                        raise ReadError("the server lists objects out of order", name=self._name)
                    last = info.name
                    yield info
        except _failures() as failure:
            raise Answer.of(failure).error(ReadError, self._address(prefix)) from failure

    def _upload(self, key: str, name: str, content: bytes) -> None:
        import obstore

        try:
            obstore.put(
                self._uploads,
                key,
                content,
                use_multipart=len(content) > _PART_BYTES,
                chunk_size=_PART_BYTES,
                max_concurrency=2,
            )
        except _failures() as failure:
            raise Answer.of(failure).error(TargetError, self._address(name)) from failure

    def _create(self, key: str, name: str, content: bytes) -> None:
        import obstore

        try:
            obstore.put(self._uploads, key, content, mode="create")
        except _failures() as failure:
            answer = Answer.of(failure)
            if answer.is_existing:
                raise ObjectExistsError("exists already", name=self._address(name)) from failure
            raise answer.error(TargetError, self._address(name)) from failure

    def _learn(self, key: str, name: str, content: bytes) -> None:
        """Make an object that nobody has, and find out whether the server honours conditions.

        The same content is sent twice: if the second is taken, the condition is not honoured,
        and nothing has changed. So no object is needed for trying, nor the right to delete one.
        """
        import obstore

        try:
            obstore.put(self._uploads, key, content, mode="create")
            if len(content) > _LEARN_BYTES_MAX:
                return
            obstore.put(self._uploads, key, content, mode="create")
        except _failures() as failure:
            answer = Answer.of(failure)
            if answer.is_existing:
                # By us, or by another writer before us: then what is there is not ours.
                self._is_conditional = True
                if self.get(name) != content:
                    raise ObjectExistsError("exists already", name=self._address(name)) from failure
            elif answer.is_unknown_condition:
                self._is_conditional = False
                self._upload(key, name, content)
            else:
                raise answer.error(TargetError, self._address(name)) from failure
        else:
            self._is_conditional = False

    def _reading(self, failure: Exception, name: str) -> Exception:
        answer = Answer.of(failure)
        if answer.is_missing:
            return MissingObjectError("there is no such object", name=self._address(name))
        return answer.error(ReadError, self._address(name))


def _client(bucket: str, options: S3Options, read_s: float | None, total_s: float) -> Client:
    import obstore
    from obstore.store import S3Store as Client

    config: S3Config = {
        "region": options.region,
        "virtual_hosted_style_request": not options.is_path_style,
        "disable_bulk_delete": True,  # one request for one object, which every server knows
    }
    if options.endpoint is not None:
        config["endpoint"] = options.endpoint
        config["aws_endpoint_url_s3"] = options.endpoint  # else the environment's would count
    if options.is_anonymous:
        config["skip_signature"] = True
    if options.access_key is not None and options.secret_key is not None:
        config["access_key_id"] = options.access_key
        config["secret_access_key"] = options.secret_key
    if options.token is not None:
        config["session_token"] = options.token
    waits: ClientConfig = {
        "allow_http": (options.endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=min(options.timeout_s, 10.0)),
        "timeout": timedelta(seconds=total_s),
    }
    if read_s is not None:
        waits["read_timeout"] = timedelta(seconds=read_s)
    try:
        return Client(
            bucket,
            config=config,
            client_options=waits,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=total_s)},
        )
    except (obstore.exceptions.BaseError, ValueError) as failure:
        raise UsageError(f"no such place: {failure}", name=f"s3://{bucket}") from failure


def _failures() -> tuple[type[Exception], ...]:
    """What ``obstore`` raises."""
    from obstore.exceptions import BaseError

    return BaseError, OSError, ValueError
