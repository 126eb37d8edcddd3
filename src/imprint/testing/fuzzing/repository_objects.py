"""Targets: the small objects of a repository, which are read before anything is trusted."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from imprint.core.errors import PassphraseError, RepositoryError
from imprint.repository.envelope import CONTENT_BYTES_MAX, Head, What, unwrap, wrap
from imprint.repository.key_objects import KeyObject, Rights
from imprint.repository.keys import Encryption
from imprint.repository.protection import Plain
from imprint.repository.signing import TrustedKey, parse_key, parse_trusted, verify
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.repository_keys import (
    ENCRYPTION,
    REPOSITORY_ID,
    SECRETS,
    is_cheap,
    key_of,
    unlocked,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = "tags/" + "ab" * 32
_KEY_NAME: Final = "keys/" + "0" * 16
_SNAPSHOT: Final = bytes(range(32))
_CHECK_BYTES: Final = 32
_JSON_WORDS: Final = (b"null", b"-1", b"1e400", b"NaN", b'"\\ud800"', b"[", b"{}", b"9" * 30)
_PEM: Final = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA%s\n-----END PUBLIC KEY-----\n"
_PUBLIC: Final = b"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target(
        "repository-envelope",
        seeds=_envelopes,
        steps=(unwrap_plain, unwrap_encrypted),
        places=(Place(Head),),
        words=(b"\x28\xb5\x2f\xfd",),
        seal=_seal,
    )
    yield Target(
        "repository-key",
        seeds=lambda: [key_of(b"pw", rights, label="a").encode() for rights in Rights],
        steps=(unlock_repository, read_encryption),
        words=(*_JSON_WORDS, b'"argon2id"', b'"full"', b'"add"', b"1048576", b"1048577", b"64"),
    )
    yield Target(
        "repository-signature",
        seeds=_signatures,
        steps=(verify_signature, read_signing_keys),
        words=(*_JSON_WORDS, b"ssh-ed25519 ", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"),
    )


def unwrap_plain(content: bytes) -> None:
    """As the object that it says it is, and as another."""
    for what in (content[5] if len(content) > 5 else 0, What.TAGS):
        with suppress(RepositoryError, ValueError):
            found = unwrap(content, What(what), Plain(), name=_NAME)
            assert len(found) <= CONTENT_BYTES_MAX[What(what)]


def unwrap_encrypted(content: bytes) -> None:
    """Of all kinds."""
    for what in What:
        with suppress(RepositoryError):
            unwrap(content, what, SECRETS.protection(), name=_NAME)


def unlock_repository(content: bytes) -> None:
    """Either the same secrets, or none."""
    key = KeyObject.parse(content, _KEY_NAME)
    if is_cheap(key):
        with suppress(PassphraseError):
            found = unlocked([key], b"pw")
            assert found.id_key == SECRETS.id_key
            assert found.private in (None, SECRETS.private)


def read_encryption(content: bytes) -> None:
    """What could be in ``format``."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    Encryption.parse(value, repository=REPOSITORY_ID, where="format")


def verify_signature(content: bytes) -> None:
    """By a key that has not signed it."""
    trusted = TrustedKey(SECRETS.public, "none")
    assert not verify(content, _SNAPSHOT, [trusted]).is_trusted


def read_signing_keys(content: bytes) -> None:
    """Private and public ones."""
    with suppress(PassphraseError):
        parse_key(content, "key")
    parse_trusted(content, "keys")


def _envelopes() -> list[bytes]:
    contents = (b"", b'["a"]', b'["abc"]' * 100)
    plain = [wrap(what, content, Plain(), name=_NAME) for what in What for content in contents]
    hidden = [wrap(what, b"[]", SECRETS.protection(), name=_NAME) for what in What]
    return plain + hidden


def _signatures() -> list[bytes]:
    one = {"key": ENCRYPTION.public.hex(), "signature": "00" * 64}
    texts = [json.dumps(value).encode() for value in (one, [one, one])]
    line = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea me\n"
    return [*texts, _PEM % _PUBLIC, line, ENCRYPTION.public.hex().encode()]


def _seal(content: bytearray) -> None:
    """Make the checksum of a plain envelope right."""
    if len(content) >= Head.SIZE + _CHECK_BYTES:
        content[-_CHECK_BYTES:] = blake3(content[:-_CHECK_BYTES]).digest()
