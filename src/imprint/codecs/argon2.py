"""Argon2: keys of passphrases, at a cost in memory that the file decides on.

Source: RFC 9106.
"""

from __future__ import annotations

from typing import Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.limits import KDF_MEMORY_BYTES_MAX, KDF_WORK_BYTES_MAX
from imprint.core.units import KIB

KINDS: Final = {"argon2i": "Argon2i", "argon2id": "Argon2id"}
"""Their names in files, and in ``cryptography``."""

LANES_MAX: Final = 16
"""Threads: ``cryptsetup`` writes at most 4."""

SALT_BYTES: Final = (8, 1024)
"""RFC 9106 demands the first; nobody writes the second."""


def derive(
    kind: str,
    secret: bytes,
    *,
    salt: bytes,
    size: int,
    passes: int,
    memory_kib: int,
    lanes: int,
    name: str,
) -> bytes:
    """A key of ``size`` bytes; without the interpreter's lock, but not to be interrupted.

    Args:
        kind: one of ``KINDS``.
        secret: the passphrase.
        salt: as many bytes as ``SALT_BYTES`` says.
        size: of the key.
        passes: over the memory.
        memory_kib: in KiB.
        lanes: at most ``LANES_MAX``.
        name: what is unlocked, for errors.

    Raises:
        UnsupportedFeatureError: if that is too much, or nothing, or not to be had here.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    memory = memory_kib * KIB
    if memory > KDF_MEMORY_BYTES_MAX or memory * passes > KDF_WORK_BYTES_MAX:
        raise UnsupportedFeatureError(
            f"expected key derivation with at most {KDF_MEMORY_BYTES_MAX} bytes of memory and "
            f"{KDF_WORK_BYTES_MAX} written, found {memory} and {memory * passes}",
            name=name,
        )
    low, high = SALT_BYTES
    if not 1 <= lanes <= LANES_MAX or memory_kib < 8 * lanes or not low <= len(salt) <= high:
        raise UnsupportedFeatureError("Argon2: expected a longer salt or more memory", name=name)
    function = getattr(argon2, KINDS[kind], None)
    try:
        if function is None:
            raise UnsupportedAlgorithm(kind)
        derived: bytes = function(
            salt=salt, length=size, iterations=passes, lanes=lanes, memory_cost=memory_kib
        ).derive(secret)
    except UnsupportedAlgorithm:
        raise UnsupportedFeatureError(
            f"key derivation by {kind} is not in this version of cryptography or OpenSSL",
            name=name,
            advice="pip install --upgrade cryptography",
        ) from None
    except MemoryError:
        raise UnsupportedFeatureError(
            f"key derivation needs {memory} bytes of memory, which are not to be had", name=name
        ) from None
    return derived
