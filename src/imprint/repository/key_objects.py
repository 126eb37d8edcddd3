"""Key objects: how the ways to unlock a repository are stored.

Source: ``docs/repository-format.md``, "Keys".
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from imprint.codecs.argon2 import LANES_MAX
from imprint.core.errors import RepositoryError
from imprint.core.json_object import JsonObject
from imprint.core.limits import KDF_MEMORY_BYTES_MAX
from imprint.core.units import KIB
from imprint.repository.protection import NONCE_BYTES, TAG_BYTES
from imprint.repository.snapshots import canonical

VERSION: Final = 1

KEY_OBJECT_BYTES_MAX: Final = 16 * KIB
"""Real ones have below 1 KiB."""

SALT_BYTES: Final = 32
LABEL_CHARS_MAX: Final = 200
PASSES_MAX: Final = 64

WRAPPED_BYTES_MAX: Final = 1 * KIB
"""Three keys of 64 digits each, with their names, are 230 bytes."""

_KEY_NAME = re.compile(r"keys/[0-9a-f]{16}\Z")
_Choice = TypeVar("_Choice", bound=enum.StrEnum)


class Rights(enum.StrEnum):
    """What a key permits."""

    FULL = "full"
    ADD = "add"


class Origin(enum.StrEnum):
    """What a key is made of."""

    PASSPHRASE = "passphrase"  # noqa: S105 - the word, not one
    FILE = "file"


class Cost(NamedTuple):
    """Of Argon2id. The default is the second that RFC 9106 recommends: about 0.1 s."""

    memory_kib: int = 65536
    passes: int = 3
    lanes: int = 4


COST_DEFAULT: Final = Cost()


@dataclass(frozen=True)
class KeyObject:
    """One way to unlock a repository. All but ``wrapped`` can be read by everybody.

    Attributes:
        name: of the object: ``keys/`` and 16 hexadecimal digits.
        rights: what it permits.
        origin: whether a passphrase or a file opens it.
        label: what its owner calls it.
        created: when, as text.
        cost: of trying a passphrase.
        salt: of the key derivation.
        nonce: of the cipher.
        wrapped: the secrets, encrypted.
    """

    name: str
    rights: Rights
    origin: Origin
    label: str
    created: str
    cost: Cost
    salt: bytes
    nonce: bytes
    wrapped: bytes

    def encode(self) -> bytes:
        """As JSON."""
        kdf = {"name": "argon2id", "salt": self.salt.hex(), **self.cost._asdict()}
        return canonical(
            {
                "created": self.created,
                "kdf": kdf,
                "label": self.label,
                "nonce": self.nonce.hex(),
                "rights": self.rights,
                "source": self.origin,
                "version": VERSION,
                "wrapped": self.wrapped.hex(),
            }
        )

    @classmethod
    def parse(cls, content: bytes, name: str) -> KeyObject:
        """Of an object's content; ``name`` is the object's.

        Raises:
            RepositoryError: if it is none, or demands too much.
        """
        if len(content) > KEY_OBJECT_BYTES_MAX:
            raise RepositoryError(f"expected a key, found {len(content)} bytes", name=name)
        if not _KEY_NAME.match(name):
            raise RepositoryError("expected `keys/` and 16 digits as the name of a key", name=name)
        values = JsonObject.parse(content, where=name, error=RepositoryError)
        values.number("version", VERSION, VERSION)
        kdf = values.inner("kdf")
        if kdf.text("name") != "argon2id":
            raise RepositoryError("expected key derivation by argon2id", name=name)
        return cls(
            name,
            _one_of(Rights, values, "rights"),
            _one_of(Origin, values, "source"),
            _label(values, "label"),
            _label(values, "created"),
            _cost(kdf),
            kdf.digits("salt", SALT_BYTES, SALT_BYTES),
            values.digits("nonce", NONCE_BYTES, NONCE_BYTES),
            values.digits("wrapped", TAG_BYTES, WRAPPED_BYTES_MAX),
        )


def is_label(text: str) -> bool:
    """Whether it can be the label of a key: one short line, that does nothing to a terminal."""
    return len(text) <= LABEL_CHARS_MAX and text.isprintable()


def _one_of(kind: type[_Choice], values: JsonObject, key: str) -> _Choice:
    try:
        return kind(values.text(key))
    except ValueError:
        raise RepositoryError(
            f"{key}: expected one of {', '.join(kind)}, found another", name=values.where
        ) from None


def _label(values: JsonObject, key: str) -> str:
    text = values.text(key)
    if not is_label(text):
        raise RepositoryError(f"{key}: expected one line, found {text!r:.40}", name=values.where)
    return text


def _cost(kdf: JsonObject) -> Cost:
    lanes = kdf.number("lanes", 1, LANES_MAX)
    passes = kdf.number("passes", 1, PASSES_MAX)
    return Cost(kdf.number("memory_kib", 8 * lanes, KDF_MEMORY_BYTES_MAX // KIB), passes, lanes)
