"""Addresses of repositories: what each means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import ImagingError, UsageError
from imprint.endpoints.places import Bandwidth, open_place, without_secrets
from imprint.objects.cached import CachedStore, CacheOptions
from imprint.objects.limited import LimitedStore
from imprint.objects.local import LocalStore
from imprint.objects.retrying import Retries, RetryingStore
from imprint.testing.object_servers import make_bucket

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "hidden-secret"}


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_path_is_a_folder(tmp_path: Path, form: str) -> None:
    """Fails if the folder is another one, or is made before anything is put."""
    store = open_place(form.format(tmp_path / "new" / "repository"), environment={})
    assert isinstance(store, LocalStore)
    assert list(tmp_path.iterdir()) == []
    store.put("format", [b"{}"])
    assert (tmp_path / "new" / "repository" / "format").read_bytes() == b"{}"


def test_a_relative_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if ``./r`` is somewhere else."""
    monkeypatch.chdir(tmp_path)
    open_place("./r", environment={}).put("format", [b"{}"])
    assert (tmp_path / "r" / "format").exists()


@pytest.mark.parametrize("way", ["environment", "service", "query"])
def test_a_bucket_is_found_by_its_endpoint(
    moto: str, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if an endpoint is not used wherever it is given, or the layers lack one.

    The library looks into the environment of the process, too, and is not to prefer that.
    """
    make_bucket(moto, f"places-{way}")
    environment = {**KEYS, "AWS_REGION": "eu-west-1"}
    address = f"s3://places-{way}/some/prefix"
    if way == "query":
        address += f"?endpoint={moto}"
        environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
        environment["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:1"
    elif way == "service":
        environment["AWS_ENDPOINT_URL_S3"] = moto
        environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
    else:
        environment["AWS_ENDPOINT_URL"] = moto + "/"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = open_place(
        address,
        environment=environment,
        retries=Retries(1),
        cache=CacheOptions(tmp_path / "cache"),
        bandwidth=Bandwidth(upload=1 << 30),
    )
    assert isinstance(store, CachedStore)
    assert isinstance(store.inner, RetryingStore)
    store.put("index/a", [b"x"])
    again = open_place(address, environment=environment, retries=Retries(1))
    assert again.get("index/a") == b"x"
    assert again.name == f"s3://places-{way}/some/prefix"


def test_a_limit_holds_for_a_folder_too(tmp_path: Path) -> None:
    """Fails if a limit is forgotten where there is no network."""
    store = open_place(str(tmp_path), environment={}, bandwidth=Bandwidth(download=5))
    assert isinstance(store, LimitedStore)


@pytest.mark.parametrize(
    "address",
    [
        *("", "\0", "ftp://host/x", "s3://", "s3:///x", "s3://b!d/x", "s3://bucket/../x"),
        *("s3://bucket/a//b", "s3://bucket/a%20b", "s3://bucket/x#y", "s3://user@bucket/x"),
        *("s3://bucket/x?endpoint=host:9000", "s3://bucket/x?endpoint=ftp://host"),
        *("s3://bucket/x?endpoint=http://u:p@host", "s3://bucket/x?colour=blue"),
        *("s3://bucket/x?style=odd", "s3://bucket/x?anonymous=perhaps", "s3://bucket/x?style"),
        *("sftp://", "sftp://host", "sftp://host/", "sftp:///path", "sftp://host:99999/x"),
        *("sftp://host:port/x", "sftp://-oProxyCommand=x/y", "sftp://host/x?y=z", "sftp://[::1/x"),
        *("sftp://host:0/x", "file://other/path", "file://"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """Fails if a typing error goes somewhere, or is another error."""
    with pytest.raises(UsageError):
        open_place(address, environment=KEYS)


def test_a_password_is_refused_and_not_shown() -> None:
    """Fails if a password gets into an error, a log or a list of processes with our blessing."""
    with pytest.raises(UsageError, match="password") as caught:
        open_place("sftp://me:hunter2@host/x", environment={})
    assert "hunter2" not in str(caught.value)
    assert without_secrets("s3://b/x?token=hunter2") == "s3://b/x"


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_half_of_the_credentials_is_refused(missing: str) -> None:
    """Fails if one key without the other asks a machine's role, or nobody."""
    half = {name: text for name, text in KEYS.items() if name != missing}
    with pytest.raises(UsageError, match="AWS_"):
        open_place("s3://bucket/x", environment=half)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("sftp://me@host:2222/srv/r", "sftp://me@host:2222//srv/r"),
        ("sftp://host/~/r", "sftp://host/r"),
        ("sftp://[::1]:22/r", "sftp://[::1]//r"),
    ],
)
def test_a_far_folder_has_a_name(address: str, name: str) -> None:
    """Fails if port, user or folder are lost."""
    pytest.importorskip("paramiko")
    assert open_place(address, environment={}).name == name


@given(
    text=st.text(max_size=40)
    | st.sampled_from(["s3://", "sftp://", "file://", "x://"]).flatmap(
        lambda scheme: st.text(max_size=40).map(lambda rest: scheme + rest)
    )
)
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    """Fails if some text ends in another exception, or anything is touched."""
    before = sorted(Path().iterdir())
    try:
        store = open_place(text, environment=KEYS)
    except ImagingError:
        pass
    else:
        store.close()
    assert sorted(Path().iterdir()) == before
