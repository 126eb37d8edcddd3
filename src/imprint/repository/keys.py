"""The secrets of an encrypted repository, and the keys that hold them: passphrases and key files.

Source: ``docs/repository-format.md``, "Keys"; RFC 9106 (Argon2id).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from imprint.codecs import argon2
from imprint.core.errors import PassphraseError, RepositoryError, UsageError
from imprint.core.json_object import JsonObject
from imprint.core.limits import KDF_WORK_BYTES_MAX
from imprint.core.units import KIB
from imprint.repository.key_files import check_secret
from imprint.repository.key_objects import (
    COST_DEFAULT,
    SALT_BYTES,
    Cost,
    KeyObject,
    Origin,
    Rights,
    is_label,
)
from imprint.repository.protection import CIPHERS, KEY_BYTES, NONCE_BYTES, Encrypted, decrypt
from imprint.repository.snapshots import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.repository.protection import Protection

_REPOSITORY_ID: Final = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class Encryption:
    """What ``format`` says of a repository's encryption; keys are bound to it.

    Were they not, a store could put its own public key into ``format`` and read all that a
    host with an ``add`` key sends.

    Attributes:
        repository: its id, 32 hexadecimal digits.
        cipher: one of ``CIPHERS``.
        public: the X25519 key that objects are sealed to.
    """

    repository: str
    cipher: str
    public: bytes

    @classmethod
    def parse(cls, value: object, *, repository: object, where: str) -> Encryption:
        """Of the values of ``encryption`` and ``id`` in ``format``; ``where`` is for errors.

        Raises:
            RepositoryError: if they are not what they have to be.
        """
        if not isinstance(repository, str) or not _REPOSITORY_ID.match(repository):
            raise RepositoryError(f"expected an id, found {repository!r:.80}", name=where)
        if not isinstance(value, dict):
            raise RepositoryError("encryption: expected an object, found another", name=where)
        values = JsonObject(value, where, "encryption", RepositoryError)
        cipher = values.text("cipher")
        if cipher not in CIPHERS:
            raise RepositoryError(
                f"expected a cipher of {', '.join(CIPHERS)}, found {cipher!r:.80}", name=where
            )
        return cls(repository, cipher, values.digits("public", KEY_BYTES, KEY_BYTES))

    def encode(self) -> dict[str, str]:
        """The value of ``encryption`` in ``format``."""
        return {"cipher": self.cipher, "public": self.public.hex()}

    def associated(self, rights: Rights) -> bytes:
        """What a key object proves besides its secrets."""
        text = f"imprint key 1 {rights} {self.repository} {self.cipher} {self.public.hex()}"
        return text.encode()


@dataclass(frozen=True)
class Secrets:
    """All that an encrypted repository hides behind its keys.

    Attributes:
        cipher: one of ``CIPHERS``.
        public: the key that objects are sealed to; no secret.
        id_key: names chunks.
        index_key: of what everybody who adds has to read.
        private: opens what was sealed; ``None`` with a key that may only add.
        unlocked_by: the name of the key object that they come from; empty if they are new.
    """

    cipher: str
    public: bytes
    id_key: bytes = field(repr=False)
    index_key: bytes = field(repr=False)
    private: bytes | None = field(repr=False)
    unlocked_by: str = ""

    @property
    def rights(self) -> Rights:
        """The most that a key made of them can permit."""
        return Rights.ADD if self.private is None else Rights.FULL

    def protection(self) -> Protection:
        """How the repository protects its objects.

        Raises:
            RepositoryError: if the public key is not the private one's.
        """
        return Encrypted(
            self.cipher,
            id_key=self.id_key,
            index_key=self.index_key,
            public=self.public,
            private=self.private,
        )

    def encryption(self, repository: str) -> Encryption:
        """What the ``format`` of the repository with this id has to say."""
        return Encryption(repository, self.cipher, self.public)


def new_secrets(cipher: str = CIPHERS[0]) -> Secrets:
    """Random ones, for a new repository."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    assert cipher in CIPHERS
    private = X25519PrivateKey.generate()
    return Secrets(
        cipher,
        private.public_key().public_bytes_raw(),
        os.urandom(KEY_BYTES),
        os.urandom(KEY_BYTES),
        private.private_bytes_raw(),
    )


