"""Passphrases: from a file, the environment or a prompt, never from an argument."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from imprint.cli.console import printable
from imprint.core.errors import PassphraseError, ReadError

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.cli.console import Console
    from imprint.core.contracts import Passphrase

PASSPHRASE: Final = "IMPRINT_PASSPHRASE"  # noqa: S105 - the name of one
"""The variable of the environment."""


def passphrase(
    file: Path | None,
    console: Console,
    *,
    asks: bool = True,
    variable: str = PASSPHRASE,
    is_new: bool = False,
) -> Passphrase:
    """What asks for a secret.

    Args:
        file: whose content it is; ``None``: it comes from elsewhere.
        console: for asking.
        asks: whether a person may be asked.
        variable: of the environment.
        is_new: whether the secret is being chosen: a person has to type it twice then.
    """

    def ask(name: str) -> bytes:
        secret = given(name)
        if is_new and not secret:  # an empty file, or a variable that was never filled
            raise PassphraseError("expected a passphrase, found an empty one", name=name)
        return secret

    def given(name: str) -> bytes:
        if file is not None:
            try:
                return file.read_bytes().removesuffix(b"\n")
            except OSError as failure:
                raise ReadError((failure.strerror or "").lower(), name=str(file)) from failure
        secret = os.environ.get(variable)
        if secret is not None:
            return os.fsencode(secret)
        if not asks or not _has_terminal():
            new = "new-" if variable != PASSPHRASE else ""
            raise PassphraseError(
                f"expected a {new.replace('-', ' ')}passphrase"
                if is_new
                else "is encrypted: expected a passphrase",
                name=name,
                advice=f"give it with --{new}passphrase-file or in {variable}",
            )
        return _typed(name, console, is_new=is_new)

    return ask


def _typed(name: str, console: Console, *, is_new: bool) -> bytes:
    """What a person answers."""
    import getpass  # only where somebody is asked

    with console.asking():
        try:
            new = "new " if is_new else ""
            given = getpass.getpass(f"{new}passphrase for {printable(name)}: ").encode()
            if is_new and getpass.getpass("the same again: ").encode() != given:
                raise PassphraseError("expected the same passphrase twice", name=name)
        except EOFError:
            raise PassphraseError("expected a passphrase, found nothing", name=name) from None
        return given


def _has_terminal() -> bool:
    """Whether there is somebody to ask. Standard input may be a disk, and is left alone."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
