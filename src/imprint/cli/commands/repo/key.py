"""repo key: list, add, change and remove the keys of an encrypted repository."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import options, repositories
from imprint.cli.passphrases import passphrase
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.repository.key_objects import KeyObject, Origin

EXAMPLES = """\
  imprint repo key list /srv/images
  imprint repo key add /srv/images --label office
  imprint repo key add /srv/images --new-key-file host1.key --rights add    may add, not read
  imprint repo key change /srv/images 8c1f
  imprint repo key remove /srv/images 8c1f
"""

_NEW: Final = "IMPRINT_NEW_PASSPHRASE"
_NAMED: Final = ("change", "remove")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-key.md`` lists them too."""
    parser.add_argument("action", choices=("list", "add", "change", "remove"))
    repositories.add_place(parser)
    parser.add_argument(
        "name", nargs="?", help="of the key to change or remove: the beginning of its digits"
    )
    parser.add_argument(
        "--new-passphrase-file",
        metavar="FILE",
        type=Path,
        help=f"the passphrase of the new key; else {_NEW}, or a prompt",
    )
    parser.add_argument(
        "--new-key-file", metavar="FILE", type=Path, help="the new key, instead of a passphrase"
    )
    parser.add_argument(
        "--rights",
        choices=("full", "add"),
        default="full",
        help="of a key that is added; with add, it can add snapshots and read none",
    )
    parser.add_argument("--label", metavar="TEXT", help="what to call it; anybody can read that")
    repositories.add_access(parser)
    options.add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """List the keys, or change them."""
    if (args.name is not None) != (args.action in _NAMED):
        wish = "the name of a key" if args.action in _NAMED else "no name"
        raise UsageError(f"repo key {args.action}: expected {wish}")
    if args.action == "list":
        return _list(args, console)
    from imprint.repository import keyring
    from imprint.repository.key_objects import Rights

    with repositories.opened(args, console) as repository:
        secrets, encryption = repository.secrets, repository.format.encryption
        if secrets is None or encryption is None:
            raise UsageError("is not encrypted: it has no keys", name=repository.name)
        store = repository.store
        if args.action == "remove":
            name = keyring.remove_key(store, secrets, args.name)
            console.print(f"{name}: removed")
            console.result(removed=name)
            return 0
        secret, origin = _secret(args, console, repository.name)
        if args.action == "add":
            key = keyring.add_key(
                store,
                secrets,
                encryption,
                secret,
                rights=Rights(args.rights),
                origin=origin,
                label=args.label or "",
            )
        else:
            key = keyring.change_key(
                store, secrets, encryption, args.name, secret, origin=origin, label=args.label
            )
    console.print(f"{key.name}: rights {key.rights}")
    console.result(**_json(key))
    return 0


def _secret(args: argparse.Namespace, console: Console, name: str) -> tuple[bytes, Origin]:
    """What the new key is made of."""
    from imprint.repository.key_files import read_secret_file
    from imprint.repository.key_objects import Origin

    if args.new_key_file is not None:
        if args.new_passphrase_file is not None:
            raise UsageError("expected --new-key-file or --new-passphrase-file, found both")
        return read_secret_file(args.new_key_file), Origin.FILE
    ask = passphrase(args.new_passphrase_file, console, variable=_NEW, is_new=True)
    return ask(name), Origin.PASSPHRASE


def _list(args: argparse.Namespace, console: Console) -> int:
    from imprint.endpoints.location import place_of
    from imprint.endpoints.repository import open_store
    from imprint.repository.format import read_format
    from imprint.repository.keyring import list_keys

    with closing(open_store(place_of(args.place), repositories.access(args, console))) as store:
        read_format(store)
        found = list_keys(store)
    rows = [("key", "rights", "is", "created", "label")]
    for item in found:
        key = item.key
        if key is None:
            rows.append((_digits(item.name), "-", "damaged", "-", item.problem))
        else:
            rows.append((_digits(key.name), key.rights, key.origin, key.created, key.label))
    if found:
        console.table(rows)
    else:
        console.print("no keys: the repository is not encrypted")
    console.result(
        keys=[
            {"name": item.name, "problem": item.problem} if item.key is None else _json(item.key)
            for item in found
        ]
    )
    return 0


def _digits(name: str) -> str:
    return name.rpartition("/")[2]


def _json(key: KeyObject) -> dict[str, object]:
    return {
        "name": key.name,
        "rights": str(key.rights),
        "source": str(key.origin),
        "label": key.label,
        "created": key.created,
        "problem": None,
    }
