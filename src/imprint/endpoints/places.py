"""Places for objects by their address: ``docs/repository-places.md`` is the user's page of this."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.objects.cached import CacheOptions
    from imprint.objects.contract import ObjectStore
    from imprint.objects.retrying import Retries

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX: Final = re.compile(r"(?:[A-Za-z0-9_=+@,-][A-Za-z0-9._=+@,-]*/)*")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,255}")
_S3_QUERY: Final = ("endpoint", "region", "style", "anonymous")
_PORT_MAX: Final = 65535


@dataclass(frozen=True)
class Bandwidth:
    """How much of the line may be used, in bytes per second; ``None``: all of it."""

    upload: int | None = None
    download: int | None = None


def open_place(
    address: str,
    *,
    environment: Mapping[str, str],
    retries: Retries | None = None,
    bandwidth: Bandwidth | None = None,
    cache: CacheOptions | None = None,
) -> ObjectStore:
    """The place of an address. Nothing is connected to or made yet.

    Args:
        address: a path, ``s3://BUCKET/PREFIX`` or ``sftp://USER@HOST:PORT/PATH``.
        environment: where credentials and endpoints come from, as the user's shell has them.
        retries: of requests over a network; ``None``: the usual.
        bandwidth: limits of what is sent and received.
        cache: what is kept of places that are far away; ``None``: nothing.

    Raises:
        UsageError: if it is no address of a place.
        UnsupportedFeatureError: if the module that it needs is not installed.
    """
    if not address or "\0" in address:
        raise UsageError("expected the address of a repository, found nothing that is one")
    scheme = _SCHEME.match(address)
    kind = scheme[1].lower() if scheme else ""
    if kind == "":
        store = _local(Path(address))
    elif kind == "file":
        store = _local(Path(_file_path(address)))
    elif kind == "s3":
        store = _s3(address, environment)
    elif kind == "sftp":
        store = _sftp(address)
    else:
        raise UsageError(
            f"expected a path, s3:// or sftp://, found {kind}://", name=without_secrets(address)
        )
    if bandwidth is not None and (bandwidth.upload or bandwidth.download):
        from imprint.objects.limited import LimitedStore

        store = LimitedStore(store, upload=bandwidth.upload, download=bandwidth.download)
    if kind in ("s3", "sftp"):
        from imprint.objects.retrying import RetryingStore

        store = RetryingStore(store, retries)
        if cache is not None and cache.size_max > 0:
            from imprint.objects.cached import CachedStore

            store = CachedStore(store, cache)
    return store


def without_secrets(address: str) -> str:
    """An address as it may be shown: without a password, and without a query."""
    text = re.sub(r"(?<=://)[^/@]*@", "", address.partition("?")[0])
    return text[:200]


def _local(folder: Path) -> ObjectStore:
    from imprint.objects.local import LocalStore

    return LocalStore(folder)


def _file_path(address: str) -> str:
    parts = _split(address)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError("expected file:///PATH", name=without_secrets(address))
    return urllib.parse.unquote(parts.path)


def _s3(address: str, environment: Mapping[str, str]) -> ObjectStore:
    parts = _split(address)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    shown = without_secrets(address)
    if _BUCKET.fullmatch(bucket) is None:
        raise UsageError("expected s3://BUCKET/PREFIX, found no name of a bucket", name=shown)
    if prefix and _PREFIX.fullmatch(prefix + "/") is None:
        raise UsageError(f"expected a prefix of plain characters, found {prefix!r:.80}", name=shown)
    query = _query(parts.query, _S3_QUERY, shown)
    try:
        import obstore  # noqa: F401 - to know now whether it is there

        from imprint.objects.s3 import S3Options, S3Store
    except ImportError as failure:
        raise _lacking("obstore", "s3", shown) from failure
    key, secret, token = _credentials(environment, shown)
    options = S3Options(
        endpoint=_endpoint(
            query.get("endpoint")
            or environment.get("AWS_ENDPOINT_URL_S3")
            or environment.get("AWS_ENDPOINT_URL")
            or None,
            shown,
        ),
        region=query.get("region")
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or "us-east-1",
        access_key=key,
        secret_key=secret,
        token=token,
        is_anonymous=_is_yes(query.get("anonymous", "no"), "anonymous", shown),
        is_path_style=_is_path_style(query.get("style", "path"), shown),
    )
    if options.endpoint is not None and not options.is_path_style:
        url = urllib.parse.urlsplit(options.endpoint)
        options = replace(options, endpoint=f"{url.scheme}://{bucket}.{url.netloc}")
    return S3Store(bucket, prefix, options=options)


def _credentials(
    environment: Mapping[str, str], shown: str
) -> tuple[str | None, str | None, str | None]:
    """Key, secret and token; without any, those of the machine's role are asked for later."""
    key = environment.get("AWS_ACCESS_KEY_ID") or None
    secret = environment.get("AWS_SECRET_ACCESS_KEY") or None
    if (key is None) != (secret is None):
        raise UsageError(
            "expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, found one of them", name=shown
        )
    return key, secret, environment.get("AWS_SESSION_TOKEN") or None


