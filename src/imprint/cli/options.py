"""Options that several verbs share, declared once, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.core.errors import PassphraseError, ReadError, UsageError
from imprint.core.units import parse_size
from imprint.endpoints.open import Access

if TYPE_CHECKING:
    from imprint.cli.console import Console
    from imprint.core.contracts import Passphrase


def size(text: str) -> int:
    """A size, as an argument."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def key_value(text: str) -> tuple[str, str]:
    """``KEY=VALUE``, as an argument."""
    key, mark, value = text.partition("=")
    if not mark or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    return key, value


def workers(text: str) -> int:
    """A number of threads, as an argument."""
    if not text.isdecimal() or not 1 <= int(text) <= 64:  # noqa: PLR2004 - more only cost memory
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 64, found {text!r}")
    return int(text)


def add_output(parser: argparse.ArgumentParser) -> None:
    """``--json``, ``--progress``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as result")
    parser.add_argument(
        "--progress", choices=("auto", "plain", "none"), default="auto", help="how to show progress"
    )


def add_access(parser: argparse.ArgumentParser, *, snapshot: bool = True) -> None:
    """How a source is opened."""
    parser.add_argument("-f", "--format", metavar="FORMAT", help="source format: skip probing")
    parser.add_argument(
        "--allow-parent",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="folder where backing files may live, besides the image's own; repeatable",
    )
    parser.add_argument("--passphrase-file", metavar="FILE", type=Path, help="unlocks the image")
    if snapshot:
        parser.add_argument(
            "--snapshot", metavar="NAME", help="read an internal snapshot, by name or id"
        )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """``-j``."""
    parser.add_argument(
        "-j",
        "--workers",
        metavar="N",
        type=workers,
        default=min(8, max(2, os.cpu_count() or 2)),
        help="threads that read ahead and compress",
    )


def access(
    args: argparse.Namespace, console: Console, *, format_: str | None = None, lenient: bool = False
) -> Access:
    """The :class:`Access` that the options ask for."""
    return Access(
        format=format_ or getattr(args, "format", None),
        allowed=tuple(args.allow_parent),
        passphrase=passphrase(args.passphrase_file),
        snapshot=getattr(args, "snapshot", None),
        lenient=lenient,
        on_event=console.on_event,
    )


def passphrase(file: Path | None) -> Passphrase:
    """Secrets come from a file, the environment or a prompt, never from an argument."""

    def ask(name: str) -> bytes:
        if file is not None:
            try:
                return file.read_bytes().removesuffix(b"\n")
            except OSError as failure:
                raise ReadError((failure.strerror or "").lower(), name=str(file)) from failure
        secret = os.environ.get("IMPRINT_PASSPHRASE")
        if secret is not None:
            return os.fsencode(secret)
        import getpass  # only where somebody is asked

        try:
            return getpass.getpass(f"passphrase for {name}: ").encode()
        except (EOFError, OSError) as failure:
            raise PassphraseError(
                "is encrypted: expected a passphrase",
                name=name,
                advice="give it with --passphrase-file or in IMPRINT_PASSPHRASE",
            ) from failure

    return ask
