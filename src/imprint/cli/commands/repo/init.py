"""repo init: make an empty repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import repositories
from imprint.cli.options import add_json, number
from imprint.codecs.zstd import LEVEL_MAX
from imprint.core.errors import UsageError
from imprint.repository.format import PARITY_MAX

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo init /srv/images
  imprint repo init /srv/images --encrypt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-init.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument(
        "--encrypt",
        action="store_true",
        help="with a passphrase, or with --key-file: without it nothing can be read",
    )
    parser.add_argument(
        "--level",
        metavar="N",
        type=number(1, LEVEL_MAX),
        default=3,
        help=f"of the compression with Zstandard, 1 to {LEVEL_MAX} (default: 3)",
    )
    parser.add_argument(
        "--parity",
        metavar="N",
        type=number(0, PARITY_MAX),
        default=0,
        help="percentage of redundancy that is kept, to repair what rots (default: 0, none)",
    )
    repositories.add_access(parser)
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make it."""
    if args.key_file is not None and not args.encrypt:
        raise UsageError("--key-file makes sense only with --encrypt")
    from imprint.endpoints.location import place_of
    from imprint.endpoints.repository import make_repository

    with make_repository(
        place_of(args.place),
        repositories.access(args, console, is_new=True),
        is_encrypted=args.encrypt,
        level=args.level,
        parity=args.parity,
    ) as made:
        cipher = None if made.format.encryption is None else made.format.encryption.cipher
        how = "not encrypted" if cipher is None else f"encrypted with {cipher}"
        console.print(f"{made.name}: an empty repository, {how}")
        console.result(
            place=made.name,
            id=made.format.id,
            encryption=cipher,
            level=made.format.level,
            parity=made.format.parity,
        )
    return 0
