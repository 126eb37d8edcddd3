"""How LUKS derives, splits and joins keys.

Source: "LUKS1 On-Disk Format Specification", version 1.2.3, sections 2.2 (hashes), 2.4
(anti-forensic splitter) and 5.2 (PBKDF2).
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.limits import KDF_ITERATIONS_MAX
from imprint.core.units import div_up

HASH_NAMES: Final = ("md5", "ripemd160", "sha1", "sha224", "sha256", "sha384", "sha512")
"""Of ``hashSpec``. Not all are there with every OpenSSL."""


def check_hash(name: str, *, where: str) -> None:
    """Refuse a hash that cannot be computed here; ``where`` names the image.

    Raises:
        UnsupportedFeatureError: if so.
    """
    if name not in HASH_NAMES:
        raise UnsupportedFeatureError(
            f"expected a hash of {', '.join(HASH_NAMES)}, found {name!r}", name=where
        )
    try:
        hashlib.new(name)
    except ValueError:  # ripemd160 is optional in OpenSSL 3
        raise UnsupportedFeatureError(
            f"the hash {name} is not available in this system's OpenSSL", name=where
        ) from None


def digest_size(hash_name: str) -> int:
    """Of a hash that passed :func:`check_hash`, in bytes."""
    return hashlib.new(hash_name).digest_size


def check_rounds(hash_name: str, iterations: int, size: int, *, what: str, where: str) -> None:
    """Refuse to derive a key of ``size`` bytes if that takes too long; ``where`` is the image.

    PBKDF2 runs all its iterations again for each piece of the key as long as a digest.

    Raises:
        UnsupportedFeatureError: if so.
    """
    rounds = iterations * div_up(size, digest_size(hash_name))
    if rounds > KDF_ITERATIONS_MAX:
        raise UnsupportedFeatureError(
            f"expected at most {KDF_ITERATIONS_MAX} rounds of key derivation, "
            f"found {rounds} for {what}",
            name=where,
        )


def derive(hash_name: str, secret: bytes, salt: bytes, iterations: int, size: int) -> bytes:
    """``size`` bytes of PBKDF2; without the interpreter's lock, but not to be interrupted."""
    return hashlib.pbkdf2_hmac(hash_name, secret, salt, iterations, size)


def join_stripes(material: bytes, stripes: int, hash_name: str) -> bytes:
    """The key that :func:`split_stripes` made ``material`` of.

    Every bit of the material is needed: destroying a part of it destroys the key, even on
    media that keep some of what was overwritten.
    """
    size = len(material) // stripes
    last = (stripes - 1) * size
    return _xor(_diffused(memoryview(material)[:last], size, hash_name), material[last:])


def split_stripes(key: bytes, stripes: int, hash_name: str) -> bytes:
    """Blow ``key`` up to ``stripes`` times its length: all random but for the last stripe."""
    size = len(key)
    random = secrets.token_bytes((stripes - 1) * size)
    return random + _xor(_diffused(memoryview(random), size, hash_name), key)


def _diffused(stripes: memoryview, size: int, hash_name: str) -> bytes:
    """All stripes folded into one, each sum spread over its whole length by hashing."""
    value = bytes(size)
    for start in range(0, len(stripes), size):
        value = _spread(_xor(value, stripes[start : start + size]), hash_name)
    return value


def _spread(value: bytes, hash_name: str) -> bytes:
    """Replace each piece, as long as a digest, by the hash of its number and itself."""
    step = digest_size(hash_name)
    pieces = (
        hashlib.new(hash_name, index.to_bytes(4, "big") + value[start : start + step]).digest()
        for index, start in enumerate(range(0, len(value), step))
    )
    return b"".join(pieces)[: len(value)]


def _xor(left: bytes, right: bytes | memoryview) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