def _endpoint(text: str | None, shown: str) -> str | None:
    if text is None:
        return None
    try:
        url = urllib.parse.urlsplit(text)
        is_sound = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or url.username or url.password or url.query or url.path.strip("/"):
        raise UsageError("expected an endpoint like https://HOST:PORT", name=shown)
    return text.rstrip("/")


def _sftp(address: str) -> ObjectStore:
    parts = _split(address)
    shown = without_secrets(address)
    try:
        port = parts.port
    except ValueError as failure:
        raise UsageError("expected sftp://USER@HOST:PORT/PATH", name=shown) from failure
    folder = urllib.parse.unquote(parts.path)
    host = parts.hostname or ""
    if _HOST.fullmatch(host) is None or host.startswith("-") or port == 0:
        raise UsageError("expected sftp://USER@HOST:PORT/PATH, found no host", name=shown)
    if parts.password is not None:
        raise UsageError(
            "a password does not belong into an address", name=shown, advice="use a key"
        )
    if not folder.strip("/") or "\0" in folder:
        raise UsageError("expected sftp://USER@HOST:PORT/PATH, found no path", name=shown)
    _query(parts.query, (), shown)
    if folder.startswith("/~/"):  # as in other programs: from the user's home
        folder = folder.removeprefix("/~/")
    try:
        import paramiko  # noqa: F401 - to know now whether it is there

        from imprint.objects.sftp import SftpStore
        from imprint.objects.sftp_sessions import SSH_PORT, SftpServer
    except ImportError as failure:
        raise _lacking("paramiko", "sftp", shown) from failure
    user = urllib.parse.unquote(parts.username) if parts.username else None
    return SftpStore(SftpServer(host, port or SSH_PORT, user), folder)


def _split(address: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(address)
        _ = parts.hostname
    except ValueError as failure:
        raise UsageError(f"no address: {failure}", name=without_secrets(address)) from failure
    if parts.fragment:
        raise UsageError("a place has no #fragment", name=without_secrets(address))
    return parts


def _query(text: str, known: tuple[str, ...], shown: str) -> dict[str, str]:
    try:
        found = urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    except ValueError as failure:
        raise UsageError(f"expected ?KEY=VALUE, found {text!r:.80}", name=shown) from failure
    for key, _ in found:
        if key not in known:
            expected = f"one of {', '.join(known)}" if known else "no ?KEY=VALUE"
            raise UsageError(f"expected {expected}, found {key!r:.80}", name=shown)
    return dict(found)


def _is_yes(text: str, key: str, shown: str) -> bool:
    if text not in ("yes", "no"):
        raise UsageError(f"expected {key}=yes or {key}=no, found {text!r:.80}", name=shown)
    return text == "yes"


def _is_path_style(text: str, shown: str) -> bool:
    if text not in ("path", "host"):
        raise UsageError(f"expected style=path or style=host, found {text!r:.80}", name=shown)
    return text == "path"


def _lacking(module: str, extra: str, shown: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"needs the Python module {module}",
        name=shown,
        advice=f"pip install 'imprint[{extra}]' brings it",
    )