def wrap_key(
    secrets: Secrets,
    encryption: Encryption,
    secret: bytes,
    *,
    rights: Rights,
    origin: Origin,
    label: str = "",
    cost: Cost = COST_DEFAULT,
) -> KeyObject:
    """A new key object, that ``secret`` opens.

    Args:
        secrets: what it holds; the private key only if ``rights`` are full.
        encryption: of the repository.
        secret: the passphrase, or the content of the key file.
        rights: what it shall permit.
        origin: what ``secret`` is.
        label: for people to tell keys apart; everybody who sees the store can read it.
        cost: of trying a passphrase.

    Raises:
        PassphraseError: if ``secrets`` permit less than ``rights``, or ``secret`` is empty.
        UsageError: if the label is too long or has control characters.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    check_secret(secret, "the new key")
    if rights is Rights.FULL and secrets.private is None:
        raise PassphraseError(
            "expected a key with the rights `full`, found one that may only add",
            advice="unlock the repository with another key",
        )
    if not is_label(label):
        raise UsageError(f"expected a label of one line, found {label!r:.80}")
    held = {"id": secrets.id_key.hex(), "index": secrets.index_key.hex()}
    if rights is Rights.FULL and secrets.private is not None:
        held["private"] = secrets.private.hex()
    name, salt = f"keys/{os.urandom(8).hex()}", os.urandom(SALT_BYTES)
    nonce = os.urandom(NONCE_BYTES)
    cipher = AESGCM(_derive(secret, salt, cost, name))
    wrapped = cipher.encrypt(nonce, canonical(held), encryption.associated(rights))
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return KeyObject(name, rights, origin, label, created, cost, salt, nonce, wrapped)


def unwrap_key(key: KeyObject, encryption: Encryption, secret: bytes) -> Secrets | None:
    """The secrets in a key object; ``None`` if ``secret`` does not open it.

    Takes as long and as much memory as the object demands, in bounds.

    Raises:
        RepositoryError: if it holds something else.
        UnsupportedFeatureError: if this system has no Argon2id, or less memory than it needs.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(_derive(secret, key.salt, key.cost, key.name))
    associated = encryption.associated(key.rights)
    try:
        content = decrypt(cipher, key.nonce, key.wrapped, associated, what=key.name)
    except RepositoryError:
        return None
    try:
        return _secrets(
            JsonObject.parse(content, where=key.name, error=RepositoryError), key, encryption
        )
    except RepositoryError:  # not a word of what was hidden
        raise RepositoryError("expected a key that holds keys", name=key.name) from None


def _secrets(values: JsonObject, key: KeyObject, encryption: Encryption) -> Secrets:
    id_key, index_key = (values.digits(part, KEY_BYTES, KEY_BYTES) for part in ("id", "index"))
    private = None
    if key.rights is Rights.FULL:
        private = values.digits("private", KEY_BYTES, KEY_BYTES)
    return Secrets(encryption.cipher, encryption.public, id_key, index_key, private, key.name)


def unlock(
    keys: Sequence[KeyObject], secret: bytes, encryption: Encryption, *, where: str
) -> Secrets:
    """The secrets of a repository, by the first of its keys that ``secret`` opens.

    Args:
        keys: all of the repository; the cheapest are tried first, so that an absurd one
            does not keep anybody out.
        secret: a passphrase, or the content of a key file.
        encryption: of the repository.
        where: the repository, for errors.

    Raises:
        PassphraseError: if it opens none.
        RepositoryError: if there are no keys, or trying them takes too long.
    """
    if not keys:
        raise RepositoryError("expected at least one key of the repository, found none", name=where)
    work = 0
    for key in sorted(keys, key=lambda key: (_work_bytes(key.cost), key.name)):
        work += _work_bytes(key.cost)
        if work > KDF_WORK_BYTES_MAX:
            raise RepositoryError(
                f"trying all keys takes too long; the passphrase opens none before {key.name}",
                name=where,
            )
        found = unwrap_key(key, encryption, secret)
        if found is not None:
            return found
    raise PassphraseError(
        "expected the passphrase or key file of one of its keys, found another", name=where
    )


def _work_bytes(cost: Cost) -> int:
    return cost.memory_kib * KIB * cost.passes


def _derive(secret: bytes, salt: bytes, cost: Cost, name: str) -> bytes:
    return argon2.derive("argon2id", secret, salt=salt, size=KEY_BYTES, name=name, **cost._asdict())
