"""What names and hides the bytes of a repository: its hash, its ciphers, and sealing.

There is one :class:`Protection` for an open repository, :class:`Plain` or :class:`Encrypted`;
:mod:`.keys` makes the second of a passphrase. All of it may be used from many threads at once.

Source: ``docs/repository-format.md``, "Envelopes" and "Sealing"; RFC 7748 (X25519), RFC 5869
(HKDF), NIST SP 800-38D (AES-GCM), RFC 8439 (ChaCha20-Poly1305).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from blake3 import blake3

from imprint.core.errors import PassphraseError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    Bytes = bytes | bytearray | memoryview

CIPHERS: Final = ("aes-256-gcm", "chacha20-poly1305")
"""Of objects. The first is the default: 3 to 5 times as fast where processors have AES."""

KEY_BYTES: Final = 32
"""Of every key here, secret or public."""

NAME_BYTES: Final = 32
"""Of the name of a chunk, pack or snapshot."""

NONCE_BYTES: Final = 12
"""Of both ciphers."""

TAG_BYTES: Final = 16
"""By which a ciphertext is longer than what it hides."""

NO_NONCE: Final = bytes(NONCE_BYTES)
"""For a key that encrypts one thing only."""

_SEAL_INFO: Final = b"imprint seal 1"

_UNSEALED_KEPT: Final = 1024
"""Keys of senders that are kept: those of packs of 32 GiB. Making one again takes 0.1 ms."""


class Aead(Protocol):
    """A cipher with its key, which also proves that nothing was changed; of ``cryptography``."""

    def encrypt(self, nonce: bytes, data: Bytes, associated_data: Bytes | None, /) -> bytes:
        """The ciphertext, with a tag of ``TAG_BYTES`` behind it."""

    def decrypt(self, nonce: bytes, data: Bytes, associated_data: Bytes | None, /) -> bytes:
        """What was encrypted; see :func:`decrypt` for one that raises an error of ours."""


class Protection(Protocol):
    """How a repository names its chunks and hides its objects."""

    @property
    def is_encrypted(self) -> bool:
        """Whether objects are encrypted."""

    @property
    def can_read(self) -> bool:
        """Whether sealed objects can be opened; not so with a key that may only add."""

    @property
    def index_aead(self) -> Aead | None:
        """The cipher of what everybody who adds has to read; ``None`` where nothing is hidden."""

    def name_of(self, data: Bytes) -> bytes:
        """``H``, 32 bytes: what chunks and snapshots are called."""

    def seal(self) -> tuple[bytes, Aead] | None:
        """A fresh sender's public key for a new object, and the cipher that it gives.

        The cipher is for this object only, so that its nonces may be counted from 0.
        ``None`` where nothing is hidden.
        """

    def unseal(self, sender: bytes) -> Aead:
        """The cipher of an object that was sealed, by its sender's public key.

        Raises:
            PassphraseError: if the key that unlocked the repository may only add.
            RepositoryError: if nothing here can have been sealed by such a sender.
        """


class Plain:
    """No encryption: a repository that everybody who reaches it can read."""

    is_encrypted: Final = False
    can_read: Final = True
    index_aead: Final = None

    def name_of(self, data: Bytes) -> bytes:
        """``H``: BLAKE3."""
        return blake3(data).digest()

    def seal(self) -> None:
        """Nothing is hidden."""
        return

    def unseal(self, sender: bytes) -> Aead:
        """Always an error: nothing is hidden here."""
        raise RepositoryError("expected objects that are not encrypted, found a sealed one")


class Encrypted:
    """The protection of an encrypted repository.

    Args:
        cipher: one of ``CIPHERS``.
        id_key: names chunks.
        index_key: of what everybody who adds has to read.
        public: of the key that objects are sealed to.
        private: its other half; ``None`` with a key that may only add.

    Raises:
        RepositoryError: if the cipher is not known, or ``public`` and ``private`` do not match.
    """

    is_encrypted: Final = True

    def __init__(
        self,
        cipher: str,
        *,
        id_key: bytes,
        index_key: bytes,
        public: bytes,
        private: bytes | None = None,
    ) -> None:
        from cryptography.hazmat.primitives.asymmetric import x25519

        assert len(id_key) == len(index_key) == len(public) == KEY_BYTES
        self._make_aead = _maker(cipher)
        self._id_key = id_key
        self._public = public
        self._receiver = x25519.X25519PublicKey.from_public_bytes(public)
        self._private: X25519PrivateKey | None = None
        if private is not None:
            self._private = x25519.X25519PrivateKey.from_private_bytes(private)
            if self._private.public_key().public_bytes_raw() != public:
                raise RepositoryError(
                    "expected the public key of this repository, found another's in `format`"
                )
        self.index_aead: Final[Aead] = self._make_aead(index_key)
        self._unsealed = lru_cache(maxsize=_UNSEALED_KEPT)(self._derive_unsealed)

    @property
    def can_read(self) -> bool:
        """Whether the private key is there."""
        return self._private is not None

    def name_of(self, data: Bytes) -> bytes:
        """``H``: BLAKE3 with the id key, so that nobody else can tell what a chunk holds."""
        return blake3(data, key=self._id_key).digest()

    def seal(self) -> tuple[bytes, Aead]:
        """A new sender, whose private half is forgotten at once, and its cipher."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        own = X25519PrivateKey.generate()
        sender = own.public_key().public_bytes_raw()
        try:
            shared = own.exchange(self._receiver)
        except ValueError:  # a point of small order: `format` was made to give everything away
            raise RepositoryError("expected an X25519 key in `format`, found a weak one") from None
        return sender, self._make_aead(seal_key(shared, sender, self._public))

    def unseal(self, sender: bytes) -> Aead:
        """The cipher of an object; the last ones are kept."""
        return self._unsealed(bytes(sender))

    def _derive_unsealed(self, sender: bytes) -> Aead:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        if self._private is None:
            raise PassphraseError(
                "expected a key that may read, found one that may only add",
                advice="unlock the repository with a key that has the rights `full`",
            )
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(sender))
        except ValueError:  # not 32 bytes, or a point of small order
            raise RepositoryError("expected the X25519 key of a sender, found none") from None
        return self._make_aead(seal_key(shared, sender, self._public))


def seal_key(shared: bytes, sender: bytes, receiver: bytes) -> bytes:
    """The key of an object that ``sender`` sealed to ``receiver``, of what X25519 gave both."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=sender + receiver, info=_SEAL_INFO)
    return kdf.derive(shared)


def decrypt(aead: Aead, nonce: bytes, data: Bytes, associated: Bytes | None, *, what: str) -> bytes:
    """What is hidden in ``data``, its tag included.

    Args:
        aead: the cipher.
        nonce: ``NONCE_BYTES``.
        data: the ciphertext.
        associated: what is not hidden, but must not have changed either.
        what: names the object in the error.

    Raises:
        RepositoryError: if anything was changed, or belongs to another key.
    """
    from cryptography.exceptions import InvalidTag

    try:
        return aead.decrypt(nonce, data, associated)
    except InvalidTag:
        raise RepositoryError(
            "expected what this repository encrypted, found bytes that were changed", name=what
        ) from None


def _maker(cipher: str) -> Callable[[bytes], Aead]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

    if cipher not in CIPHERS:
        raise RepositoryError(f"expected a cipher of {', '.join(CIPHERS)}, found {cipher[:40]!r}")
    return AESGCM if cipher == CIPHERS[0] else ChaCha20Poly1305
