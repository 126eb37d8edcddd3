"""Files with keys: read whole, never larger than a key can be, and written once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from imprint.core.errors import PassphraseError, RefusedError, TargetError
from imprint.core.system import fsync_folder
from imprint.core.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES_MAX: Final = 1 * MIB
"""Of a passphrase or key file."""

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
"""Modes of files."""


def read_secret_file(path: Path) -> bytes:
    """The content of a key file, to be used as it is.

    Raises:
        PassphraseError: if it cannot be read, is empty or larger than ``SECRET_BYTES_MAX``.
    """
    return check_secret(read_small(path, SECRET_BYTES_MAX), str(path))


def check_secret(secret: bytes, name: str) -> bytes:
    """A passphrase, if a key can be made of it; ``name`` says whose, in the error.

    Raises:
        PassphraseError: if it is empty or larger than ``SECRET_BYTES_MAX``.
    """
    if not 0 < len(secret) <= SECRET_BYTES_MAX:
        raise PassphraseError(
            f"expected a passphrase or key file of 1 to {SECRET_BYTES_MAX} bytes, "
            f"found {'more' if secret else 'none'}",
            name=name,
        )
    return secret


def read_small(path: Path, limit: int) -> bytes:
    """A file of at most ``limit`` bytes; of a longer one, one byte more than that.

    Raises:
        PassphraseError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise PassphraseError(f"expected a file of keys: {reason}", name=str(path)) from None


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Make a file, durable when this returns, and never in the place of another.

    Raises:
        RefusedError: if there is something of that name.
        TargetError: if it cannot be written; nothing is left of it then.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise RefusedError("exists, and keys are never overwritten", name=str(path)) from None
    except OSError as failure:
        raise TargetError(f"cannot be made: {failure.strerror}", name=str(path)) from failure
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(path.parent)
    except OSError as failure:
        path.unlink(missing_ok=True)
        raise TargetError(f"cannot be written: {failure.strerror}", name=str(path)) from failure
