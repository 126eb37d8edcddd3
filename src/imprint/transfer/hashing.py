"""Hashes of a disk's content, any number of them in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.buffers import ZEROS
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES: Final = ("md5", "sha1", "sha256", "sha512", "blake3")
DEFAULT_NAMES: Final = ("sha256", "blake3")


class Hasher(Protocol):
    """What ``hashlib`` and ``blake3`` have in common."""

    def update(self, data: memoryview, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""


def parse_names(text: str) -> tuple[str, ...]:
    """The names in ``md5,sha256``, each once.

    Raises:
        UsageError: for a hash that is not known.
    """
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        found = unknown[0] if unknown else text
        raise UsageError(f"expected hashes out of {', '.join(NAMES)}, found {found!r}")
    return names


class HashSet:
    """Several hashes, fed with the disk in ascending order."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hashers = {name: _new(name) for name in names}

    def add(self, names: Iterable[str]) -> None:
        """Take further hashes; nothing was taken in before.

        Raises:
            UsageError: for a hash that is not known.
        """
        for name in names:
            if name not in self._hashers:
                self._hashers[name] = _new(name)

    def update(self, data: memoryview) -> None:
        """Take in the next bytes."""
        for hasher in self._hashers.values():
            hasher.update(data)

    def update_zeros(self, length: int) -> None:
        """Take in a run of zeros."""
        zeros = memoryview(ZEROS)
        for start in range(0, length, len(ZEROS)):
            self.update(zeros[: length - start])

    def digests(self) -> dict[str, str]:
        """Hexadecimal, by name."""
        return {name: hasher.hexdigest() for name, hasher in self._hashers.items()}


def _new(name: str) -> Hasher:
    if name == "blake3":
        from blake3 import blake3  # a compiled module that most runs do not need

        return blake3()
    import hashlib  # OpenSSL costs 3 ms, and most copies do not hash

    return hashlib.new(name, usedforsecurity=False)
