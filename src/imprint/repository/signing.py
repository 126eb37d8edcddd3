"""Signatures of snapshots: who vouches for them. Ed25519, with key files that others read, too.

A signature covers the name of a snapshot, which is the hash of its manifest, which names the root
of the disk's tree: it covers every byte of the disk.

Source: ``docs/repository-format.md``, "Snapshots"; RFC 8032 (Ed25519), RFC 8410 (its keys in PEM).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import PassphraseError, RepositoryError, UsageError
from imprint.core.json_object import JsonObject
from imprint.core.units import KIB
from imprint.repository.key_files import PRIVATE, PUBLIC, read_small, write_new
from imprint.repository.protection import NAME_BYTES
from imprint.repository.snapshots import canonical

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

SIGNATURES_MAX: Final = 64
"""Of one snapshot: each costs 0.1 ms to verify."""

_FILE_BYTES_MAX: Final = 64 * KIB
_CONTENT_BYTES_MAX: Final = 64 * KIB

_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_HEX_LINE: Final = re.compile(r"[0-9a-f]{64}\Z")
_SSH_KIND: Final = "ssh-ed25519"
_SSH_HEAD: Final = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
_OPENSSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"


class TrustedKey(NamedTuple):
    """A public key that the user trusts.

    Attributes:
        public: 32 bytes.
        label: where it comes from, for people.
    """

    public: bytes
    label: str


@dataclass(frozen=True)
class Verdict:
    """Who has signed a snapshot.

    Attributes:
        trusted: those of the user's trusted keys whose signatures are right.
        others: public keys with right signatures that the user does not trust: anybody who can
            write to the repository can be one of them.
        wrong: public keys whose signatures are not of this snapshot.
    """

    trusted: tuple[TrustedKey, ...] = ()
    others: tuple[bytes, ...] = ()
    wrong: tuple[bytes, ...] = ()

    @property
    def is_trusted(self) -> bool:
        """Whether any trusted key has signed it, whatever else there is."""
        return bool(self.trusted)


class SigningKey:
    """An Ed25519 private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public(self) -> bytes:
        """The public half, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """A signature, 64 bytes."""
        return self._private.sign(message)


def generate_key(path: Path) -> SigningKey:
    """Make a key file that only its owner can read; PEM, as ``openssl genpkey`` makes it.

    Raises:
        RefusedError: if the file exists.
        TargetError: if it cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_new(path, content, PRIVATE)
    return SigningKey(private)


