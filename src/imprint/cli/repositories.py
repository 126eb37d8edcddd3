"""What the verbs of repositories share."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.passphrases import PASSPHRASE, passphrase
from imprint.core.errors import UsageError
from imprint.core.units import format_size
from imprint.endpoints.open import Access

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.endpoints.location import Location
    from imprint.repository.copying import CopyReport
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Manifest, Snapshot


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


def access(args: argparse.Namespace, console: Console, *, is_new: bool = False) -> Access:
    """The :class:`Access` that :func:`add_access` asks for; ``is_new``: it is being made."""
    return Access(
        passphrase=passphrase(args.passphrase_file, console, is_new=is_new),
        key_file=args.key_file,
        open_place=options.place_opener(args),
        pins=options.pins(),
        on_event=console.on_event,
        cancel=console.cancel,
    )


def opened(args: argparse.Namespace, console: Console) -> Repository:
    """The repository that is the first argument; it has to be closed."""
    from imprint.endpoints.location import place_of
    from imprint.endpoints.repository import open_repository

    return open_repository(place_of(args.place), access(args, console))


def add_address(parser: argparse.ArgumentParser, name: str, help_: str) -> None:
    """A snapshot, as an argument."""
    metavar = "snapshot" if name == "address" else name
    parser.add_argument(name, metavar=metavar, help=f"{help_}, as repo:PLACE::IMAGE[@SNAPSHOT]")


def located(address: str) -> Location:
    """A snapshot's address, parsed; it may lack ``repo:``.

    Raises:
        UsageError: if it is none.
    """
    from imprint.endpoints.location import REPOSITORY_MARK, parse

    location = parse(f"{REPOSITORY_MARK}{address.removeprefix(REPOSITORY_MARK)}")
    if location.is_part:
        raise UsageError("expected a whole disk, found a part of it", name=address)
    return location


def selected(
    address: str, args: argparse.Namespace, console: Console
) -> tuple[Repository, Snapshot]:
    """The snapshot of an address, and its repository, which has to be closed."""
    from imprint.endpoints.repository import open_selected

    return open_selected(located(address), access(args, console))


def add_second(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """How another repository is unlocked, which ``name`` calls ``to`` or ``from``."""
    parser.add_argument(
        f"--{name}-passphrase-file",
        metavar="FILE",
        type=Path,
        help=f"unlocks {what}; else {_variable(name)}, IMPRINT_PASSPHRASE, or a prompt",
    )
    parser.add_argument(
        f"--{name}-key-file",
        metavar="FILE",
        type=Path,
        help=f"unlocks {what}, instead of a passphrase",
    )


def second(args: argparse.Namespace, console: Console, name: str, place: str) -> Repository:
    """The other repository, which has to be closed."""
    from imprint.endpoints.location import place_of
    from imprint.endpoints.repository import open_repository

    variable = _variable(name) if _variable(name) in os.environ else PASSPHRASE
    file: Path | None = getattr(args, f"{name}_passphrase_file")
    other = replace(
        access(args, console),
        passphrase=passphrase(file, console, variable=variable),
        key_file=getattr(args, f"{name}_key_file"),
    )
    return open_repository(place_of(place), other)


def _variable(name: str) -> str:
    return f"IMPRINT_{name.upper()}_PASSPHRASE"


def add_choice(parser: argparse.ArgumentParser, verb: str) -> None:
    """Which snapshots of a repository are meant."""
    parser.add_argument(
        "--image",
        metavar="NAME",
        action="append",
        default=[],
        help=f"{verb} only the snapshots of this image; repeatable",
    )
    parser.add_argument(
        "--newest", action="store_true", help=f"{verb} only the newest snapshot of each image"
    )


def listed(repository: Repository, console: Console) -> list[Snapshot]:
    """All snapshots that can be read, by time; the others are told."""
    from imprint.endpoints.repository import teller

    return repository.snapshots(teller(console.on_event))


def chosen(repository: Repository, args: argparse.Namespace, console: Console) -> list[Snapshot]:
    """The snapshots that :func:`add_choice` means, by time."""
    from imprint.repository.snapshots import select

    found = listed(repository, console)
    for image in args.image:
        select(found, image, None, repository.name)  # or say that there is none
    if args.image:
        found = [item for item in found if item.manifest.image in args.image]
    if args.newest:
        # They come by time: the last of each image stays.
        found = list({item.manifest.image: item for item in found}.values())
    return found


def tell_copied(report: CopyReport, console: Console) -> None:
    """The result of copying snapshots into a repository."""
    for name in report.unsigned:
        console.note(f"{name}: its signature does not hold in the other repository")
    console.print(
        f"{len(report.copied)} snapshots copied, {len(report.present)} were there already; "
        f"{format_size(report.stored)} stored"
    )
    console.result(
        copied=[{**snapshot_json(old), "as": new.name} for old, new in report.copied],
        present=[old.name for old, _ in report.present],
        unsigned=report.unsigned,
        bytes_read=report.read,
        bytes_stored=report.stored,
    )


def when(manifest: Manifest) -> str:
    """The time of a snapshot for people, where they are."""
    return manifest.taken.astimezone().strftime("%Y-%m-%d %H:%M:%S")


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
