"""What the verbs of repositories share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.endpoints.open import Access

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot


def add_place(parser: argparse.ArgumentParser) -> None:
    """The repository, as first argument."""
    parser.add_argument("place", help="folder or URL of the repository, with or without repo:")


def add_access(parser: argparse.ArgumentParser) -> None:
    """How the repository is unlocked."""
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="unlocks the repository; else IMPRINT_PASSPHRASE, or a prompt",
    )
    options.add_key_file(parser)
    options.add_place_options(parser)


def access(args: argparse.Namespace, console: Console) -> Access:
    """The :class:`Access` that :func:`add_access` asks for."""
    return Access(
        passphrase=options.passphrase(args.passphrase_file, console),
        key_file=args.key_file,
        open_place=options.place_opener(args),
        on_event=console.on_event,
        cancel=console.cancel,
    )


def opened(args: argparse.Namespace, console: Console) -> Repository:
    """The repository that is the first argument; it has to be closed."""
    from imprint.endpoints.location import place_of
    from imprint.endpoints.repository import open_repository

    return open_repository(place_of(args.place), access(args, console))


def snapshot_json(snapshot: Snapshot) -> dict[str, object]:
    """What lists say of a snapshot."""
    manifest = snapshot.manifest
    return {
        "image": manifest.image,
        "snapshot": snapshot.name,
        "time": manifest.time,
        "size": manifest.size,
        "stored": manifest.stored,
    }