def write_public(key: SigningKey, path: Path) -> None:
    """Make a file with the public half of a key, for those who shall trust it; PEM.

    Raises:
        RefusedError: if the file exists.
        TargetError: if it cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(key.public)
    content = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_new(path, content, PUBLIC)


def read_key(path: Path) -> SigningKey:
    """A private key: PEM (PKCS #8), or a file of ``ssh-keygen -t ed25519``; not encrypted.

    Raises:
        PassphraseError: if it cannot be read, or is none.
    """
    return parse_key(read_small(path, _FILE_BYTES_MAX), str(path))


def parse_key(content: bytes, name: str) -> SigningKey:
    """As :func:`read_key`, of a file's content.

    Raises:
        PassphraseError: if it is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    is_ssh = content.lstrip().startswith(_OPENSSH)
    load = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
    try:
        if len(content) > _FILE_BYTES_MAX:
            raise ValueError
        private = load(content, password=None)
    except TypeError:
        raise PassphraseError("expected a key that is not encrypted", name=name) from None
    except (ValueError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise PassphraseError(
            "expected an Ed25519 private key, found something else",
            name=name,
            advice="make one by `openssl genpkey -algorithm ed25519` or `ssh-keygen -t ed25519`",
        )
    return SigningKey(private)


def read_trusted(path: Path) -> list[TrustedKey]:
    """The public keys in a file: PEM, lines of ``ssh-ed25519``, or lines of 64 digits.

    Raises:
        PassphraseError: if it cannot be read, or has none.
    """
    return parse_trusted(read_small(path, _FILE_BYTES_MAX), str(path))


def parse_trusted(content: bytes, name: str) -> list[TrustedKey]:
    """As :func:`read_trusted`, of a file's content.

    Raises:
        PassphraseError: if there are none, or others.
    """
    blocks = _PEM.findall(content)
    if blocks:
        return [TrustedKey(_parse_pem(block, name), name) for block in blocks]
    found = []
    for line in content.decode(errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        public = _public_in(words)
        if public is None:
            raise PassphraseError(
                f"expected Ed25519 public keys, found a line {line!r:.60}", name=name
            )
        found.append(TrustedKey(public, name))
    if not found:
        raise PassphraseError("expected Ed25519 public keys, found none", name=name)
    return found


def sign(snapshot: bytes, key: SigningKey, *, beside: bytes | None = None) -> bytes:
    """The content of a signature object.

    Args:
        snapshot: its name, 32 bytes.
        key: that vouches for it.
        beside: what the signature object holds already, if there is one.

    Raises:
        RepositoryError: if ``beside`` makes no sense.
        UsageError: if it is full.
    """
    own = {"key": key.public.hex(), "signature": key.sign(_message(snapshot)).hex()}
    signatures = [] if beside is None else _parse(beside, snapshot.hex())
    kept = [
        {"key": public.hex(), "signature": signature.hex()}
        for public, signature in signatures
        if public != key.public
    ]
    if len(kept) >= SIGNATURES_MAX:
        raise UsageError(f"has {SIGNATURES_MAX} signatures, and can have no more")
    return canonical([*kept, own] if kept else own)


def verify(content: bytes, snapshot: bytes, trusted: Collection[TrustedKey]) -> Verdict:
    """Who has signed a snapshot.

    Args:
        content: of its signature object.
        snapshot: its name, 32 bytes.
        trusted: the keys that the user trusts.

    Raises:
        RepositoryError: if ``content`` is no signature at all.
    """
    right: list[bytes] = []
    wrong: list[bytes] = []
    for public, signature in _parse(content, snapshot.hex()):
        (right if _is_right(public, signature, _message(snapshot)) else wrong).append(public)
    known = {key.public for key in trusted}
    return Verdict(
        tuple(key for key in trusted if key.public in right),
        tuple(public for public in right if public not in known),
        tuple(wrong),
    )


def _message(snapshot: bytes) -> bytes:
    assert len(snapshot) == NAME_BYTES
    return b"imprint snapshot 1 " + snapshot.hex().encode()


def _parse(content: bytes, name: str) -> list[tuple[bytes, bytes]]:
    """Public keys and signatures."""
    try:
        value = json.loads(content) if len(content) <= _CONTENT_BYTES_MAX else None
    except (ValueError, RecursionError):
        value = None
    items = value if isinstance(value, list) else [value]
    if not 1 <= len(items) <= SIGNATURES_MAX:
        raise RepositoryError(f"expected 1 to {SIGNATURES_MAX} signatures", name=name)
    found = []
    for item in items:
        if not isinstance(item, dict):
            raise RepositoryError("expected a signature, found something else", name=name)
        values = JsonObject(item, name, "signature", RepositoryError)
        public = values.digits("key", PUBLIC_BYTES, PUBLIC_BYTES)
        found.append((public, values.digits("signature", SIGNATURE_BYTES, SIGNATURE_BYTES)))
    return found


def _is_right(public: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parse_pem(block: bytes, name: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = serialization.load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        raise PassphraseError("expected Ed25519 public keys, found another", name=name)
    return public.public_bytes_raw()


def _public_in(words: list[str]) -> bytes | None:
    """The key in a line, if it has one."""
    if _HEX_LINE.match(words[0]):
        return bytes.fromhex(words[0])
    if words[0] != _SSH_KIND or len(words) == 1:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    is_key = blob.startswith(_SSH_HEAD) and len(blob) == len(_SSH_HEAD) + PUBLIC_BYTES
    return blob[len(_SSH_HEAD) :] if is_key else None
